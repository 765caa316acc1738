"""A hub of one's own: a server that the unmodified Hugging Face client, PEFT and transformers can use.

room      what is in it
store/    what lies on disk: one SQLite file and content-addressed blobs, and the changes to them
api/      the Hugging Face Hub API over HTTP
pages/    what a person sees in a browser

One process, and from the first expert on one more, in which the admission gate runs; no other service. The root folder:

    hub.sqlite3          repos, commits, refs, tokens (hashed), quotas; WAL
    blobs/ab/abcdef…     every file's bytes, by sha256; written once, never changed
    incoming/            uploads in progress; removed when they are old
    xorbs/               uploads through Xet, kept for a day
    checking/            links to what the gate is looking at
    secret               signs upload addresses; readable by its owner alone
"""
