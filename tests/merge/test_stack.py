from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from moehub.errors import MergeError
from moehub.experts.adapter import Adapter
from moehub.experts.linears import shape_of
from moehub.merge.stack import stack, unstack
from moehub.router.backends.loop import loop
from moehub.router.layer import StackedLinear, Switchboard


def base(dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a model of three linears of different shapes, one of them transposed and one nested."""
    torch.manual_seed(0)
    parts = {"first": nn.Linear(6, 10), "inner": nn.Sequential(nn.Linear(10, 4, bias=False)), "last": Conv1D(5, 4)}
    return nn.ModuleDict(parts).to(dtype)


SHAPES = {name: shape for name, module in base().named_modules() if (shape := shape_of(module)) is not None}


@st.composite
def adapters(draw: st.DrawFn) -> list[Adapter]:
    """Draw one to four experts, each with some of the linears, at ranks and scales of its own."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        generator = torch.Generator().manual_seed(number)
        keys = draw(st.lists(st.sampled_from(sorted(SHAPES)), min_size=1, unique=True))
        pairs = {}
        for key in keys:
            (out, into), rank = SHAPES[key], draw(st.integers(1, 19))
            pairs[key] = (
                torch.randn(rank, into, generator=generator),
                torch.randn(out, rank, generator=generator),
            )
        found.append(Adapter(pairs, {key: draw(st.floats(0.1, 4)) for key in keys}))
    return found


@settings(deadline=None)
@given(given_adapters=adapters())
def test_unstacking_is_the_inverse_of_attaching(given_adapters: list[Adapter]) -> None:
    """Each expert's matrices come out of the stacks as they went in, whatever the others' ranks and targets."""
    layers = stack(base(), given_adapters, Switchboard(loop))
    for number, adapter in enumerate(given_adapters):
        tensors = unstack(layers, number, adapter)
        assert len(tensors) == 2 * len(adapter.pairs)
        for key, (A, B) in adapter.pairs.items():
            assert torch.equal(tensors[f"base_model.model.{key}.lora_A.weight"], A)
            assert torch.equal(tensors[f"base_model.model.{key}.lora_B.weight"], B)


@settings(deadline=None)
@given(given_adapters=adapters())
def test_stacks_hold_every_update_and_nothing_else(given_adapters: list[Adapter]) -> None:
    """s·B·A of each slot is the expert's own update, zero where it has none; ranks are padded to multiples of 8."""
    model = base()
    layers = stack(model, given_adapters, Switchboard(loop))
    assert layers.keys() == {key for adapter in given_adapters for key in adapter.pairs}
    for key, layer in layers.items():
        assert model.get_submodule(key) is layer
        assert layer.A.shape[1] % 8 == 0
        for number, adapter in enumerate(given_adapters):
            update = layer.scale[number] * layer.B[number].T @ layer.A[number]
            expected = torch.zeros(SHAPES[key])
            if key in adapter.pairs:
                A, B = adapter.pairs[key]
                expected = adapter.scales[key] * B @ A
            torch.testing.assert_close(update, expected, atol=1e-4, rtol=1e-4)


def test_linears_that_nobody_targets_stay_themselves() -> None:
    """Only the targeted linears are replaced; the base's own weights are the same objects inside."""
    model = base()
    weight, untouched = model.get_submodule("first").weight, model.get_submodule("last")
    stack(model, [adapter("first")], Switchboard(loop))
    replaced = model.get_submodule("first")
    assert isinstance(replaced, StackedLinear)
    assert replaced.weight is weight
    assert model.get_submodule("last") is untouched


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_stacks_have_the_bases_precision(dtype: torch.dtype) -> None:
    """Experts are loaded in the precision of the linear they stand beside; their scales stay in float32."""
    layer = stack(base(dtype), [adapter("first")], Switchboard(loop))["first"]
    assert (layer.A.dtype, layer.B.dtype, layer.scale.dtype) == (dtype, dtype, torch.float32)


def test_a_quantised_base_keeps_its_experts_in_their_own_precision() -> None:
    """Where the base's weight is no floating point number, the adapters stay as they were published."""
    model: Any = base()
    model["first"].weight = nn.Parameter(model["first"].weight.to(torch.int8), requires_grad=False)
    assert stack(model, [adapter("first")], Switchboard(loop))["first"].A.dtype == torch.float32


def test_a_target_that_the_base_lacks_is_refused() -> None:
    """An adapter of another base is named by its first unknown linear."""
    A, B = torch.zeros(2, 6), torch.zeros(10, 2)
    with pytest.raises(MergeError, match=r"the base has no linear 'model\.q_proj'"):
        stack(base(), [Adapter({"model.q_proj": (A, B)}, {"model.q_proj": 1.0})], Switchboard(loop))


def adapter(key: str) -> Adapter:
    out, into = SHAPES[key]
    return Adapter({key: (torch.randn(3, into), torch.randn(out, 3))}, {key: 2.0})
