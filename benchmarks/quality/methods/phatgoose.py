"""PHATGOOSE: gate vectors that each contributor trains alone, for each linear.

Muqeeth, Liu, Liu and Raffel 2024, "Learning to Route Among Specialized Experts for Zero-Shot Generalization",
section 3.

Training, by one contributor on its own text, expert and base frozen, 100 steps from v = 0:

    y = W x + s B A x · σ(vᵀx)        at every linear

Inference, with v̄ and x̄ standardised (mean 0, variance 1 over their d entries): α_e = v̄_eᵀ x̄ / √d, softmax over the two
largest. There is no column of nobody in the paper, and none here. Learning rate chosen among that of the authors' code
(0.005) and ten times as much, by trials of 15 steps.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from benchmarks.quality import gating, training
from benchmarks.quality.gating import K
from benchmarks.quality.method import Layered, Method
from benchmarks.quality.training import Learner
from benchmarks.quality.world import World
from moehub.console import Advance, progress
from moehub.experts.packing import Row
from moehub.router.route import Route

STEPS = 100
RATES = (5e-3, 5e-2)
_TRIAL = 15


class Vectors(nn.Module):
    """One contributor's gate vectors: [d_in] for each linear."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self._numbers = {key: number for number, key in enumerate(widths)}
        self.vectors = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in widths.values())

    def __getitem__(self, key: str) -> Tensor:
        return self.vectors[self._numbers[key]]


class Training:
    """While one contributor trains: its expert alone, as much of it as its gate lets through."""

    def __init__(self, vectors: Vectors, expert: int, experts: int) -> None:
        self.vectors, self.expert, self.experts = vectors, expert, experts

    def route(self, key: str, x: Tensor) -> Route:
        """Return σ(vᵀx) for the expert."""
        return gating.lone(self.expert, (x.float() @ self.vectors[key]).sigmoid(), self.experts)


class Scored:
    """The gate of all: each linear scores its input against every expert's vector."""

    def __init__(self, vectors: Sequence[Vectors]) -> None:
        self.vectors = vectors

    def route(self, key: str, x: Tensor) -> Route:
        """Return the two experts that score highest."""
        return gating.chosen(scores(x, torch.stack([one[key] for one in self.vectors])), K, nobody=False)


def scores(x: Tensor, vectors: Tensor) -> Tensor:
    """Return how well inputs [T, d] fit vectors [E, d], both standardised: [T, E]."""
    width = (x.shape[-1],)
    standard, gates = (nn.functional.layer_norm(each.float(), width) for each in (x, vectors))
    return standard @ gates.T / width[0] ** 0.5


def widths(world: World) -> dict[str, int]:
    """Return how wide the input of each linear is."""
    return {key: int(layer.linear.in_features) for key, layer in world.stacked.sparse_layers.items()}  # type: ignore[arg-type]


def train(
    learner: Learner, expert: int, rows: Sequence[Row], vectors: Vectors, *, rate: float, steps: int, advance: Advance
) -> None:
    """Train one contributor's vectors on its own rows, in place."""
    routing = Training(vectors, expert, len(learner.moe.names))
    stream = training.batches({"own": rows}, f"phatgoose {expert}", training.OWN_TOKENS)
    training.descend(
        vectors, lambda some: learner.loss(learner.pack(some), routing), stream, rate=rate, steps=steps, advance=advance
    )


def entrant(world: World, vectors: Sequence[Vectors]) -> Layered:
    """Return what routes by everybody's vectors."""
    scored = Scored(vectors)
    return Layered(world, lambda _: scored)


def make(world: World) -> Layered:
    """Let every contributor train alone, at the rate that was best for all in a trial."""
    learner, texts, wide = Learner(world), training.tuning(world), widths(world)
    own = {name: training.own(world, name) for name in world.names}
    total = len(own) * (len(RATES) * _TRIAL + STEPS)
    found: dict[float, float] = {}
    with progress("phatgoose", total) as advance:

        def everybody(rate: float, steps: int) -> list[Vectors]:
            everything = [Vectors(wide) for _ in own]
            for number, name in enumerate(world.names):
                train(learner, number, own[name], everything[number], rate=rate, steps=steps, advance=advance)
            return everything

        for rate in RATES:
            found[rate] = training.tune_loss(texts, entrant(world, everybody(rate, _TRIAL)))
        rate = min(found, key=lambda one: found[one])
        made = entrant(world, everybody(rate, STEPS))
    made.bytes = 4 * sum(wide.values())
    made.note = f"rate {rate:g}; {STEPS} steps each, tune loss {training.tune_loss(texts, made):.4f}"
    return made


PHATGOOSE = Method("phatgoose", "own text", True, make)
