"""A model that is loaded here: many prompts at once, with the answers of one by one.

Shapes: B prompts of a batch, T tokens of the longest, V entries of the vocabulary.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moehub import base as bases
from moehub import chat
from moehub.answering import yes_no
from moehub.answering.answerer import GREEDY, Answer, Sampling
from moehub.answering.meter import Meter
from moehub.answering.yes_no import YesNo
from moehub.chat import Message, Prompt
from moehub.errors import AnsweringError, DataError

_UNTHINKING = {"enable_thinking": False}
"""For templates that let a model think before its first word; others do not look at it."""


@dataclass(frozen=True)
class _Asked:
    """A prompt, ready for the model."""

    place: int
    """In the order that the caller gave."""
    text: str
    ids: list[int]
    room: int
    """Tokens that may be written."""


class Local:
    """A causal language model of transformers, or PEFT's wrapper of one.

    Args:
        model: what `moehub.models.open_model` opened; it is only read.
        tokenizer: that of the model.
        name: what it is called in results.
        batch_tokens: tokens, read and written, that are worked off at once; a single prompt may be longer.
        meter: counts what was asked; a new one where none is given.
    """

    def __init__(
        self, model: Any, tokenizer: Any, name: str, *, batch_tokens: int = 8192, meter: Meter | None = None
    ) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.batch_tokens = batch_tokens
        self.meter = meter or Meter()
        self._ends = _ends_of(model, tokenizer)
        self._yes_no: dict[str, YesNo] = {}

    def answer(self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY) -> list[Answer]:
        """Return one answer for each prompt, in order; each ends where the text or the assistant's turn does.

        Raises:
            DataError: a prompt is empty, or the chat template refuses it.
            AnsweringError: a prompt leaves no room in the model's context.
        """
        answers: dict[int, Answer] = {}
        with _seeded(sampling.seed):
            for batch in self._batches(self._encoded(prompts, sampling.max_new_tokens)):
                written = self._generate(batch, sampling).sequences
                for asked, row in zip(batch, written, strict=True):
                    answers[asked.place] = self._read(asked, row[_longest(batch) :].tolist())
        return [answers[place] for place in range(len(prompts))]

    def yes_probability(self, questions: Sequence[Prompt]) -> list[float]:
        """Return sigmoid(logsumexp(yes) − logsumexp(no)) of each question, over the logits of an answer's first token.

        Raises:
            DataError: as `answer`.
            AnsweringError: as `answer`, or the tokenizer does not tell yes from no.
        """
        found: dict[int, float] = {}
        for batch in self._batches(self._encoded(questions, 1, unthinking=True)):
            words = [self._words(asked.text) for asked in batch]
            logits_BV = self._generate(batch, Sampling(max_new_tokens=1), logits=True).logits[0]
            for asked, word, logits in zip(batch, words, logits_BV.double(), strict=True):
                yes, no = (logits[list(ids)].logsumexp(0) for ids in (word.yes, word.no))
                found[asked.place] = float(torch.sigmoid(yes - no))
                self.meter.count(requests=1, prompt_tokens=len(asked.ids), completion_tokens=1)
        return [found[place] for place in range(len(questions))]

    def _encoded(self, prompts: Sequence[Prompt], new: int, *, unthinking: bool = False) -> list[_Asked]:
        context = bases.context_length(self.model.config)
        encoded = []
        for place, prompt in enumerate(prompts):
            text, ids = self._encode(prompt, unthinking=unthinking)
            if not ids:
                raise DataError(f"prompt {place + 1} is empty, expected some text to answer")
            if len(ids) >= context:
                raise AnsweringError(
                    f"prompt {place + 1} has {len(ids):,} tokens and leaves no room in the {context:,} of {self.name}: "
                    "shorten it, or ask a model of a longer context"
                )
            encoded.append(_Asked(place, text, ids, min(new, context - len(ids))))
        return encoded

    def _encode(self, prompt: Prompt, *, unthinking: bool) -> tuple[str, list[int]]:
        if isinstance(prompt, str):
            return prompt, list(self.tokenizer(prompt)["input_ids"])
        variables = _UNTHINKING if unthinking else {}
        text = chat.render(self.tokenizer, prompt, answer=True, **variables)
        return text, list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _batches(self, encoded: Iterable[_Asked]) -> Iterator[list[_Asked]]:
        """Yield prompts of about one length together, the longest first; all of a batch have the same room."""
        batch: list[_Asked] = []
        for asked in sorted(encoded, key=lambda one: (one.room, len(one.ids)), reverse=True):
            # The first of a batch is its longest.
            full = batch and (len(batch) + 1) * (len(batch[0].ids) + batch[0].room) > self.batch_tokens
            if batch and (full or asked.room != batch[0].room):
                yield batch
                batch = []
            batch.append(asked)
        if batch:
            yield batch

    def _generate(self, batch: Sequence[_Asked], sampling: Sampling, *, logits: bool = False) -> Any:
        """Return what transformers generates after a batch: `sequences`, int64 [B, T + new], and logits."""
        from transformers import GenerationConfig

        device = self.model.get_input_embeddings().weight.device
        ids_BT, mask_BT = (one.to(device) for one in _left_padded([asked.ids for asked in batch], self._padding))
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p} if sampling.temperature > 0 else {}
        # Everything is said, because what is not said is taken from the base's own settings.
        config = GenerationConfig(
            max_new_tokens=batch[0].room,
            min_new_tokens=0,
            do_sample=sampling.temperature > 0,
            num_beams=1,
            top_k=0 if sampling.temperature > 0 else None,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            eos_token_id=list(self._ends) or None,
            pad_token_id=self._padding,
            return_dict_in_generate=True,
            output_logits=logits,
            **drawn,
        )
        with torch.inference_mode(), bases.quiet_transformers():
            return self.model.generate(input_ids=ids_BT, attention_mask=mask_BT, generation_config=config)

    @property
    def _padding(self) -> int:
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, *self._ends)
        return next((int(one) for one in known if one is not None), 0)

    def _read(self, asked: _Asked, written: list[int]) -> Answer:
        """Return the answer in ids [new] that go on with padding after their end."""
        end = next((place for place, one in enumerate(written) if one in self._ends), None)
        said = written if end is None else written[:end]
        # The mark at the end was written too.
        count = len(said) + (end is not None)
        self.meter.count(requests=1, prompt_tokens=len(asked.ids), completion_tokens=count)
        return Answer(self.tokenizer.decode(said, skip_special_tokens=True), len(asked.ids), count)

    def _words(self, prompt: str) -> YesNo:
        tail = prompt[-64:]
        if tail not in self._yes_no:
            self._yes_no[tail] = yes_no.find(self.tokenizer, tail)
        return self._yes_no[tail]


def _longest(batch: Sequence[_Asked]) -> int:
    return max(len(asked.ids) for asked in batch)


def _left_padded(rows: Sequence[list[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Return ids and mask, int64 [B, T], with the padding before each text."""
    longest = max(map(len, rows))
    ids = torch.tensor([[padding] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _ends_of(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return the ids after which nothing follows: ends of text, and the mark that the template ends a turn with."""
    given = getattr(model.generation_config, "eos_token_id", None)
    ends = [*(given if isinstance(given, list) else [given]), tokenizer.eos_token_id, _end_of_turn(tokenizer)]
    return tuple(dict.fromkeys(int(one) for one in ends if one is not None))


def _end_of_turn(tokenizer: Any) -> int | None:
    """Return the special token that the chat template puts behind an answer; None where there is none."""
    word = "answered"
    try:
        text = chat.render(tokenizer, [Message("user", "asked"), Message("assistant", word)])
    except DataError:
        return None
    after = tokenizer(text[text.rfind(word) + len(word) :].lstrip(), add_special_tokens=False)["input_ids"]
    marks = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return int(after[0]) if after and after[0] in marks else None


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Draw from a seed, and leave the generators of everybody else as they were."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
