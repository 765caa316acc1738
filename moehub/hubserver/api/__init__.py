"""The Hugging Face Hub API over HTTP.

module            what it answers
routes            which endpoint a method and a path belong to
call, values      what an endpoint is asked with; what a body in JSON holds
answers           refusals and errors as the client understands them
paging            lists in pieces
whoami            who a token belongs to
repos             making, deleting and opening repos
models, details   lists of repos, and what is said about one
tree, refs, log   files of a commit, branches and tags, commits
front_matter      whether a model card can be read
preupload, lfs    what the client should send, and where to
addresses         signed addresses that large files are sent to
uploads, parts    their bytes, in one piece or in several
receiving         any bytes on their way in
xet               the same from newer clients, as pieces that the hub puts together
commit            commits
resolve, download files, whole or in part

An endpoint is a function of a `Call`. One that is `async` reads its body by itself; every other one gets it whole, and
runs in a thread.
"""
