"""What every part of a run has at hand."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from moehub.console import console
from moehub.federation.aggregation import Aggregate
from moehub.federation.form import Form
from moehub.federation.journal import Event, Journal
from moehub.federation.messages import Asked
from moehub.federation.server.checkpoint import Checkpoints
from moehub.federation.server.post import Post
from moehub.federation.server.replies import Replies
from moehub.federation.server.roster import Roster, base_of
from moehub.federation.settings import FederationConfig

T = TypeVar("T", bound=Asked)


@dataclass(frozen=True)
class Run:
    """A run in progress."""

    name: str
    """The federation's own name for it, the same after a resumption."""
    settings: FederationConfig
    form: Form
    output: Path
    journal: Journal
    post: Post
    roster: Roster
    replies: Replies
    checkpoints: Checkpoints
    aggregate: Callable[..., Aggregate]
    """`moehub.federation.aggregation.aggregate`, or a stand-in."""

    def tell(self, event: Event) -> None:
        """Write an event to the journal, and a line about it to the log."""
        self.journal.write(event)
        said = [f"{name} {value}" for name, value in dataclasses.asdict(event).items() if value not in ("", (), None)]
        console.print(f"{event.kind}: {', '.join(said)}", markup=False, soft_wrap=True)

    def asked(self, domain: str) -> dict[str, str]:
        """Return what every task of a domain says, its own name left open."""
        return {
            "task": "",
            "run": self.name,
            "domain": domain,
            **dataclasses.asdict(base_of(self.settings, self.form)),
            "settings": json.dumps(dataclasses.asdict(self.settings.train), sort_keys=True),
        }

    def wait(self, enough: Callable[[], bool]) -> bool:
        """Wait until `enough` nodes are there, at most `settings.wait` seconds, and return whether they are."""
        ends = self.post.clock() + self.settings.wait
        while True:
            self.roster.look()
            if enough() and self.roster.settled():
                return True
            if self.post.clock() >= ends:
                return enough()
            self.post.sleep(self.post.pause)


def named(task: T, *, node: str, weights: str = "") -> T:
    """Return a task under the name that follows from what it says, for whom, and the digest of its weights.

    After a restart of the server the same task has the same name: a node answers it from what it kept.
    """
    values = {"kind": type(task).__name__, "node": node, "weights": weights, **dataclasses.asdict(task)}
    return dataclasses.replace(task, task=hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest())
