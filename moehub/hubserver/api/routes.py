"""Which endpoint a method and a path belong to.

A pattern's parts stand between slashes: `{name}` is one part of the path, `{name}.git` one with that end, and
`{name...}` all that are left. A path is split before it is decoded, so a branch `exp/1` is one part, `exp%2F1`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from starlette.responses import Response

from moehub.hubserver.api import (
    commit,
    details,
    front_matter,
    lfs,
    log,
    models,
    preupload,
    refs,
    repos,
    resolve,
    tree,
    uploads,
    whoami,
    xet,
)
from moehub.hubserver.api.call import Call
from moehub.hubserver.refusals import RefusedError

Endpoint = Callable[[Call], Response] | Callable[[Call], Awaitable[Response]]

_API = "api"
_XET = "api/xet/{epoch}/{namespace}/{name}/{number}"
_REPO = "api/models/{namespace}/{name}"


@dataclass(frozen=True)
class Route:
    """One address of the API."""

    method: str
    pattern: str
    endpoint: Endpoint

    def parts(self, segments: Sequence[str]) -> dict[str, str] | None:
        """Return what a path says where the pattern has names, None where it does not fit."""
        wanted, found = self.pattern.split("/"), dict[str, str]()
        for number, part in enumerate(wanted):
            if part.endswith("...}"):
                found[part[1:-4]] = "/".join(segments[number:])
                return found if segments[number:] else None
            if number == len(segments):
                return None
            name, _, end = part.removeprefix("{").partition("}")
            given = segments[number]
            if not part.startswith("{"):
                if given != part:
                    return None
            elif not given.endswith(end) or given == end:
                return None
            else:
                found[name] = given.removesuffix(end)
        return found if len(segments) == len(wanted) else None


ROUTES = (
    Route("GET", "api/whoami-v2", whoami.whoami),
    Route("POST", "api/validate-yaml", front_matter.validate),
    Route("POST", "api/repos/create", repos.create),
    Route("DELETE", "api/repos/delete", repos.delete),
    Route("GET", "api/models", models.models),
    Route("GET", _REPO, details.model),
    Route("GET", f"{_REPO}/revision/{{revision}}", details.model),
    Route("GET", f"{_REPO}/tree/{{revision}}", tree.listing),
    Route("GET", f"{_REPO}/tree/{{revision}}/{{path...}}", tree.listing),
    Route("POST", f"{_REPO}/paths-info/{{revision}}", tree.paths),
    Route("GET", f"{_REPO}/refs", refs.refs),
    Route("POST", f"{_REPO}/branch/{{ref}}", refs.make_branch),
    Route("DELETE", f"{_REPO}/branch/{{ref}}", refs.remove_branch),
    Route("POST", f"{_REPO}/tag/{{ref}}", refs.make_tag),
    Route("DELETE", f"{_REPO}/tag/{{ref}}", refs.remove_tag),
    Route("GET", f"{_REPO}/commits/{{revision}}", log.commits),
    Route("PUT", f"{_REPO}/settings", repos.change_settings),
    Route("GET", f"{_REPO}/auth-check", repos.may_read),
    Route("GET", f"{_REPO}/auth-check/write", repos.may_write),
    Route("POST", f"{_REPO}/preupload/{{revision}}", preupload.preupload),
    Route("POST", f"{_REPO}/commit/{{branch}}", commit.commit),
    Route("POST", "{namespace}/{name}.git/info/lfs/objects/batch", lfs.batch),
    Route("PUT", "api/uploads/{namespace}/{name}/{sha256}", uploads.receive),
    Route("POST", "api/uploads/{namespace}/{name}/{sha256}", uploads.end),
    Route("GET", f"{_REPO}/xet-write-token/{{revision}}", xet.token),
    Route("POST", f"{_XET}/v1/xorbs/default/{{xorb}}", xet.xorb),
    Route("POST", f"{_XET}/v1/shards", xet.shard),
    Route("GET", "{namespace}/{name}/resolve/{revision}/{path...}", resolve.resolve),
)


def find(method: str, segments: Sequence[str]) -> tuple[Endpoint, Mapping[str, str]] | None:
    """Return the endpoint that answers a path, and what the path says; None if it is no address of the API.

    Raises:
        RefusedError: 405 where the path is asked for in another way, 404 where it is the API's and nothing is there.
    """
    method = "GET" if method == "HEAD" else method
    fitting = [(route, parts) for route in ROUTES if (parts := route.parts(segments)) is not None]
    for route, parts in fitting:
        if route.method == method:
            return route.endpoint, parts
    if fitting:
        methods = ", ".join(sorted({route.method for route, _ in fitting}))
        raise RefusedError(405, f"{method} is not what this address takes, expected {methods}")
    if segments[0] == _API:
        repo = segments[1:2] == ["models"] and len(segments) == 3
        raise RefusedError(404, f"this hub has no /{'/'.join(segments)[:200]}", "RepoNotFound" if repo else None)
    return None
