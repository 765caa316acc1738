"""The experts' own likelihoods as evidence: whoever foretells the text best wrote it.

Of two skills over the same words, counts see little; an expert's loss sees all that it learned. The evidence of a
token is log p_e(x_t | x_<t) of each expert alone, and of the base for the null expert (weights from a posterior over
experts as in Gururangan et al. 2022, "DEMix Layers"). It costs a forward of each expert for every token, and a KV cache
of each: for few experts, or where quality is all that counts. It asks for nothing but the adapters.

Shapes: B batch, T tokens, C columns of the gate (the null expert's last).
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from moehub.errors import RouterError
from moehub.experts.statistics import Statistics
from moehub.router.method import NULL, Contributor, Tables
from moehub.router.settings import RouterSettings
from moehub.router.window import Memory, Window


class Likelihood:
    """What each expert alone makes of the text."""

    name = "likelihood"
    kind: Literal["evidence", "layer"] = "evidence"
    local = True

    def lacks(self, statistics: Statistics | None) -> str | None:  # noqa: ARG002 (part of the signature)
        """Return None: nothing is needed."""
        return None

    def solve(
        self,
        contributors: Sequence[Contributor],
        null: Statistics | None,
        settings: RouterSettings,  # noqa: ARG002 (part of the signature)
    ) -> dict[str, Tables]:
        """Return a mark for everybody that takes part."""
        names = [one.name for one in contributors] + ([] if null is None else [NULL])
        return {name: {"listens": torch.ones(1)} for name in names}

    def load(self, tables: Mapping[str, Tables], names: Sequence[str], settings: RouterSettings) -> nn.Module:  # noqa: ARG002
        """Return what asks the experts."""
        return LikelihoodEvidence(settings.likelihood_weight)


class LikelihoodEvidence(nn.Module):
    """Asks the model what each expert alone makes of the tokens."""

    numbers: ClassVar = ("likelihood_weight",)
    """Settings that it can be tuned by."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def act(self, settings: RouterSettings) -> None:
        """Weigh the evidence as other settings say."""
        self.weight = settings.likelihood_weight

    def begin(self, batch: int, device: torch.device) -> Memory:  # noqa: ARG002 (part of the signature)
        """Return the memory before the first token: nothing."""
        return ()

    def forward(self, window: Window, memory: Memory) -> tuple[Tensor, Memory]:
        """Return the tempered log evidence of each token, float32 [B, T, C], and the memory after the last.

        Raises:
            RouterError: there is no model to ask.
        """
        if window.alone is None:
            raise RouterError("the router 'likelihood' asks the experts of a whole MoE: load the MoE to use it")
        nats, after = window.alone(window.ids, window.mask, memory)
        return self.weight * nats, after
