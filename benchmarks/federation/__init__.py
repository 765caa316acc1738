"""What the federation is worth and what it costs; each module prints a table."""
