"""What an endpoint is asked with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import parse_qs

from anyio import CapacityLimiter
from starlette.requests import Request

from moehub.hubserver.api import values
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.settings import ServerSettings
from moehub.hubserver.store.history import Admit
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.store import Store
from moehub.hubserver.visitor import Visitor

_MOST_FIELDS = 10_000


@dataclass(frozen=True)
class Call:
    """One request to the API."""

    request: Request
    store: Store
    settings: ServerSettings
    admit: Admit
    """Looks at what a commit would hold."""
    gates: CapacityLimiter
    """Threads that may wait for that: it can take long."""
    visitor: Visitor
    """Who asks."""
    address: str
    """The hub's address as they know it, without a slash at the end."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """What the path says, by the names in its pattern; decoded after it was split."""
    body: bytes = b""
    """The whole body, for an endpoint that does not read it by itself."""

    @property
    def repo_name(self) -> str:
        """The repo that the path names."""
        return f"{self.parts['namespace']}/{self.parts['name']}"

    def repo(self, *, write: bool = False, content: bool = False) -> Repo:
        """Return the repo that the path names.

        Raises:
            RefusedError: there is none that the visitor may see, or write to (`write`), or read (`content`).
        """
        return self.store.repos.get(self.repo_name, self.visitor, write=write, content=content)

    def values(self) -> values.Values:
        """Return the object in the body.

        Raises:
            RefusedError: there is none.
        """
        return values.read(self.body)

    @cached_property
    def query(self) -> Mapping[str, list[str]]:
        """What the address asks for: name → every value."""
        return fields(self.request.scope["query_string"])

    def first(self, name: str, default: str = "") -> str:
        """Return the first value that the address gives `name`."""
        return self.query.get(name, [default])[0]

    def asks(self, name: str) -> bool:
        """Return whether the address asks for `name`, by itself or as something true."""
        return name in self.query and self.first(name).lower() in ("", "1", "true", "yes")


def fields(encoded: bytes) -> Mapping[str, list[str]]:
    """Return what a query or a form holds: name → every value.

    Raises:
        RefusedError: it cannot be read.
    """
    try:
        return parse_qs(encoded.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise RefusedError(
            400, f"the form or query cannot be read ({error}): expected name=value&name=value"
        ) from error
