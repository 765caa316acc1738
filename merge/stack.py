"""Put the experts' adapters beside the base's linears: stacked, or on a shelf where their files are mapped.

Shapes: E experts, r rank: the largest at that linear, rounded up to a multiple of 8; the rest is zeros.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from moehub.errors import MergeError
from moehub.experts.adapter import Adapter
from moehub.experts.dora import Factors
from moehub.router.diagonal import Diagonal, Rows
from moehub.router.layer import MoELinear, StackedLinear, Switchboard
from moehub.router.native.layer import ShelvedLinear
from moehub.router.native.shelf import Shelf

_MULTIPLE = 8
"""`grouped_mm` wants rows that begin at multiples of 16 bytes: 8 values of 16 bits."""


def stack(base: nn.Module, adapters: Sequence[Adapter], board: Switchboard) -> dict[str, StackedLinear]:
    """Replace every linear that an adapter targets by one with stacked experts, and return those by name.

    Raises:
        MergeError: an adapter targets something that the base does not have.
        BaseModelError: a weight of the base is quantised, and a DoRA expert rescales it.
    """
    targets = _targets(base, adapters)
    factors = _factors(adapters, targets)
    rows = Rows(factors, experts=len(adapters))
    layers = {key: _stacked(linear, key, adapters, board, factors, rows) for key, linear in targets.items()}
    _replace(base, layers)
    return layers


def shelve(
    base: nn.Module, adapters: Sequence[Adapter], board: Switchboard, dtype: torch.dtype, *, limit: int | None = None
) -> tuple[dict[str, ShelvedLinear], Shelf]:
    """Replace every linear that an adapter targets by one whose experts stand on a shelf; return those by name, and it.

    Args:
        base: on the CPU.
        adapters: of the experts, in canonical order.
        board: where the layers find their route.
        dtype: the precision of the experts' arithmetic.
        limit: bytes that experts may take in memory; None: no limit.

    Raises:
        MergeError: an adapter targets something that the base does not have.
        BaseModelError: a weight of the base is quantised, and a DoRA expert rescales it.
    """
    targets = _targets(base, adapters)
    shelf = Shelf(adapters, dtype, limit=limit, factors=_factors(adapters, targets))
    layers = {key: ShelvedLinear(linear, key=key, shelf=shelf, board=board) for key, linear in targets.items()}
    _replace(base, layers)
    return layers, shelf


def _targets(base: nn.Module, adapters: Sequence[Adapter]) -> dict[str, nn.Module]:
    modules, targets = dict(base.named_modules()), {}
    for key in sorted({key for adapter in adapters for key in adapter.pairs}):
        if key not in modules:
            raise MergeError(f"the base has no linear {key!r}: it is not the base that these experts were trained on")
        targets[key] = modules[key]
    return targets


def _factors(adapters: Sequence[Adapter], targets: Mapping[str, nn.Module]) -> dict[int, Factors]:
    """Return number → d of each DoRA expert."""
    return {number: Factors(adapter, targets) for number, adapter in enumerate(adapters) if adapter.magnitudes}


def _replace(base: nn.Module, layers: Mapping[str, MoELinear]) -> None:
    for key, layer in layers.items():
        parent, _, name = key.rpartition(".")
        setattr(base.get_submodule(parent), name, layer)


def _stacked(
    linear: nn.Module,
    key: str,
    adapters: Sequence[Adapter],
    board: Switchboard,
    factors: Mapping[int, Factors],
    rows: Rows,
) -> StackedLinear:
    weight: Tensor = linear.weight  # type: ignore[assignment]
    present = [adapter.pairs[key] for adapter in adapters if key in adapter.pairs]
    rank = max(A.shape[0] for A, _ in present)
    rank += -rank % _MULTIPLE
    dtype = weight.dtype if weight.dtype.is_floating_point else present[0][0].dtype
    width = present[0][1].shape[0]
    A_stack = torch.zeros(len(adapters), rank, present[0][0].shape[1], dtype=dtype)
    B_stack = torch.zeros(len(adapters), rank, width, dtype=dtype)
    scale = torch.zeros(len(adapters))
    rescaling = [number for number, found in factors.items() if key in found]
    diagonal = Diagonal(rows, width=width, dtype=dtype) if rescaling else None
    for number, adapter in enumerate(adapters):
        if key in adapter.pairs:
            A, B = adapter.pairs[key]
            if diagonal is not None and number in rescaling:
                found = factors[number][key].cpu()
                diagonal.fill(number, found)
                B = found[:, None] * B.float()
            A_stack[number, : len(A)] = A
            B_stack[number, : len(A)] = B.T
            scale[number] = adapter.scales[key]
    layer = StackedLinear(linear, key=key, A=A_stack, B=B_stack, scale=scale, board=board, diagonal=diagonal)
    return layer.to(weight.device)


def unstack(layers: Mapping[str, StackedLinear], number: int, adapter: Adapter) -> dict[str, Tensor]:
    """Return one expert's A and B as they stand in the stacks now, under PEFT's names, in the layers' own dtype.

    Of a DoRA expert B is d ⊙ B.
    """
    tensors = {}
    for key, (A, _) in adapter.pairs.items():
        layer, rank = layers[key], len(A)
        tensors[f"base_model.model.{key}.lora_A.weight"] = layer.A[number, :rank].detach().cpu()
        tensors[f"base_model.model.{key}.lora_B.weight"] = layer.B[number, :rank].detach().T.cpu()
    return tensors
