import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from moehub.errors import DataError
from moehub.evaluation import Score, evaluate, pieces, read_rows, routing, rows_of, traced
from moehub.experts.examples import Completion, Text
from moehub.models import Opened, open_model
from tests.builders import _trained_tokenizer
from tests.moehub.conftest import CODE, LAW, Small

EMOJI = "größe 👩‍💻 12 → 家, fin 🦊"


def byte_level() -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_trained_tokenizer().to_str()))


def sentencepiece_like() -> Any:
    """Words begin with ▁, characters without a token of their own are single bytes: what Llama 2 and Gemma do."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    vocabulary |= {character: 256 + number for number, character in enumerate("▁thecasgrfin,12")}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


TOKENIZERS = {"byte level": byte_level(), "sentencepiece": sentencepiece_like()}


@pytest.fixture(scope="module")
def base(small: Small) -> Opened:
    """The base, opened."""
    return open_model(str(small.base))


@pytest.fixture(scope="module")
def moe(small: Small) -> Opened:
    """The MoE, opened."""
    return open_model(str(small.moe))


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=st.text(alphabet=st.sampled_from("the cats, gré 12🦊👩家\u200d"), max_size=30))
def test_pieces_together_are_the_text(kind: str, text: str) -> None:
    """Whatever the tokens are, the pieces joined are what the tokenizer decodes from all of them."""
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer(text)["input_ids"]
    found = pieces(tokenizer, ids)
    assert len(found) == len(ids)
    assert "".join(found) == tokenizer.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_character_belongs_to_its_last_token(kind: str) -> None:
    """The tokens inside a character add nothing, its last one adds all of it: no piece holds half of one."""
    ids = TOKENIZERS[kind](EMOJI)["input_ids"]
    found = pieces(TOKENIZERS[kind], ids)
    assert "".join(found).strip() == EMOJI
    assert "" in found
    assert not any("\ufffd" in piece for piece in found)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_text_cut_inside_a_character_loses_nothing(kind: str) -> None:
    """Where the tokens stop in the middle of a character, the last piece shows what the tokenizer shows for it."""
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer("cat 🦊")["input_ids"][:-1]
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


def test_words_of_a_sentencepiece_keep_their_spaces() -> None:
    """A word's leading space is in its own piece, though a tokenizer drops it for a word that stands alone."""
    words = Tokenizer(models.WordLevel({"▁the": 0, "▁cat": 1}, unk_token="▁the"))
    words.decoder = decoders.Metaspace()
    assert pieces(PreTrainedTokenizerFast(tokenizer_object=words), [0, 1, 1]) == ["the", " cat", " cat"]


@torch.no_grad()
def test_the_loss_is_that_of_a_hand_computation(small: Small, base: Opened) -> None:
    """Mean of -log p over every token that has one before it, window by window."""
    rows = read_rows([small.text], base, context_length=24)
    total, count = 0.0, 0
    for row in rows:
        logits = base.model(row.ids[None]).logits[0].log_softmax(-1)
        for position in range(len(row.ids) - 1):
            if row.labels[position + 1] >= 0:
                total -= float(logits[position, row.ids[position + 1]])
                count += 1
    score = evaluate(base, rows)
    assert score.tokens == count
    assert score.loss == pytest.approx(total / count, abs=1e-5)
    assert score.perplexity == pytest.approx(math.exp(total / count), rel=1e-4)
    assert score.routing is None


def test_a_hopeless_loss_still_has_a_perplexity() -> None:
    """Above 710 nats exp overflows: the number stays finite."""
    assert math.isfinite(Score(loss=1e6, tokens=1, routing=None).perplexity)


def test_windows_predict_each_token_once(small: Small, base: Opened) -> None:
    """However short the windows, all tokens but the text's first are predicted, and no window is longer."""
    ids = base.tokenizer(small.text.read_text(encoding="utf-8"))["input_ids"]
    for context in (2, 7, 24, 1000):
        rows = read_rows([small.text], base, context_length=context)
        assert sum(int((row.labels[1:] >= 0).sum()) for row in rows) == len(ids)  # the end of the text is learned too
        assert max(len(row.ids) for row in rows) <= context


def test_long_answers_are_cut_to_the_context(base: Opened) -> None:
    """An example of a question and an answer beyond the context keeps the question and is cut at its end."""
    example = Completion(LAW, CODE * 10)
    (row,) = rows_of([example], base, context_length=40)
    question = base.tokenizer(LAW)["input_ids"]
    assert len(row.ids) == 40
    assert row.ids[: len(question)].tolist() == question
    assert bool((row.labels[: len(question)] < 0).all())
    assert bool((row.labels[len(question) :] >= 0).all())


def test_every_text_is_measured_by_itself(moe: Opened) -> None:
    """Two short texts never share a row: a gate would carry what it learned of one into the other."""
    rows = rows_of([Text(LAW), Text(CODE)], moe)
    assert [len(row.lengths) for row in rows] == [1, 1]


def test_a_text_of_one_token_cannot_be_measured(tmp_path: Path, base: Opened) -> None:
    """Nothing is predicted in a text without words: a sentence, not a division by zero."""
    (tmp_path / "blank.txt").write_text("\n \n", encoding="utf-8")
    with pytest.raises(DataError):
        read_rows([tmp_path / "blank.txt"], base)


def test_routing_weighs_tokens_not_rows(moe: Opened) -> None:
    """The shares are means over tokens: a long text counts more than a short one, and equals the traces' own mean."""
    long, short = ([Text(text)] for text in (LAW * 4, CODE))
    rows = rows_of([*long, *short], moe)
    traces = torch.cat([moe.model.trace(row.ids[None])[0] for row in rows]).double()
    shares = routing(moe, rows)
    assert list(shares) == ["code", "law", "null"]
    assert list(shares.values()) == pytest.approx(traces.mean(0).tolist(), abs=1e-6)
    assert shares["law"] > 2 * shares["code"]


def test_traced_tokens_are_text_with_its_owner(moe: Opened) -> None:
    """Each token's text, the expert with the largest weight, and that weight."""
    ids = torch.tensor(moe.tokenizer(LAW + CODE)["input_ids"])
    tokens = traced(moe, ids)
    weights = moe.model.trace(ids[None])[0]
    assert "".join(token.text for token in tokens) == LAW + CODE
    assert [token.weight for token in tokens] == pytest.approx(weights.amax(-1).tolist())
    names = [*moe.model.names, "null"]
    assert [token.expert for token in tokens] == [names[best] for best in weights.argmax(-1).tolist()]
    assert {"law", "code"} <= {token.expert for token in tokens}
