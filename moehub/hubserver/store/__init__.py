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
tags        what a repo is found by
documents   small files that strangers wrote, read with care
members     which experts a MoE holds
kin         which MoEs hold an expert, and where their experts are published
tokens      who may do what
verdicts    what the admission gate said about an expert
store       all of them over one root folder
collection  removing what nobody refers to
fsck        checking that everything is there and fits together
backup      a copy, taken while the hub serves
upkeep      keeps those three out of each other's way

A blob appears by one rename after its bytes are on disk, a commit by one transaction after its blobs are there:
whatever is killed in between leaves bytes that nobody refers to, and `moehub hub gc` removes those.
"""
