"""What lies on disk: one SQLite file and content-addressed blobs, and the changes to them."""
