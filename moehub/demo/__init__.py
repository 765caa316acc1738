"""The whole road on text that every machine with moehub already holds: no download, no GPU."""
