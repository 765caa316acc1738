"""What a person sees of a run while it runs: a live table on a terminal, plain lines elsewhere."""

import dataclasses
import time
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console, Group
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table
from rich.text import Text

from moehub.console import console
from moehub.federation.deploy.wording import Name, line
from moehub.federation.journal import (
    Aggregated,
    Began,
    Entry,
    GaveUp,
    Joined,
    Missing,
    Published,
    Refused,
    Replied,
    RoundBegan,
)

_PROBLEMS = 6
"""Problems that stay below the table; the latest."""


@dataclass(frozen=True)
class Domain:
    """How far a domain is."""

    round: int = 0
    nodes: int = 0
    """That are asked in this round, or have joined before the first."""
    answered: int = 0
    loss: float | None = None
    """Of the last round that is finished."""
    carried: int = 0
    """Bytes of arrays in all rounds, both ways."""
    since: float = 0.0
    """When this round's tasks were sent out, in seconds since the epoch."""
    seconds: float = 0.0
    """Of the last round that is finished."""
    state: str = "waiting"

    def after(self, entry: Entry) -> "Domain":
        """Return how far the domain is after an event of its own."""
        return dataclasses.replace(self, **self._changes(entry))

    def _changes(self, entry: Entry) -> dict[str, Any]:
        match entry.event:
            case Joined():
                return {"nodes": self.nodes + 1} if self.round == 0 else {}
            case Replied():
                return {"answered": self.answered + 1}
            case Aggregated(loss=loss, sent=sent, received=received, seconds=seconds):
                carried = self.carried + sent + received
                return {"loss": loss, "carried": carried, "seconds": seconds, "state": "aggregated"}
            case Published():
                return {"state": "finished"}
            case GaveUp():
                return {"state": "gave up"}
            case _:
                return {}

    def asked(self, number: int, nodes: int, since: float) -> "Domain":
        """Return how far the domain is when a round's tasks were sent out."""
        return dataclasses.replace(self, round=number, nodes=nodes, answered=0, since=since, state="training")


class Progress:
    """Shows the entries of a journal as they come."""

    def __init__(self, *, name: Name = str, screen: Console = console) -> None:
        self.name = name
        self.screen = screen
        self.rounds = 0
        self.domains: dict[str, Domain] = {}
        self.problems: list[str] = []
        self.step = ""
        self._live = Live(get_renderable=self.table, console=screen, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        if self.screen.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def now(self, step: str) -> None:
        """Say what is being done."""
        self.step = step
        self._print(step)

    def problem(self, text: str) -> None:
        """Show something that went wrong and was got over."""
        self.problems = [*self.problems, text][-_PROBLEMS:]
        self._print(text)

    def show(self, entry: Entry) -> None:
        """Take one entry of the journal in."""
        event, text = entry.event, line(entry.event, self.name)
        if isinstance(event, Began):
            self.rounds = event.rounds
        elif isinstance(event, RoundBegan):
            for name, nodes in event.domains.items():
                self.domains[name] = self.domains.get(name, Domain()).asked(event.round, nodes, entry.time)
        elif name := getattr(event, "domain", ""):
            self.domains[name] = self.domains.get(name, Domain()).after(entry)
        if isinstance(event, Refused | Missing | GaveUp):
            self.problem(text)
        elif text:
            self._print(text)

    def table(self) -> Group:
        """Return what stands on the terminal now."""
        table = Table(box=None, pad_edge=False)
        for heading, side in zip(
            ("domain", "round", "nodes", "loss", "carried", "seconds", ""), "lrrrrrl", strict=True
        ):
            table.add_column(heading, justify="left" if side == "l" else "right")
        for name, domain in sorted(self.domains.items()):
            table.add_row(Text(name), *self._cells(domain), Text(domain.state, style="dim"))
        step = Text(f"{self.step} …", style="dim")
        problems = (Text(problem, style="yellow") for problem in self.problems)
        return Group(table if self.domains else step, *problems)

    def _cells(self, domain: Domain) -> list[str]:
        running = domain.state == "training"
        return [
            f"{domain.round}/{self.rounds}" if domain.round else "",
            f"{domain.answered}/{domain.nodes}" if running else str(domain.nodes),
            "" if domain.loss is None else f"{domain.loss:.4f}",
            decimal(domain.carried),
            f"{time.time() - domain.since if running else domain.seconds:.0f}",
        ]

    def _print(self, text: str) -> None:
        if not self.screen.is_terminal:
            self.screen.print(text, markup=False, soft_wrap=True)
