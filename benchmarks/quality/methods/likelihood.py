"""The experts' own likelihoods: the ones best able to say whose text it is, at a forward of each for every token.

`own likelihood` takes log p_e(x_t | x_<t) of each expert alone, and of the base, as the evidence of the posterior over
owners (mixtures of experts weighed by their posterior: Gururangan et al. 2022, "DEMix Layers"; Li et al.
2022, "Branch-Train-Merge"), filtered so that owners may change. `own likelihood + evidence` multiplies
that of moehub 0.1's counts to it. `token oracle` is a bound, no method: for each token the best of the experts alone
and the base, after the fact; each has read all before it in one expert's colour, so a gate may do better in places.

Shapes: B batch, T tokens, E experts.
"""

from dataclasses import dataclass

from torch import Tensor

from benchmarks.quality.alone import Alone
from benchmarks.quality.method import Answer, Batch, Method, Routed
from benchmarks.quality.methods.counts import Counts
from benchmarks.quality.methods.product import Gate, published, size
from benchmarks.quality.rows import Held
from benchmarks.quality.sticky import Sticky
from benchmarks.quality.tuning import Objective, Setting, choose, grid
from benchmarks.quality.world import World
from moehub.card import STATISTICS_FILE
from moehub.experts.packing import IGNORED
from moehub.experts.statistics import Statistics
from moehub.router.gate import gate_of
from moehub.router.settings import RouterSettings

_RHOS = (0.01, 0.03)


def likelihood(world: World) -> Routed:
    """Return the posterior of the experts' own likelihoods."""
    alone = Alone(world)
    return choose(
        Objective.of(world),
        grid(kappa=(0.2, 0.4, 0.7, 1.0), rho=_RHOS),
        lambda setting: Routed(world, Sticky(alone.evidence, **setting)),
    )


def with_counts(world: World) -> Routed:
    """Return the posterior of likelihoods and counts."""
    alone, counts = Alone(world), Counts.of(world)

    def make(setting: Setting) -> Routed:
        def evidence(batch: Batch) -> Tensor:
            return setting["likelihood"] * alone.evidence(batch) + setting["counts"] * counts(batch)

        return Routed(world, Sticky(evidence, 1.0, setting["rho"]), counts.bytes)

    return choose(Objective.of(world), grid(likelihood=(0.3, 0.6), counts=(0.15, 0.3), rho=_RHOS), make)


def with_product(world: World) -> Routed:
    """Return the product's gate with the likelihoods as one more factor."""
    alone = Alone(world)
    counted, null = published(world), Statistics.load(world.null() / STATISTICS_FILE)

    def make(setting: Setting) -> Routed:
        settings = RouterSettings(method="evidence+likelihood", **setting)
        return Routed(world, Gate(gate_of(counted, null, settings), alone.evidence), size(world))

    return choose(Objective.of(world), grid(likelihood_weight=(0.2, 0.4, 0.6)), make)


@dataclass
class Best:
    """Each token's best, after the fact."""

    alone: Alone
    bytes: int = 0
    note: str = ""

    def answer(self, held: Held) -> Answer:
        """Return the least loss of each learned token."""
        rows = zip(held.rows, self.alone.nats(held), strict=True)
        return Answer(tuple(nats[row.labels != IGNORED].amin(-1).double() for row, nats in rows))


METHODS = (
    Method("own likelihood", "nothing", True, likelihood),
    Method("own likelihood + evidence 0.1", "statistics", True, with_counts),
    Method("own likelihood + evidence", "statistics", True, with_product),
    Method("token oracle", "the text itself", True, lambda world: Best(Alone(world))),
)
