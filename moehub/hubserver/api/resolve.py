"""Which bytes a file of a revision is."""

from urllib.parse import quote

from starlette.responses import Response

from moehub.hubserver.api.call import Call
from moehub.hubserver.api.download import Download
from moehub.hubserver.refusals import no_entry


def resolve(call: Call) -> Response:
    """Answer a file's bytes; where a branch or a tag was named, where to find them by their commit.

    A client that resumes a download after the branch has moved would otherwise splice two files into one.

    Raises:
        RefusedError: there is no such repo, revision or file, or the visitor may not read it.
    """
    repo = call.repo(content=True)
    revision, path = call.parts["revision"], call.parts["path"]
    oid = call.store.repos.resolve(repo, revision)
    entry = call.store.history.tree(repo, oid).get(path)
    if entry is None:
        raise no_entry(repo.id, path, oid)
    headers = {"X-Repo-Commit": oid, "Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie"}
    if revision != oid:
        # Without a host: the client follows nothing else here.
        return Response(status_code=307, headers={**headers, "Location": f"/{repo.id}/resolve/{oid}/{quote(path)}"})
    etag = f'"{entry.etag}"'
    headers |= {"ETag": etag, "X-Linked-Size": str(entry.size), **({"X-Linked-Etag": etag} if entry.lfs else {})}
    return Download(call.store.blobs.path(entry.sha256), entry.size, path.rpartition("/")[2], headers)
