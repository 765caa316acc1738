"""Documents of random tokens."""

from collections.abc import Sequence

import torch

from moehub.experts.tokens import Tokens
from tests.builders import VOCABULARY


def make_documents(lengths: Sequence[int], *, seed: int = 0) -> list[Tokens]:
    """Return documents of which seven tokens in ten are learned."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Tokens(
            torch.randint(2, VOCABULARY, (length,), generator=generator),
            torch.rand(length, generator=generator) < 0.7,
            divisible=True,
            closed=True,
            origin="a text",
        )
        for length in lengths
    ]
