"""Stack the experts' adapters and put them beside the base's linears.

Shapes: E experts, r rank: the largest at that linear, rounded up to a multiple of 8; the rest is zeros.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from moehub.errors import MergeError
from moehub.experts.adapter import Adapter
from moehub.router.layer import MoELinear, Switchboard

_MULTIPLE = 8
"""`grouped_mm` wants rows that begin at multiples of 16 bytes: 8 values of 16 bits."""


def attach(base: nn.Module, adapters: Sequence[Adapter], board: Switchboard) -> dict[str, MoELinear]:
    """Replace every linear that an adapter targets by a sparse layer, and return those by name.

    Raises:
        MergeError: an adapter targets something that the base does not have.
    """
    modules = dict(base.named_modules())
    layers = {}
    for key in sorted({key for adapter in adapters for key in adapter.pairs}):
        linear = modules.get(key)
        if linear is None:
            raise MergeError(f"the base has no linear {key!r}: it is not the base that these experts were trained on")
        layer = _layer(linear, key, adapters, board)
        parent, _, name = key.rpartition(".")
        setattr(modules[parent], name, layer)
        layers[key] = layer
    return layers


def _layer(linear: nn.Module, key: str, adapters: Sequence[Adapter], board: Switchboard) -> MoELinear:
    weight: Tensor = linear.weight  # type: ignore[assignment]
    present = [adapter.pairs[key] for adapter in adapters if key in adapter.pairs]
    rank = max(A.shape[0] for A, _ in present)
    rank += -rank % _MULTIPLE
    dtype = weight.dtype if weight.dtype.is_floating_point else present[0][0].dtype
    A_stack = torch.zeros(len(adapters), rank, present[0][0].shape[1], dtype=dtype)
    B_stack = torch.zeros(len(adapters), rank, present[0][1].shape[0], dtype=dtype)
    scale = torch.zeros(len(adapters))
    for number, adapter in enumerate(adapters):
        if key in adapter.pairs:
            A, B = adapter.pairs[key]
            A_stack[number, : len(A)] = A
            B_stack[number, : len(A)] = B.T
            scale[number] = adapter.scales[key]
    return MoELinear(linear, key=key, A=A_stack, B=B_stack, scale=scale, board=board).to(weight.device)


def unstack(layers: Mapping[str, MoELinear], number: int, adapter: Adapter) -> dict[str, Tensor]:
    """Return one expert's tensors as they stand in the stacks now, under PEFT's names, in the layers' own dtype."""
    tensors = {}
    for key, (A, _) in adapter.pairs.items():
        layer, rank = layers[key], len(A)
        tensors[f"base_model.model.{key}.lora_A.weight"] = layer.A[number, :rank].detach().cpu()
        tensors[f"base_model.model.{key}.lora_B.weight"] = layer.B[number, :rank].detach().T.cpu()
    return tensors
