import math
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from moehub import base as bases
from moehub.experts import attention
from tests.builders import tiny_base

Three: TypeAlias = tuple[Tensor, Tensor, Tensor]


def _inputs(lengths: tuple[int, ...], *, heads: int, groups: int, dtype: torch.dtype) -> Three:
    """Return query, key and value as transformers gives them: [1, heads or groups, T, 8]."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, sum(lengths), many, 8, generator=generator).to(dtype).transpose(1, 2).requires_grad_()
        for many in (heads, groups, groups)
    )
    return query, key, value


def _starts(lengths: tuple[int, ...]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


def _masked(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scale: float) -> Tensor:
    """Return causal attention under a block-diagonal mask: [1, T, H, D]."""
    text = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    mask = (text[:, None] == text[None]).tril()
    key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], dim=1) for each in (key, value))
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale).transpose(1, 2)


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("lengths", [(1,), (1, 1, 7), (13, 2, 31, 5), (520, 3)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.04)])
def test_by_text_is_what_a_mask_gives(
    lengths: tuple[int, ...], heads: int, groups: int, dtype: torch.dtype, tolerance: float
) -> None:
    """Outputs and all gradients are those of float32 attention under a block-diagonal mask, short and long."""
    mine = _inputs(lengths, heads=heads, groups=groups, dtype=dtype)
    query, key, value = (each.detach().float().requires_grad_() for each in mine)
    theirs = (query, key, value)
    found, weights = attention.attend(None, *mine, None, scaling=0.3, cu_seq_lens_q=_starts(lengths))
    expected = _masked(*theirs, lengths, 0.3)
    assert weights is None
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)
    above = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    for ours, reference in zip(
        torch.autograd.grad(found, mine, above), torch.autograd.grad(expected, theirs, above.float()), strict=True
    ):
        torch.testing.assert_close(ours.float(), reference, atol=4 * tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_are_scaled_by_the_width_unless_told(dtype: torch.dtype) -> None:
    """Without `scaling` the factor is 1/√D, as torch's own."""
    inputs = _inputs((9, 4), heads=2, groups=2, dtype=dtype)
    found, expected = (
        attention.attend(None, *inputs, None, scaling=scale, cu_seq_lens_q=_starts((9, 4)))[0]
        for scale in (None, 1 / math.sqrt(8))
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_dropped(dtype: torch.dtype) -> None:
    """A base that trains with attention dropout keeps it."""
    inputs = _inputs((9, 4), heads=2, groups=2, dtype=dtype)
    torch.manual_seed(0)
    kept, dropped = (
        attention.attend(None, *inputs, None, dropout=share, cu_seq_lens_q=_starts((9, 4)))[0] for share in (0.0, 0.9)
    )
    assert float((dropped == 0).float().mean()) > 0.3
    assert not bool((kept == 0).any())


def test_masks_and_several_rows_are_refused() -> None:
    """What would be ignored is an error."""
    query, key, value = _inputs((4,), heads=2, groups=2, dtype=torch.float32)
    with pytest.raises(ValueError, match="one row and no mask"):
        attention.attend(None, query, key, value, torch.zeros(4, 4), cu_seq_lens_q=_starts((4,)))
    query, key, value = (each.expand(2, -1, -1, -1) for each in (query, key, value))
    with pytest.raises(ValueError, match="one row and no mask"):
        attention.attend(None, query, key, value, None, cu_seq_lens_q=_starts((4,)))


def test_a_model_gets_its_attention_back(base_folder: Path) -> None:
    """Also after an error; in between, a forward pass without lengths is refused rather than wrong."""
    model: Any = bases.find(str(base_folder)).load_model(dtype=torch.float32)
    with pytest.raises(TypeError, match="cu_seq_lens_q"), attention.by_text(model):
        model(torch.arange(2, 9)[None])
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("architecture", "changes", "longest", "expected"),
    [
        ("llama", {}, 256, True),
        ("mistral", {"sliding_window": 64}, 64, True),
        ("mistral", {"sliding_window": 64}, 65, False),
        ("gemma2", {}, 64, False),
    ],
)
def test_windows_and_other_attentions_are_left_alone(
    tmp_path: Path, architecture: str, changes: dict[str, int], longest: int, expected: bool
) -> None:
    """A text that is longer than the model's window, and attention that is not torch's, stay with transformers."""
    base = bases.find(str(tiny_base(tmp_path / "base", architecture=architecture, **changes)))
    assert attention.can_be_by_text(base.load_model(dtype=torch.float32), longest) == expected
