"""What a model is worth on text: loss, perplexity, and where its tokens went.

Shapes: T tokens of a row, E experts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moehub import base as bases
from moehub import files
from moehub.errors import BaseModelError, ConfigError, DataError
from moehub.experts import data, tokens
from moehub.experts.evaluation import evaluate_loss
from moehub.experts.examples import Example
from moehub.experts.packing import Row, pack
from moehub.hub.measured import MEASURED_FILE, Measured, MeasuredText
from moehub.merge.assemble import CONFIG_FILE
from moehub.merge.load import is_moe, read_moe_config
from moehub.models import Opened
from moehub.router.method import NULL

LONGEST = 1024
"""Tokens of a window where the model's context is longer."""
UNFINISHED = "\ufffd"
"""What tokenizers show for bytes that are no whole character."""


@dataclass(frozen=True)
class Score:
    """A model on one text."""

    loss: float
    """Mean over the learned tokens, nats per token."""
    tokens: int
    """How many those are."""
    routing: Mapping[str, float] | None
    """Mean gate weight of each expert, and of "null", over all tokens; None for what has no gate."""

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700.0))


@dataclass(frozen=True)
class TracedToken:
    """One token of a text and where it went."""

    text: str
    expert: str
    """The expert with the largest weight, or "null"."""
    weight: float


def read_rows(paths: Sequence[Path], opened: Opened, *, context_length: int | None = None) -> list[Row]:
    """Return the examples in files as rows for evaluation, one example or window a row.

    Raises:
        DataError: the files cannot be used.
    """
    return rows_of(data.read(paths), opened, context_length=context_length)


def rows_of(examples: Sequence[Example], opened: Opened, *, context_length: int | None = None) -> list[Row]:
    """Return examples as rows: windows of at most `context_length` tokens, each token predicted exactly once.

    A conversation longer than that is cut off at its end.

    Raises:
        DataError: no token is left to predict.
    """
    longest = bases.context_length(opened.model.config)
    context = context_length or min(longest, LONGEST)
    kept, _ = tokens.fit(tokens.encode(opened.tokenizer, examples), context, too_long="cut", longest=longest)
    rows = pack(kept, context, join=False)
    if not rows:
        raise DataError("there is no token to predict in this text: expected more than one token")
    return rows


def evaluate(opened: Opened, rows: Sequence[Row]) -> Score:
    """Return the model's score on rows."""
    loss, count = evaluate_loss(opened.model, rows)
    return Score(loss, count, routing(opened, rows) if opened.kind == "moe" else None)


def routing(opened: Opened, rows: Sequence[Row]) -> dict[str, float]:
    """Return the mean gate weight of every expert and of "null" over all tokens of the rows."""
    names = [*opened.model.names, NULL]
    total, count = torch.zeros(len(names), dtype=torch.float64), 0
    for row in rows:
        trace = opened.model.trace(row.ids[None].to(opened.model.device))
        total += trace.double().sum((0, 1)).cpu()
        count += len(row.ids)
    return dict(zip(names, (total / count).tolist(), strict=True))


def require_moe(folder: Path) -> Path:
    """Return `folder` if what a model is worth can be kept there.

    Raises:
        ConfigError: it is no MoE's folder.
    """
    if not is_moe(folder):
        raise ConfigError(f"--keep with {folder}: expected the folder of a MoE, as `moehub merge` makes one")
    return folder


def is_base_of(reference: str, moe: Path) -> bool:
    """Return whether `reference` names the base of the MoE in a folder."""
    try:
        return bases.find(reference).pin().digest == read_moe_config(moe).base["digest"]
    except BaseModelError:
        return False


def keep(moe: Path, scores: Mapping[str, Score], of_base: Mapping[str, Score]) -> Path:
    """Write what the MoE in a folder is worth into that folder, so that it travels with the MoE; return the file.

    Args:
        moe: the folder.
        scores: name of a text → the MoE on it.
        of_base: the same of its base, for the texts that it was measured on.

    Raises:
        ConfigError: a text has no name that can be shown, or a loss is no number.
    """
    texts = {
        name: MeasuredText(
            score.loss, score.tokens, dict(score.routing or {}), of_base[name].loss if name in of_base else None
        )
        for name, score in scores.items()
    }
    kept = Measured(files.sha256(moe / CONFIG_FILE), texts)
    files.write_text(moe / MEASURED_FILE, kept.to_json())
    return moe / MEASURED_FILE


def traced(opened: Opened, ids: Any) -> list[TracedToken]:
    """Return each token of one text (int64 [T]) as text, with the expert that it went to."""
    trace = opened.model.trace(ids[None].to(opened.model.device))[0]
    weights, best = trace.max(-1)
    names = [*opened.model.names, NULL]
    texts = pieces(opened.tokenizer, ids.tolist())
    return [
        TracedToken(piece, names[expert], weight)
        for piece, expert, weight in zip(texts, best.tolist(), weights.tolist(), strict=True)
    ]


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Return the text that each token adds: together they are the whole, whatever the tokenizer.

    A character of several tokens belongs to the last of them; one that is cut off by the end, to the last token.
    """
    found, begin, read, said = [], 0, 0, ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[begin:end], skip_special_tokens=False)
        if text.endswith(UNFINISHED) and end < len(ids):
            found.append("")
            continue
        found.append(text[len(said) :])
        # Decode from the character before on: some tokenizers join a word to the one before it, and others
        # read bytes that stand beside each other together, where half a character spoils its neighbours.
        begin, read = read, end
        said = tokenizer.decode(ids[begin:end], skip_special_tokens=False)
    return found
