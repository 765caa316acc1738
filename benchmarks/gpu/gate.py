"""A gate whose tables are made from random counts, so that every expert gets tokens."""

import torch

from moehub.experts.statistics import Statistics
from moehub.router.gate import PosteriorGate
from moehub.router.method import NULL, Contributor, parse
from moehub.router.settings import RouterSettings

VOCABULARY, PAIR_BITS = 8192, 16


def gate(experts: int) -> PosteriorGate:
    """Return an `evidence` gate over that many experts and a null, its tables made from random counts."""
    generator = torch.Generator().manual_seed(3)

    def counted() -> Statistics:
        unigrams = torch.randint(0, 50, (VOCABULARY,), generator=generator)
        return Statistics("t", unigrams, torch.randint(0, 10, (1 << PAIR_BITS,), generator=generator))

    settings = RouterSettings()
    (method,) = parse("evidence")
    names = [f"{number:03d}" for number in range(experts)]
    tables = method.solve([Contributor(name, counted(), dict) for name in names], counted(), settings)
    return PosteriorGate([method.load(tables, [*names, NULL], settings)], settings, experts=experts, has_null=True)
