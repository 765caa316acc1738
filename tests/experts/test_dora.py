from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from moehub.errors import BaseModelError, ExpertError
from moehub.experts import dora
from moehub.experts.adapter import Adapter
from moehub.experts.dora import Factors

OUT, IN = 10, 6


def adapter(*, width: int = IN) -> Adapter:
    """Return a DoRA of one linear."""
    draw = torch.Generator().manual_seed(1)
    pair = torch.randn(2, width, generator=draw), torch.randn(OUT, 2, generator=draw)
    return Adapter({"first": pair}, {"first": 0.5}, {"first": torch.rand(OUT, generator=draw) + 0.5})


def plain(weight: Tensor, given: Adapter) -> Tensor:
    """Return d by the formula, in float64, from W [d_out, d_in]."""
    A, B = (one.double() for one in given.pairs["first"])
    return given.magnitudes["first"].double() / (weight.double() + 0.5 * B @ A).norm(dim=1)


@pytest.mark.parametrize("band", [1, 16, 1 << 17])
@pytest.mark.parametrize("transposed", [False, True], ids=["Linear", "Conv1D"])
def test_factors_follow_the_formula(monkeypatch: pytest.MonkeyPatch, band: int, transposed: bool) -> None:
    """Whichever way the weight lies, in whatever bands; no gradient is kept."""
    monkeypatch.setattr(dora, "_BAND", band)
    module: Any = Conv1D(OUT, IN) if transposed else nn.Linear(IN, OUT)
    found = Factors(adapter(), {"first": module})["first"]
    weight = module.weight.detach().T if transposed else module.weight.detach()
    torch.testing.assert_close(found.double(), plain(weight, adapter()), atol=1e-6, rtol=1e-6)
    assert found.dtype == torch.float32
    assert not found.requires_grad


def test_sixteen_bits_are_read_as_what_they_are() -> None:
    """The arithmetic is float32's."""
    module = nn.Linear(IN, OUT).bfloat16()
    found = Factors(adapter(), {"first": module})["first"]
    torch.testing.assert_close(found.double(), plain(module.weight.detach(), adapter()), atol=1e-6, rtol=1e-6)


def test_factors_are_computed_once() -> None:
    """And not before somebody asks."""
    module = nn.Linear(IN, OUT)
    factors = Factors(adapter(), {"first": module})
    with torch.no_grad():
        module.weight *= 2
    found = factors["first"]
    torch.testing.assert_close(found.double(), plain(module.weight.detach(), adapter()), atol=1e-6, rtol=1e-6)
    assert factors["first"] is found
    assert list(factors) == ["first"]


def test_an_adapter_of_another_shape_is_refused() -> None:
    """With both shapes."""
    with pytest.raises(ExpertError, match=r"shape \(10, 5\), expected \(10, 6\)"):
        Factors(adapter(width=IN - 1), {"first": nn.Linear(IN, OUT)})["first"]


@pytest.mark.parametrize(
    ("weight", "sentence"),
    [
        (torch.zeros(OUT, IN, dtype=torch.int8), "is stored as torch.int8"),
        (torch.zeros(OUT, IN, device="meta"), "is not in memory"),
    ],
)
def test_a_weight_without_rows_of_numbers_is_refused(weight: Tensor, sentence: str) -> None:
    """At once, before anything is computed."""
    module = nn.Linear(IN, OUT)
    module.weight = nn.Parameter(weight, requires_grad=False)
    with pytest.raises(BaseModelError, match=f"the weight of 'first' {sentence}, and a DoRA expert rescales its rows"):
        Factors(adapter(), {"first": module})


def test_a_row_of_length_zero_is_refused() -> None:
    """What would be divided by zero."""
    module, given = nn.Linear(IN, OUT), adapter()
    with torch.no_grad():
        module.weight[3], given.pairs["first"][1][3] = 0, 0
    with pytest.raises(ExpertError, match="length of a row that is zero, in a linear of 10 outputs"):
        Factors(given, {"first": module})["first"]
