"""Who sends a request, and what that allows."""

from dataclasses import dataclass

EVERY_NAMESPACE = "*"


@dataclass(frozen=True)
class Visitor:
    """Somebody who asks the hub for something."""

    name: str
    """What the hub calls them, in commits and to themselves."""
    namespaces: frozenset[str] = frozenset()
    """Namespaces that are theirs, in lower case; `*`: every one."""
    writes: bool = False
    """Whether they may change what is in their namespaces."""
    grants: frozenset[str] = frozenset()
    """Gated repos of others that they were admitted to, as `org/name` in lower case."""
    known: bool = True
    """Whether they proved who they are."""

    def belongs(self, namespace: str) -> bool:
        """Return whether a namespace is theirs."""
        return bool(self.namespaces & {EVERY_NAMESPACE, namespace.lower()})

    def may_write(self, namespace: str) -> bool:
        """Return whether they may create and change repos of a namespace."""
        return self.writes and self.belongs(namespace)

    def may_see(self, repo: "Visible") -> bool:
        """Return whether they may know that a repo exists."""
        return not repo.private or self.belongs(repo.namespace)

    def may_read(self, repo: "Visible") -> bool:
        """Return whether they may read a repo's files."""
        admitted = not repo.gated or self.belongs(repo.namespace) or f"{repo.id}".lower() in self.grants
        return self.may_see(repo) and admitted


@dataclass(frozen=True)
class Visible:
    """What decides who may see a repo."""

    namespace: str
    name: str
    private: bool
    gated: str | None
    """`auto` or `manual`; None: whoever sees it may read it."""

    @property
    def id(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


STRANGER = Visitor("anonymous", known=False)
"""Somebody without a token: may read what is public."""
EVERYBODY = Visitor("anonymous", frozenset({EVERY_NAMESPACE}), writes=True, known=False)
"""Anybody at all, on a hub that is open."""
