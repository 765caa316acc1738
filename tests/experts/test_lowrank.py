from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.tuners import lora
from torch import Tensor, nn

from moehub.experts.lowrank import LowRankLinear


def _layer(kind: type[lora.Linear], *, dtype: torch.dtype = torch.float32, bias: bool = False, **options: Any) -> Any:
    """Return a layer of 7 → 11 with an adapter of rank 3 that changes something, its weights in float32."""
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=6, **options)
    layer = kind(nn.Linear(7, 11, bias=bias).to(dtype).requires_grad_(requires_grad=False), "default", config, r=3)
    layer.scaling["default"] = 2.0
    nn.init.normal_(layer.lora_B["default"].weight)
    for each in (layer.lora_A, layer.lora_B):
        each["default"].weight.data = each["default"].weight.data.float()
    return layer


def _gradients(layer: Any, x: Tensor) -> tuple[Tensor, ...]:
    """Return the output, and the gradients of its squares by x, A and B."""
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    result = layer(x)
    result.float().square().sum().backward()
    assert x.grad is not None
    return result, x.grad, layer.lora_A["default"].weight.grad, layer.lora_B["default"].weight.grad


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 5, 7)])
@pytest.mark.parametrize("options", [{}, {"bias": True}, {"lora_dropout": 0.3}])
def test_training_in_float32_is_pefts(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    """Output and all gradients are PEFT's, whatever the shape, with a bias and with dropout."""
    bias = options.get("bias", False)
    rest = {name: value for name, value in options.items() if name != "bias"}
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    ours, theirs = (_gradients(_layer(kind, bias=bias, **rest), x) for kind in (LowRankLinear, lora.Linear))
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected)


def test_bfloat16_is_as_near_to_the_truth_as_bfloat16_is() -> None:
    """Beside a bfloat16 base, what comes out is bfloat16, the weights' gradients float32, both near float32's."""
    x = torch.randn(64, 7, generator=torch.Generator().manual_seed(2)).bfloat16()
    ours = _gradients(_layer(LowRankLinear, dtype=torch.bfloat16), x)
    exact = _layer(lora.Linear, dtype=torch.bfloat16)
    exact.base_layer.float()
    expected = _gradients(exact, x.float())
    assert [each.dtype for each in ours] == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
    for mine, reference in zip(ours, expected, strict=True):
        assert float((mine.detach().float() - reference.detach()).norm() / reference.detach().norm()) < 0.01


def test_frozen_weights_get_no_gradient() -> None:
    """Where A is frozen, as in a federation, only B learns; an input that needs none gets none."""
    layer = _layer(LowRankLinear)
    layer.lora_A["default"].weight.requires_grad_(requires_grad=False)
    layer(torch.ones(2, 7)).sum().backward()
    assert layer.lora_A["default"].weight.grad is None
    assert layer.lora_B["default"].weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outside_of_training_it_is_pefts_layer(dtype: torch.dtype) -> None:
    """Measured, disabled and merged, it gives PEFT's numbers to the bit."""
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(2)).to(dtype)
    ours, theirs = (_layer(kind, dtype=dtype).eval() for kind in (LowRankLinear, lora.Linear))
    assert torch.equal(ours(x), theirs(x))
    for layer in (ours, theirs):
        layer.train().enable_adapters(enabled=False)
    assert torch.equal(ours(x), theirs(x))
    for layer in (ours, theirs):
        layer.enable_adapters(enabled=True)
        layer.merge()
    assert torch.equal(ours(x), theirs(x))
