"""A MoE without one of its experts, in memory: the gate that `moehub merge --remove` would leave, before all experts.

The gate has no column for the expert that is left out, so its tokens go where they would go if it had never come. The
layers still hold every expert; they are told of the others by the numbers that those have there.

Shapes: T tokens, K experts per token, E experts that the layers hold, F experts that the gate knows.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from moehub.errors import MergeError
from moehub.merge.assemble import kept_tables, make_tables
from moehub.merge.load import read_moe_config
from moehub.merge.merging import prepare_change
from moehub.merge.tuned import TUNED_KEY
from moehub.router.arrow import ArrowGate
from moehub.router.gate import PosteriorGate, load_gate
from moehub.router.layer import Routing
from moehub.router.route import Route


class Renumbered:
    """What a gate of some experts tells layers that hold more of them."""

    def __init__(self, inner: Routing, numbers: Sequence[int], *, experts: int) -> None:
        """Keep the inner routing.

        Args:
            inner: decides among F experts.
            numbers: of those experts in the layers, ascending, [F].
            experts: E.
        """
        self.inner, self.numbers, self.experts = inner, torch.tensor(numbers), experts
        self._last: tuple[Route, Route] | None = None

    def route(self, key: str, x: Tensor) -> Route:
        """Return the inner routing's decision [T, K] in the layers' numbers; the same object for the same decision."""
        if isinstance(self.inner, ArrowGate) and key not in self.inner.keys:
            # None of those that remain changes this linear: the MoE without the expert would not even have it.
            return Route.fixed(None, tokens=len(x), experts=self.experts, device=x.device)
        few = self.inner.route(key, x)
        if self._last is None or few is not self._last[0]:
            numbers: Tensor = self.numbers.to(few.indices.device)
            self._last = few, Route(numbers[few.indices], few.weights, self.experts)
        return self._last[1]


def gate_without(moe: Path, name: str, *, others: Sequence[str]) -> PosteriorGate | ArrowGate:
    """Return the gate of the MoE in a folder without one of its experts, made the way that removing it makes it.

    What was tuned is left out of it.

    Args:
        moe: the folder.
        name: the expert to leave out.
        others: those that remain, at least one, in canonical order.

    Raises:
        MergeError: the folder's MoE is gone or another one by now.
    """
    tuned = TUNED_KEY in read_moe_config(moe).router
    with prepare_change(moe, remove=(name,), untuned=tuned) as change:
        plan = change.plan
        if [source.expert.name for source in plan.sources] != list(others):
            raise MergeError(f"{moe} was changed since it was loaded: load it again")
        tables = make_tables(plan, kept=kept_tables(moe), fresh=change.fresh)
        return load_gate(tables, plan.settings, names=others, has_null=plan.null is not None)
