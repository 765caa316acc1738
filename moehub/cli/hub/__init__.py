"""`moehub hub`: run a hub of one's own, and look after it."""
