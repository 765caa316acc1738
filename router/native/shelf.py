"""All experts of a MoE on a CPU, each where its own file is mapped: nothing is stacked, padded or read before its time.

An expert is *brought* when a token is first routed to it, and with a limit the one that was routed to the longest
ago is put back. What is mapped in the base's own precision is used where it lies; an expert of another precision is
converted when it is brought, and so is a DoRA expert, whose B becomes d ⊙ B in memory (`moehub.experts.dora`).

Shapes: L linears, E experts.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from moehub.errors import RouterError
from moehub.experts.adapter import Adapter, MappedPairs
from moehub.experts.dora import Factors
from moehub.router.diagonal import Diagonal, Rows
from moehub.router.native.library import Groups, Linear
from moehub.router.route import Route

_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16"}


class Volume(Protocol):
    """One expert's adapter."""

    size: int
    """Bytes that it takes in memory."""

    def bring(self) -> None:
        """Have it in memory."""

    def put_back(self) -> None:
        """Give its memory back."""

    def addresses(self) -> Mapping[str, tuple[int, int]]:
        """Return where A and B of each linear lie, once it is in memory."""

    def pair(self, linear: str) -> tuple[Tensor, Tensor]:
        """Return A [r, d_in] and B [d_out, r] of a linear, once it is in memory."""


class MappedVolume:
    """An adapter whose file is in the right precision: it is used where it lies."""

    def __init__(self, pairs: MappedPairs) -> None:
        self._pairs = pairs
        self.size = len(pairs.file)

    def bring(self) -> None:
        """Read the file now, in one go, instead of page by page."""
        self._pairs.file.bring()

    def put_back(self) -> None:
        """Forget the pages; the addresses stay good, and reading there reads the file again."""
        self._pairs.file.release()

    def addresses(self) -> Mapping[str, tuple[int, int]]:
        """Return the places in the map."""
        begin = self._pairs.file.address
        return {
            linear: (begin + down.begin, begin + up.begin)
            for linear in self._pairs
            for down, up in (self._pairs.spans(linear),)
        }

    def pair(self, linear: str) -> tuple[Tensor, Tensor]:
        """Return views of the map."""
        return self._pairs[linear]


class ConvertedVolume:
    """An adapter of another precision, a DoRA, or one that is no file: a copy is made when it is brought."""

    def __init__(
        self, pairs: Mapping[str, tuple[Tensor, Tensor]], dtype: torch.dtype, factors: Factors | None = None
    ) -> None:
        self._pairs, self._dtype, self._factors = pairs, dtype, factors
        self._held: dict[str, tuple[Tensor, Tensor]] = {}
        self.size = dtype.itemsize * _elements(pairs)

    def bring(self) -> None:
        """Convert every matrix; those that are right already are used as they are."""
        self._held = {
            linear: (A.to(self._dtype).contiguous(), self._up(linear, B)) for linear, (A, B) in self._pairs.items()
        }
        self._release()

    def put_back(self) -> None:
        """Forget the copies."""
        self._held = {}
        self._release()

    def _up(self, linear: str, B: Tensor) -> Tensor:
        up = B if self._factors is None else self._factors[linear][:, None] * B.float()
        return up.to(self._dtype).contiguous()

    def _release(self) -> None:
        if isinstance(self._pairs, MappedPairs):
            self._pairs.file.release()

    def addresses(self) -> Mapping[str, tuple[int, int]]:
        """Return the places of the copies."""
        return {linear: (A.data_ptr(), B.data_ptr()) for linear, (A, B) in self._held.items()}

    def pair(self, linear: str) -> tuple[Tensor, Tensor]:
        """Return the copies."""
        return self._held[linear]


@dataclass(frozen=True)
class Usage:
    """What a shelf holds and did."""

    resident: int
    """Bytes of the experts that are in memory."""
    brought: int
    """How often an expert was brought."""


class Shelf:
    """The experts of one MoE, for reading."""

    def __init__(
        self,
        adapters: Sequence[Adapter],
        dtype: torch.dtype,
        *,
        limit: int | None = None,
        factors: Mapping[int, Factors] | None = None,
    ) -> None:
        """Put the experts on the shelf, in their canonical order.

        Args:
            adapters: of each expert.
            dtype: the precision that the kernel multiplies in.
            limit: bytes that experts may take in memory; those of one forward always may. None: no limit.
            factors: number of each DoRA expert → its d, computed when it is first brought.

        Raises:
            RouterError: two experts see a linear of different widths.
        """
        self.dtype, self.limit = dtype, limit
        self.factors = factors or {}
        self.volumes = [_volume(adapter, dtype, self.factors.get(n)) for n, adapter in enumerate(adapters)]
        self.adapters = adapters
        self._present: OrderedDict[int, None] = OrderedDict()
        self._resident = self._brought = 0
        self._groups: WeakKeyDictionary[Route, Groups] = WeakKeyDictionary()
        self._last: tuple[Route, Groups] | tuple[None, None] = None, None
        self._shapes = _common_shapes(adapters)
        self._numbers = {linear: number for number, linear in enumerate(self._shapes)}
        lines, experts = len(self._shapes), len(adapters)
        self._down, self._up = np.zeros((lines, experts), np.uintp), np.zeros((lines, experts), np.uintp)
        self._rank, self._scale = np.zeros((lines, experts), np.int64), np.zeros((lines, experts), np.float32)
        for expert, adapter in enumerate(adapters):
            for linear in adapter.pairs:
                number = self._numbers[linear]
                self._rank[number, expert] = _shapes(adapter, linear)[0][0]
                self._scale[number, expert] = adapter.scales[linear]
        rows = Rows(self.factors, experts=experts)
        self.diagonals = {
            linear: Diagonal(rows, width=self._shapes[linear][0], dtype=dtype)
            for linear in sorted({linear for found in self.factors.values() for linear in found})
        }
        """Linear → what DoRA experts make of its own output; of those that were brought."""

    @property
    def usage(self) -> Usage:
        """What the shelf holds now, and how often it brought an expert."""
        return Usage(self._resident, self._brought)

    def record(self, linear: str) -> Linear:
        """Return what the kernel is told of a linear."""
        number, (d_out, d_in) = self._numbers[linear], self._shapes[linear]
        rows = (table[number].ctypes.data for table in (self._down, self._up, self._rank, self._scale))
        down, up, rank, scale = rows
        return Linear(d_in, d_out, down, up, rank, scale)

    def pair(self, expert: int, linear: str) -> tuple[Tensor, Tensor] | None:
        """Return A [r, d_in] and B [d_out, r] of an expert, or None where it has none at that linear."""
        self._bring([expert])
        return self.volumes[expert].pair(linear) if linear in self.adapters[expert].pairs else None

    def rescales(self, groups: Groups) -> bool:
        """Return whether a DoRA expert is among those of a route."""
        return not self.factors.keys().isdisjoint(groups.experts)

    def ready(self, route: Route) -> Groups:
        """Return the route's pairs by expert, with those experts in memory."""
        if route is self._last[0]:  # all linears of a forward but the first
            return self._last[1]
        groups = self._groups.get(route)
        if groups is None:
            groups = self._groups[route] = Groups(route)
        self._bring(groups.experts)
        self._last = route, groups
        return groups

    def _bring(self, experts: Sequence[int]) -> None:
        for expert in experts:
            if expert in self._present:
                self._present.move_to_end(expert)
                continue
            volume = self.volumes[expert]
            volume.bring()
            for linear, place in volume.addresses().items():
                number = self._numbers[linear]
                self._down[number, expert], self._up[number, expert] = place
            for linear, found in self.factors.get(expert, {}).items():
                self.diagonals[linear].fill(expert, found)
            self._present[expert] = None
            self._resident += volume.size
            self._brought += 1
        if self.limit is not None:
            self._make_room(set(experts), self.limit)

    def _make_room(self, needed: set[int], limit: int) -> None:
        for expert in list(self._present):
            if self._resident <= limit:
                return
            if expert not in needed:
                self.volumes[expert].put_back()
                del self._present[expert]
                self._resident -= self.volumes[expert].size
                self._last = None, None


def _volume(adapter: Adapter, dtype: torch.dtype, factors: Factors | None) -> Volume:
    pairs = adapter.pairs
    if isinstance(pairs, MappedPairs) and factors is None:
        kinds = {span.dtype for linear in pairs for span in pairs.spans(linear)}
        if kinds == {_NAMES[dtype]}:
            return MappedVolume(pairs)
    return ConvertedVolume(pairs, dtype, factors)


def _elements(pairs: Mapping[str, tuple[Tensor, Tensor]]) -> int:
    both = (pairs.spans(linear) if isinstance(pairs, MappedPairs) else pairs[linear] for linear in pairs)
    return sum(one.shape[0] * one.shape[1] for pair in both for one in pair)


def _shapes(adapter: Adapter, linear: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of A and B; where they are in a mapped file, without a look at them."""
    pairs = adapter.pairs
    down, up = pairs.spans(linear) if isinstance(pairs, MappedPairs) else pairs[linear]
    return tuple(down.shape), tuple(up.shape)


def _common_shapes(adapters: Sequence[Adapter]) -> dict[str, tuple[int, int]]:
    """Return (d_out, d_in) of each linear; the kernel trusts it."""
    common: dict[str, tuple[int, int]] = {}
    for adapter in adapters:
        for linear in adapter.pairs:
            (rank, d_in), (d_out, again) = _shapes(adapter, linear)
            if common.setdefault(linear, (d_out, d_in)) != (d_out, d_in) or rank != again:
                raise RouterError(
                    f"two experts see the linear {linear!r} as {common[linear]} and {(d_out, d_in)} (outputs, inputs): "
                    "they were trained on different bases; merge those of one"
                )
    return dict(sorted(common.items()))
