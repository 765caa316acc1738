"""What lies on disk: one SQLite file and content-addressed blobs, and the changes to them.

module      what it keeps
database    the SQLite file: schema, connections, transactions
blobs       the bytes of files, by sha256
uploads     bytes on their way in, and which repo may commit which blob
xorbs       what comes through Xet, until it is a blob; its formats are in `chunks` and `shards`
repos       repos by name, who may see them, refs
trees       what a commit holds: path → entry
history     commits, and the one way to make one
heads       what `main` says about itself, for lists and search
tokens      who may do what
verdicts    what the admission gate said about an expert

A blob appears by one rename after its bytes are on disk, a commit by one transaction after its blobs are there:
whatever is killed in between leaves bytes that nobody refers to, and `moehub hub gc` removes those.
"""
