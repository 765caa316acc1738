"""What an export will be, before anything is written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from moehub.merge.load import Parts

Relation = Literal["merge", "finetune", "adapter"]
"""How the hub's cards call what a model is to its base."""


@dataclass(frozen=True)
class Twin:
    """A model that was exported, and which MoE it should equal."""

    name: str
    forced: str | None
    """The expert that the MoE is sent to, or None: its own gate decides."""
    load: Callable[[Path], Any]
    """Given the exported folder, returns the model in float32."""


def _nothing(_: Path) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Planned:
    """What will be written."""

    kind: str
    """One line for a person."""
    experts: tuple[str, ...]
    """Names of those whose weights are in it."""
    size: int
    """Bytes of the weights, as far as they are known before."""
    files: tuple[str, ...]
    """The names that will be there."""
    lost: tuple[str, ...]
    """One sentence for each thing that the format cannot carry."""
    notes: tuple[str, ...]
    """What else a person should know."""
    write: Callable[[Path], tuple[str, ...]]
    """Writes everything but the card into an empty folder; returns what there is to say about it."""
    twins: tuple[Twin, ...]
    library: str = "transformers"
    relation: Relation = "merge"
    tags: tuple[str, ...] = ()
    finish: Callable[[Path], tuple[str, ...]] = _nothing
    """Called when everything was compared; returns what there is to say about it."""


class Target(Protocol):
    """A format with its settings."""

    @property
    def name(self) -> str:
        """What `--format` calls it."""

    def plan(self, parts: Parts) -> Planned:
        """Return what will be written.

        Raises:
            MoehubError: the MoE cannot be exported that way.
        """
