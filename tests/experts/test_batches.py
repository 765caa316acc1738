from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moehub import base as bases
from moehub.experts import adaptation, loop
from moehub.experts.attention import by_text
from moehub.experts.batches import Layout, layout
from moehub.experts.evaluation import summed_loss
from moehub.experts.packing import Row, collate, flatten, keeps_apart, pack
from moehub.experts.tokens import Tokens
from tests.builders import tiny_base
from tests.experts.documents import make_documents
from tests.experts.trainings import settings

BY_TEXT = ["llama", "qwen3", "gpt_neox", "phi"]
MASKED = ["gemma2"]


DOCUMENTS = make_documents((7, 20, 11, 16, 5, 30))
SPARSE = [replace(one, learned=one.learned & (torch.arange(len(one.ids)) % 5 == 2)) for one in DOCUMENTS]


def _adapted(folder: Path, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """Return a base with an adapter that changes something, in training."""
    with adaptation.quiet():
        model = adaptation.adapt(bases.find(str(folder)).load_model(dtype=dtype), settings(**changes))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / 10)
    return model.train()


def _gradients(model: Any, batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the gradient of the summed loss of all batches, by parameter."""
    model.zero_grad()
    for batch in batches:
        labels = batch.pop("labels")
        summed_loss(model(**batch, use_cache=False).logits, labels).backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("documents", [DOCUMENTS, SPARSE], ids=["most learned", "few learned"])
@pytest.mark.parametrize("architecture", [*BY_TEXT, *MASKED])
def test_gradient_of_packed_rows_is_the_sum_of_thedocuments(
    tmp_path: Path, architecture: str, documents: list[Tokens]
) -> None:
    """For every architecture that is given packed rows, under transformers' mask and text by text."""
    model = _adapted(tiny_base(tmp_path / "base", architecture=architecture))
    assert keeps_apart(model)
    rows = pack(documents, 32)
    assert any(len(row.lengths) > 1 for row in rows)
    expected = _gradients(model, [collate([row]) for row in pack(documents, 32, join=False)])
    ways = {"masked": _gradients(model, [collate(rows)])}
    if architecture in BY_TEXT:
        with by_text(model):
            ways["by text"] = _gradients(model, [flatten(rows)])
            ways["row by row"] = _gradients(model, [flatten([row]) for row in rows])
    for found in ways.values():
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected[name], atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("architecture", [*BY_TEXT, *MASKED])
def test_training_on_packed_rows_is_training_on_thedocuments(tmp_path: Path, architecture: str) -> None:
    """Three steps over all documents make the same adapter, whether they share rows or each has its own."""
    folder = tiny_base(tmp_path / "base", architecture=architecture)
    made = []
    for join in (True, False):
        rows = pack(DOCUMENTS, 32, join=join)
        # All rows are in each step, so that only the packing differs.
        config = settings(batch_size=len(rows), max_steps=3, learning_rate=1e-3, warmup=0, schedule="constant", clip=0)
        model = _adapted(folder)
        with adaptation.quiet():
            done = loop.run(model, rows, config, loop.arguments(tmp_path / str(join), config), title="training")
        made.append((adaptation.state(model), done))
    (packed, first), (alone, second) = made
    assert first.tokens == second.tokens
    assert first.nats == pytest.approx(second.nats, rel=1e-5)
    for name, weights in packed.items():
        torch.testing.assert_close(weights, alone[name], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("architecture", "expected"), [(one, True) for one in BY_TEXT] + [(one, False) for one in MASKED]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_are_tried_before_texts_are_split(
    tmp_path: Path, architecture: str, expected: bool, dtype: torch.dtype
) -> None:
    """Attention by text is for those whose logits it leaves as they are; they keep their own attention meanwhile."""
    model = _adapted(tiny_base(tmp_path / "base", architecture=architecture), dtype=dtype)
    before = model.config._attn_implementation
    assert layout(model, pack(DOCUMENTS, 32), settings()).by_text == expected
    assert model.config._attn_implementation == before
    assert model.training


def test_a_model_whose_attention_is_something_else_keeps_it(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the configuration does not tell is found by trying."""
    from moehub.experts import attention

    model = _adapted(base_folder)
    assert layout(model, pack(DOCUMENTS, 32), settings()).by_text
    formula = attention._one
    monkeypatch.setattr(attention, "_one", lambda *text, scale, **rest: formula(*text, scale=2 * scale, **rest))
    assert not layout(model, pack(DOCUMENTS, 32), settings()).by_text


@pytest.mark.parametrize(
    ("width", "batch", "accumulation", "parts"),
    [(48, 8, 1, 1), (48, 8, 4, 4), (50_000, 8, 1, 2), (60_000, 8, 1, 4), (150_000, 6, 1, 6), (10**6, 6, 1, 6)],
)
def test_a_part_fits_into_eight_mebibytes(
    base_folder: Path, width: int, batch: int, accumulation: int, parts: int
) -> None:
    """Wide models take fewer rows at once, never less than one, and never fewer parts than were asked for."""
    model = _adapted(base_folder)
    with torch.device("meta"):
        model.wide = nn.Linear(1, width)
    rows = [Row(torch.arange(10), torch.arange(10), (10,))]
    found = layout(model, rows, settings(batch_size=batch, accumulation=accumulation))
    assert found == Layout(by_text=True, parts=parts)
