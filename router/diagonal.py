"""What DoRA experts make of a linear's own output, beside the low-rank part: y ← y + Σ_e g_e·(d_e − 1) ⊙ (y − bias).

A linear that no DoRA expert changes has no `Diagonal`, and pays nothing. The sum over a token's experts is one gather
from a table of d − 1, whose first row is zero for all other experts, so its work does not grow with their number.

Shapes: T tokens, K experts per token, E experts, F of them DoRA.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from moehub.router.route import Route

_TOGETHER = 256
"""Tokens that are worked off at once where y is changed: what is made of more would go back to the system each time."""


class Rows:
    """Which row of the tables is whose: one object for all linears, which asks a route once."""

    def __init__(self, numbers: Iterable[int], *, experts: int) -> None:
        """Give each DoRA expert a row.

        Args:
            numbers: of the DoRA experts, ascending, [F].
            experts: E.
        """
        self.of_expert = {number: row for row, number in enumerate(numbers, 1)}
        table = [self.of_expert.get(number, 0) for number in range(experts)]
        self._table = torch.tensor(table, dtype=torch.int64)
        self._last: tuple[Route, Tensor] | None = None

    def of_route(self, route: Route) -> Tensor:
        """Return the row of each pair, int64 [T, K]."""
        if self._last is None or self._last[0] is not route:
            self._table = self._table.to(route.indices.device)
            self._last = route, self._table[route.indices]
        return self._last[1]


class Diagonal(nn.Module):
    """One linear's table of d − 1."""

    def __init__(self, rows: Rows, *, width: int, dtype: torch.dtype) -> None:
        """Make a table of zeros: an expert rescales nothing before it is filled in.

        Args:
            rows: shared by all linears.
            width: d_out.
            dtype: of the layer's arithmetic.
        """
        super().__init__()
        self.rows = rows
        self.register_buffer("table", torch.zeros(len(rows.of_expert) + 1, width, dtype=dtype), persistent=False)
        self.table: Tensor

    def fill(self, expert: int, factors: Tensor) -> None:
        """Put in d [d_out] of the expert of this number."""
        # Through `data`: a backward pass that is still to come has not read this row, and need not be told.
        self.table.data[self.rows.of_expert[expert]] = (factors - 1).to(self.table.device, self.table.dtype)

    def forward(self, y: Tensor, bias: Tensor | None, route: Route) -> Tensor:
        """Return the linear's own output with what DoRA experts make of it; without gradients, y itself is changed.

        Args:
            y: [T, d_out], before anything else was added.
            bias: the part of it that stays as it is, [d_out].
            route: experts and weights of each token.
        """
        weights, rows = route.weights.to(self.table.dtype), self.rows.of_route(route)
        bias = None if bias is None else bias.to(y.dtype)
        if torch.is_grad_enabled():
            return torch.addcmul(y, y if bias is None else y - bias, self._more(rows, weights, y.dtype))
        for begin in range(0, len(y), _TOGETHER):
            some = slice(begin, begin + _TOGETHER)
            part = y[some]
            part.addcmul_(part if bias is None else part - bias, self._more(rows[some], weights[some], y.dtype))
        return y

    def _more(self, rows: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Return Σ_e g_e·(d_e − 1) of each token, [T, d_out]."""
        return nn.functional.embedding_bag(rows, self.table, per_sample_weights=weights, mode="sum").to(dtype)
