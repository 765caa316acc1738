"""Who takes part: every node that connects is asked who it is, whenever it comes.

A node's key is what it is known by from one run of the server to the next: the name that its operator registered, or
Flower's id of it. Its label is what people see, and no two nodes share one.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moehub import config
from moehub.errors import ConfigError, FederationError
from moehub.federation import messages
from moehub.federation.form import Form
from moehub.federation.journal import Joined, Journal, Refused
from moehub.federation.messages import DescribeTask, Description
from moehub.federation.server import validation
from moehub.federation.server.post import Answer, Letter, Post
from moehub.federation.settings import FederationConfig

PATIENCE = 60.0
"""Seconds that a round waits for a node that has not said yet who it is; later it joins a later round."""
_DESCRIBING = 3600.0
"""Seconds that it may take: a large base is read once for its digest."""
_TRIES = 3


@dataclass(frozen=True)
class Registered:
    """What the federation's operator wrote down about a node."""

    name: str
    domain: str = ""
    """Empty: whatever the node says."""


@dataclass(frozen=True)
class Member:
    """A node that takes part."""

    node: int
    key: str
    label: str
    said: Description

    @property
    def domain(self) -> str:
        """What its text is about."""
        return self.said.domain


class Registry:
    """A file of registered nodes, read again when it changes, so that newcomers need no restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: dict[str, Registered] = {}
        self._stamp = (-1, -1)

    def get(self, node: int) -> Registered | None:
        """Return what is written down about a node.

        Raises:
            FederationError: the file cannot be read.
        """
        try:
            status = self._path.stat()
            if (status.st_mtime_ns, status.st_size) != self._stamp:
                values = json.loads(self._path.read_text(encoding="utf-8"))
                self._read = {
                    str(key): config.from_mapping(Registered, each, source=f"{self._path}: node {key}")
                    for key, each in values.items()
                }
                self._stamp = status.st_mtime_ns, status.st_size
        except (OSError, ValueError, AttributeError, ConfigError) as error:
            raise FederationError(
                f"the registry of nodes in {self._path} cannot be read ({error}): register the nodes again with "
                "`moehub federate register`"
            ) from error
        return self._read.get(str(node))


@dataclass
class Roster:
    """The nodes of a run."""

    post: Post
    form: Form
    settings: FederationConfig
    journal: Journal
    registry: Registry | Mapping[int, Registered] | None = None
    """None: nodes are what they say."""
    members: dict[int, Member] = field(default_factory=dict)
    """Flower's id → node, connected or not."""
    refused: dict[int, str] = field(default_factory=dict)
    """Flower's id → why."""
    connected: set[int] = field(default_factory=set)
    _asked: dict[str, tuple[Letter, float]] = field(default_factory=dict)
    _failed: Counter[int] = field(default_factory=Counter)

    def look(self) -> set[int]:
        """Ask newcomers who they are, hear who answered, and return the ids of the nodes that are connected.

        Raises:
            FederationError: Flower has ended the run.
        """
        self.connected = self.post.online()
        for gone in self.refused.keys() - self.connected:
            # Its operator may have mended what was wrong with it.
            self.refused.pop(gone)
            self._failed.pop(gone, None)
        asked = {letter.node for letter, _ in self._asked.values()}
        self._ask(self.connected - self.members.keys() - self.refused.keys() - asked)
        for message, answer in self.post.receive({message: letter for message, (letter, _) in self._asked.items()}):
            self._asked.pop(message)
            self._hear(answer)
        return self.connected

    def settled(self) -> bool:
        """Return whether every connected node has said who it is, or has had its time to."""
        now = self.post.clock()
        return not any(
            letter.node in self.connected and now - since < PATIENCE for letter, since in self._asked.values()
        )

    def heard(self) -> int:
        """Return the number of connected nodes that take part or were refused."""
        return len(self.connected & (self.members.keys() | self.refused.keys()))

    def present(self, domain: str) -> list[Member]:
        """Return the connected nodes of a domain, in the order of their keys."""
        found = [each for each in self.members.values() if each.domain == domain and each.node in self.connected]
        return sorted(found, key=lambda member: member.key)

    def domains(self) -> list[str]:
        """Return the domains of the connected nodes, in order."""
        return sorted({each.domain for each in self.members.values() if each.node in self.connected})

    def _ask(self, nodes: set[int]) -> None:
        task = base_of(self.settings, self.form)
        letters = [Letter(node, messages.DESCRIBE, task) for node in sorted(nodes)]
        sent, _ = self.post.send(letters, _DESCRIBING)
        now = self.post.clock()
        self._asked |= {message: (letter, now) for message, letter in sent.items()}

    def _hear(self, answer: Answer) -> None:
        node = answer.letter.node
        if answer.content is None:
            self._failed[node] += 1
            if self._failed[node] >= _TRIES:
                self._refuse(node, "", f"it could not say who it is: {answer.reason}")
            return
        registered = None if self.registry is None else self.registry.get(node)
        try:
            said = validation.described(answer.content, self.form, self.settings)
            self._check_registered(said, registered)
            key = registered.name if registered else str(node)
            self._replace(key)
        except FederationError as error:
            self._refuse(node, registered.domain if registered else "", str(error))
            return
        member = Member(node, key, self._label(registered.name if registered else said.name, node), said)
        self.members[node] = member
        self.journal.write(Joined(member.label, said.domain, said.device))

    def _check_registered(self, said: Description, registered: Registered | None) -> None:
        if self.registry is not None and registered is None:
            raise FederationError("it is not registered: register it with `moehub federate register`")
        if registered and registered.domain not in ("", said.domain):
            raise FederationError(
                f"its domain is {said.domain!r}, but it is registered for {registered.domain!r}: "
                "start it with the registered --domain, or register it anew"
            )

    def _replace(self, key: str) -> None:
        """Forget the node that was known by `key` before: it has come back under another id.

        Raises:
            FederationError: it is still connected.
        """
        for member in [each for each in self.members.values() if each.key == key]:
            if member.node in self.connected:
                raise FederationError(f"another node is connected as {key!r}: register each node under its own name")
            del self.members[member.node]

    def _refuse(self, node: int, domain: str, reason: str) -> None:
        self.refused[node] = reason
        name = None if self.registry is None else self.registry.get(node)
        self.journal.write(Refused(0, self._label(name.name if name else "", node), domain, reason))

    def _label(self, name: str, node: int) -> str:
        taken = {each.label for each in self.members.values()}
        digits = str(node)
        if name and name not in taken:
            return name
        short = f"{name or 'node'}-{digits[:8]}"
        return short if short not in taken else f"{name or 'node'}-{digits}"


def base_of(settings: FederationConfig, form: Form) -> DescribeTask:
    """Return how nodes are told of the base: by repo and commit, or as the federation's settings name its folder."""
    pin = form.base
    return DescribeTask(pin.reference if pin.revision else settings.base, pin.revision or "", pin.digest, pin.tokenizer)
