"""An adapter between the wire and the model: checked, drawn, cut to a smaller rank, put on a base and taken off.

Shapes, for a linear of d_in inputs and d_out outputs: A [r, d_in], B [d_out, r].
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from peft import set_peft_model_state_dict

from moehub.errors import FederationError
from moehub.experts import adaptation
from moehub.experts.publication import diverged
from moehub.experts.settings import TrainConfig
from moehub.federation import weights
from moehub.federation.aggregation.product import Sum
from moehub.federation.messages import Arrays
from moehub.federation.weights import A, Array, B, Weights


@contextmanager
def on(base: Any, config: TrainConfig, *, frozen_a: bool = False) -> Iterator[Any]:
    """Yield the base's model with an adapter on it; afterwards the base is as it was.

    Raises:
        ConfigError: the base has no linears of the names in `config.targets`.
    """
    model = adaptation.adapt(base, config)
    try:
        for name, parameter in model.named_parameters():
            if frozen_a and ".lora_A." in name:
                parameter.requires_grad_(requires_grad=False)
        yield model
    finally:
        base.activation_checkpointing_disable()
        base.disable_input_require_grads()
        model.unload()
        base.eval()


def shapes(model: Any, rank: int) -> dict[str, tuple[int, int]]:
    """Return tensor name → shape of an adapter of `rank` on the linears that carry the model's."""
    found = {name: tuple(tensor.shape) for name, tensor in adaptation.state(model).items()}
    return {name: (rank, inner) if name.endswith(A) else (outer, rank) for name, (outer, inner) in found.items()}


def received(
    arrays: Arrays, expected: Mapping[str, tuple[int, int]], *, frozen_a: bool, seed: int, start: str
) -> Weights:
    """Return both factors of what was sent; where A is frozen, it is drawn here and checked against `start`.

    Raises:
        FederationError: other tensors were sent than `expected`, or A is another here than at the server.
    """
    drawn: Weights = {}
    if frozen_a:
        drawn = weights.initial(expected, seed)
        if (mine := weights.digest(drawn)) != start:
            raise FederationError(
                f"the adapter that this node draws has digest {mine[:12]}, the federation began with {start[:12]}: "
                "install the same versions of moehub and numpy on both sides"
            )
    sent = {name: shape for name, shape in expected.items() if not (frozen_a and name.endswith(A))}
    for name in sorted({*sent, *arrays}):
        given = (str(arrays[name].dtype), arrays[name].shape) if name in arrays else None
        if given != ("float32", sent.get(name)):
            raise FederationError(
                f"the federation sent {name} as {given}, expected {sent.get(name, 'no such tensor')} of float32: "
                "install the same version of moehub on both sides"
            )
    return {**drawn, **arrays}


def cut(whole: Arrays, rank: int) -> Weights:
    """Return the adapter of `rank` whose products B·A are nearest to those of `whole`, as balanced factors.

    Where a product has a smaller rank, as at the beginning, the other rows of A are those of `whole` beside zeros in
    B: the product is the same, and training can use the direction.
    """
    found: Weights = {}
    for name in (name.removesuffix(A) for name in whole if name.endswith(A)):
        found[name + A], found[name + B] = _cut(whole[name + A], whole[name + B], rank)
    return found


def _cut(a: Array, b: Array, rank: int) -> tuple[Array, Array]:
    if len(a) <= rank:
        return a, b
    whole = Sum(len(b), a.shape[1], rank)
    whole.add(1.0, b, a)
    left, right, _ = whole.factors(rank)
    padded = np.zeros((len(b), rank), np.float32)
    padded[:, : left.shape[1]] = left
    return np.vstack([right, a[len(right) : rank]]), padded


def put(model: Any, values: Arrays) -> None:
    """Set the adapter of `model`."""
    set_peft_model_state_dict(model, {name: torch.tensor(array) for name, array in values.items()})


def taken(model: Any, *, frozen_a: bool) -> Weights:
    """Return what is sent of the model's adapter: B alone where A is frozen.

    Raises:
        TrainingError: it holds values that are not finite.
    """
    found = {name: tensor.detach().float().cpu().numpy() for name, tensor in adaptation.state(model).items()}
    if not all(np.isfinite(array).all() for array in found.values()):
        raise diverged("the adapter holds values that are not finite")
    return {name: array.copy() for name, array in weights.trained(found, frozen_a=frozen_a).items()}
