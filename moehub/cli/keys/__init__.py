"""`moehub keys`: who signed an expert, and whose signatures count here."""
