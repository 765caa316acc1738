"""What a page is asked with."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from starlette.requests import Request

from moehub.hubserver.api.call import fields
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.store import Store
from moehub.hubserver.visitor import EVERY_NAMESPACE, Visitor


@dataclass(frozen=True)
class Ask:
    """One request for a page."""

    request: Request
    visitor: Visitor
    """Who asks; it decides what they see."""
    store: Store
    address: str
    """The hub's address as they know it, without a slash at the end."""
    body: bytes = b""
    """The form that was sent, for the two pages that take one."""

    @property
    def path(self) -> str:
        """The page's own address below the hub's, as it was sent."""
        query = self.request.url.query
        return self.request.scope["raw_path"].decode("ascii", "replace") + (f"?{query}" if query else "")

    @property
    def may_log_in(self) -> bool:
        """Whether logging in would show the visitor more."""
        return not self.visitor.known and EVERY_NAMESPACE not in self.visitor.namespaces

    @cached_property
    def query(self) -> Mapping[str, list[str]]:
        """What the address asks for: name → every value."""
        return fields(self.request.scope["query_string"])

    @cached_property
    def form(self) -> Mapping[str, list[str]]:
        """What the form holds: name → every value."""
        return fields(self.body)

    def first(self, name: str) -> str:
        """Return the first value that the address gives `name`; empty where it gives none."""
        return self.query.get(name, [""])[0].strip()

    def repo(self, namespace: str, name: str) -> Repo:
        """Return a repo whose files the visitor may read.

        Raises:
            RefusedError: there is none that they may see, or they may not read it.
        """
        return self.store.repos.get(f"{namespace}/{name}", self.visitor, content=True)
