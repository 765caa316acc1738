"""What every expert alone, and the base, make of a text: one forward each, kept on disk for all who want it.

Shapes: B batch, T tokens of a row, E experts.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from benchmarks.quality.method import Batch, batches
from benchmarks.quality.rows import Held
from benchmarks.quality.world import World
from moehub import files
from moehub.router.gate import Shared
from moehub.router.route import Route


@dataclass
class Alone:
    """Losses of the tokens of any text of one world."""

    world: World
    _known: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)

    def nats(self, held: Held) -> tuple[Tensor, ...]:
        """Return -log p of each token given those before it, for each row: float32 [T, E + 1], the base's last.

        The first token, which nobody predicts, has zeros.
        """
        name = _name(held)
        if name not in self._known:
            self._known[name] = self._kept(held, name)
        return self._known[name]

    def evidence(self, batch: Batch) -> Tensor:
        """Return the log likelihood of each token under each expert alone and, last, the base: [B, T, E + 1]."""
        rows = self.nats(batch.held)
        found = torch.zeros(*batch.ids.shape, len(self.world.names) + 1)
        for place, number in enumerate(batch.numbers):
            found[place, : len(rows[number])] = -rows[number]
        return found

    def _kept(self, held: Held, name: str) -> tuple[Tensor, ...]:
        path = folder(self.world) / f"{name}.safetensors"
        if not path.is_file():
            with files.new_file(path) as temporary:
                save_file({str(number): row for number, row in enumerate(_measured(self.world, held))}, temporary)
        rows = load_file(path)
        return tuple(rows[str(number)] for number in range(len(rows)))


def folder(world: World) -> Path:
    """Return where the losses of one seed are kept."""
    return world.folder / f"seed-{world.seed}" / "alone"


def _name(held: Held) -> str:
    """Return a name for a text that no other text has, whatever it is called."""
    digest = hashlib.sha256()
    for row in held.rows:
        digest.update(len(row.ids).to_bytes(8, "little") + row.ids.numpy().tobytes())
    return f"{held.name}-{digest.hexdigest()[:16]}"


@torch.no_grad()
def _measured(world: World, held: Held) -> list[Tensor]:
    experts = len(world.names)
    found = [torch.zeros(len(row.ids), experts + 1) for row in held.rows]
    for batch in batches(held):
        for column in range(experts + 1):
            nats = _losses(world, batch.ids, column if column < experts else None)
            for place, number in enumerate(batch.numbers):
                found[number][1:, column] = nats[place, : len(found[number]) - 1]
    return found


def _losses(world: World, ids: Tensor, expert: int | None) -> Tensor:
    """Return -log p of every token but the first, float32 [B, T - 1]."""
    route = Route.fixed(expert, tokens=ids.numel(), experts=len(world.names), device=ids.device)
    logits = world.forward(ids, Shared(route))[:, :-1]
    return functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(
        len(ids), -1
    )
