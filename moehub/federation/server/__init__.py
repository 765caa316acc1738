"""The server's side of a federation: it asks nodes, checks what they say, and puts an expert together."""
