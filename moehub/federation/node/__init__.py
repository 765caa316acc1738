"""The contributor's side: tasks come in, text stays."""
