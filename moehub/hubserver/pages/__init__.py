"""What a person sees in a browser: pages made on the server, that need no JavaScript."""
