from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch import Tensor

from moehub import base as bases
from moehub.experts.evaluation import summed_loss
from moehub.experts.packing import IGNORED, Row, collate, flatten, keeps_apart, pack
from moehub.experts.tokens import Tokens
from tests.builders import tiny_base
from tests.experts.documents import make_documents


def _learned_pairs(ids: Tensor, labels: Tensor) -> list[tuple[int, int]]:
    """Return (token before, token learned) for every learned token."""
    return [(int(ids[at - 1]), int(ids[at])) for at in range(1, len(ids)) if labels[at] != IGNORED]


@pytest.fixture(scope="module")
def model(base_folder: Path) -> Any:
    return bases.find(str(base_folder)).load_model(dtype=torch.float32)


@pytest.mark.parametrize("join", [False, True])
def test_every_learned_token_is_predicted_exactly_once(join: bool) -> None:
    """Windows overlap by one token, so packing neither loses nor doubles a prediction."""
    documents = make_documents([1, 2, 3, 15, 16, 17, 31, 32, 100, 5, 9])
    rows = pack(documents, 16, join=join)
    expected = [pair for one in documents for pair in _learned_pairs(one.ids, one.ids.where(one.learned, IGNORED))]
    packed = []
    for row in rows:
        for ids, labels in zip(row.ids.split(row.lengths), row.labels.split(row.lengths), strict=True):
            assert labels[0] == IGNORED
            assert bool(((labels == ids) | (labels == IGNORED)).all())
            packed += _learned_pairs(ids, labels)
    assert sorted(packed) == sorted(expected)
    assert max(len(row.ids) for row in rows) <= 16


def test_joining_fills_rows() -> None:
    """Best-fit packing of many short texts leaves little padding, and far fewer rows than texts."""
    documents = make_documents(torch.randint(4, 40, (300,), generator=torch.Generator().manual_seed(1)).tolist())
    rows = pack(documents, 64)
    tokens = sum(len(row.ids) for row in rows)
    assert tokens / (64 * len(rows)) > 0.95
    assert all(sum(row.lengths) == len(row.ids) for row in rows)


def test_without_joining_each_window_has_its_own_row() -> None:
    """Models that cannot keep texts apart get one text a row."""
    rows = pack(make_documents([10, 20]), 16, join=False)
    assert [row.lengths for row in rows] == [(10,), (16,), (5,)]


def test_what_teaches_nothing_takes_no_room() -> None:
    """A text of one token, or without anything learned after its first, is in no row."""
    silent = Tokens(torch.arange(9), torch.arange(9) == 0, divisible=True, closed=False, origin="a text")
    assert pack([silent, *make_documents([1])], 16) == []


def test_packing_is_the_same_each_time() -> None:
    """The order of rows depends on the documents alone."""
    first, second = (pack(make_documents([5, 9, 14, 3, 8] * 7), 16) for _ in range(2))
    assert [row.ids.tolist() for row in first] == [row.ids.tolist() for row in second]


def test_packing_leaves_the_progress_bars_of_datasets_as_they_were() -> None:
    """Silence is for the call alone."""
    before = datasets.are_progress_bars_disabled()
    pack(make_documents([5, 9]), 16)
    assert datasets.are_progress_bars_disabled() == before


def test_collate_pads_and_restarts_positions() -> None:
    """Positions begin anew with each example and go on through the padding, whose labels are ignored."""
    rows = [
        Row(torch.tensor([5, 6, 7, 8, 9]), torch.tensor([-100, 6, -100, 8, 9]), (2, 3)),
        Row(torch.tensor([4, 3]), torch.tensor([-100, 3]), (2,)),
    ]
    batch = collate(rows, pad=1)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7, 8, 9], [4, 3, 1, 1, 1]],
        "labels": [[-100, 6, -100, 8, 9], [-100, 3, -100, -100, -100]],
        "position_ids": [[0, 1, 0, 1, 2], [0, 1, 2, 3, 4]],
    }


def test_packed_rows_give_the_logits_and_the_loss_of_separate_rows(model: Any) -> None:
    """Texts in one row do not see each other, in a batch with padding, under the default attention."""
    documents = make_documents([7, 20, 11, 16, 5, 30])
    packed, separate = pack(documents, 32), pack(documents, 32, join=False)
    assert any(len(row.lengths) > 1 for row in packed)
    assert model.config._attn_implementation == "sdpa"
    expected: dict[tuple[int, ...], Tensor] = {}
    total = torch.zeros(())
    with torch.no_grad():
        for row in separate:
            batch = collate([row])
            expected[tuple(row.ids.tolist())] = logits = model(batch["input_ids"], use_cache=False).logits
            total += summed_loss(logits, batch["labels"])
        batch = collate(packed)
        labels = batch.pop("labels")
        together = model(**batch, use_cache=False).logits
    for index, row in enumerate(packed):
        begin = 0
        for length in row.lengths:
            alone = expected[tuple(row.ids[begin : begin + length].tolist())][0]
            torch.testing.assert_close(together[index, begin : begin + length], alone, atol=1e-5, rtol=0)
            begin += length
    torch.testing.assert_close(summed_loss(together, labels), total, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize(("dtype"), [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2", "gpt_neox", "phi"])
def test_attention_models_keep_texts_apart(tmp_path: Path, architecture: str, dtype: torch.dtype) -> None:
    """The probe finds that packing is right for the usual architectures, in both precisions."""
    folder = tiny_base(tmp_path / "base", architecture=architecture)
    assert keeps_apart(bases.find(str(folder)).load_model(dtype=dtype))


class _Leaking(torch.nn.Module):
    """Adds up embeddings from left to right, as a recurrence does, whatever the positions say."""

    training = False
    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 50)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.embedding

    def forward(self, input_ids: Tensor, position_ids: Tensor, use_cache: bool) -> Any:
        del position_ids, use_cache
        hidden = self.embedding(input_ids).cumsum(1)
        return type("Output", (), {"logits": hidden})


class _WithoutPositions(_Leaking):
    def forward(self, input_ids: Tensor, use_cache: bool) -> Any:  # type: ignore[override]
        return super().forward(input_ids, input_ids, use_cache)


@pytest.mark.parametrize("kind", [_Leaking, _WithoutPositions])
def test_models_that_mix_texts_are_found_out(kind: type[_Leaking]) -> None:
    """A recurrence, or a model that takes no positions, is not to be given packed rows."""
    assert not keeps_apart(kind())


def test_probe_leaves_the_model_in_the_mode_it_was(model: Any) -> None:
    """A model in training mode stays in it."""
    model.train()
    assert keeps_apart(model)
    assert model.training
    model.eval()


def test_flatten_puts_rows_end_to_end() -> None:
    """The lengths of all examples stand beside, and padding is one more text."""
    rows = [
        Row(torch.tensor([5, 6, 7, 8, 9]), torch.tensor([-100, 6, -100, 8, 9]), (2, 3)),
        Row(torch.tensor([4, 3]), torch.tensor([-100, 3]), (2,)),
    ]
    assert {name: tensor.tolist() for name, tensor in flatten(rows, pad=1).items()} == {
        "input_ids": [[5, 6, 7, 8, 9, 4, 3, *[1] * 57]],
        "labels": [[-100, 6, -100, 8, 9, -100, 3, *[-100] * 57]],
        "position_ids": [[0, 1, 0, 1, 2, 0, 1, *range(57)]],
        "cu_seq_lens_q": [0, 2, 5, 7, 64],
        "logits_to_keep": list(range(64)),
    }


def test_places_before_learned_tokens_are_kept() -> None:
    """The others need no logits; the last place, which predicts nothing, makes the number a multiple of 64."""
    ids = torch.arange(130)
    batch = flatten([Row(ids, ids.where(ids % 3 == 1, IGNORED), (130,))])
    assert batch["logits_to_keep"].tolist() == [*range(0, 129, 3), *[191] * 21]


def test_full_rows_are_not_padded() -> None:
    """Where the tokens are a multiple of 64 there is no text of padding."""
    ids = torch.arange(64)
    batch = flatten([Row(ids, torch.cat([torch.tensor([IGNORED]), ids[1:]]), (64,))])
    assert batch["cu_seq_lens_q"].tolist() == [0, 64]
    assert batch["logits_to_keep"].tolist() == list(range(64))
