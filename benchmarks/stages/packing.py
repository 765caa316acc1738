"""Tokens a second of `sft` with packing, and of a plain script of transformers and PEFT on the same answers.

The script is what a person writes who follows the libraries' guides: PEFT's LoRA on all linears, transformers' Trainer,
as many examples a step as ours have on average, padded to the longest of a batch: all in one batch in the order of
shuffling, or in small batches of about one length (`group_by_length`, accumulated).
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.stages.material import Question
from moehub import base as bases
from moehub.chat import Message
from moehub.experts import adaptation, loop
from moehub.experts.examples import Conversation
from moehub.experts.packing import IGNORED, keeps_apart, pack
from moehub.experts.settings import TrainConfig
from moehub.experts.tokens import Tokens, encode, fit

_CONTEXT = 512
_EXAMPLES = 400
_STEPS = 5
_SMALL = 4
"""Examples of a small batch."""
_CONFIG = TrainConfig(batch_size=8, max_steps=_STEPS, context_length=_CONTEXT, rank=16, schedule="constant")


class _Clock(TrainerCallback):
    """Notes when each step ends and how many tokens were read by then; the first step warms up."""

    def __init__(self) -> None:
        self.tokens = 0
        self.ends: list[tuple[float, int]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.ends.append((time.process_time(), self.tokens))

    def read(self, _: Any, __: Any, inputs: dict[str, Tensor]) -> None:
        """Count the tokens of a forward pass, without its padding."""
        self.tokens += int(inputs["attention_mask"].sum())

    @property
    def speed(self) -> float:
        """Tokens a second."""
        (began, before), (ended, after) = self.ends[0], self.ends[-1]
        return (after - before) / (ended - began)


def compare(questions: Sequence[Question], base: str, *, turns: int) -> str:
    """Return a table of tokens a second of processor time of both, taken in turns, and their ratio with its spread."""
    found = bases.find(base)
    with adaptation.quiet():
        texts = _texts(found, questions)
        model = adaptation.load(found, _CONFIG)
        works: dict[str, Callable[[], float]] = {
            "moehub": lambda: _ours(model, texts),
            "transformers and PEFT, one batch a step": lambda: _plain(model, texts),
            "the same, small batches of like length": lambda: _plain(model, texts, batch=_SMALL),
        }
        speeds: dict[str, list[float]] = {name: [] for name in works}
        for turn in range(turns + 1):
            for name, work in works.items():
                speed = work()
                if turn:
                    speeds[name].append(speed)
    mine = speeds["moehub"]
    ratios = {name: [one / other for one, other in zip(mine, each, strict=True)] for name, each in speeds.items()}
    lengths = [len(text.ids) for text in texts]
    mean, deviation = statistics.mean(lengths), statistics.stdev(lengths)
    lines = [
        f"{len(texts)} answers with their questions, {mean:.0f} ± {deviation:.0f} tokens, at most {max(lengths)}\n",
        "| | tokens a second of processor time, median [least, most] | moehub over it |\n|---|--:|--:|",
        *(f"| {name} | {_spread(each, ',.0f')} | {_spread(ratios[name], '.2f')} |" for name, each in speeds.items()),
    ]
    return "\n".join(lines)


def _spread(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def _texts(base: bases.Base, questions: Sequence[Question]) -> list[Tokens]:
    asked = [
        Conversation((Message("user", one.question), Message("assistant", one.answer))) for one in questions[:_EXAMPLES]
    ]
    texts, _ = fit(encode(base.load_tokenizer(), asked), _CONTEXT, too_long="skip", longest=_CONTEXT)
    return texts


def _ours(model: Any, texts: Sequence[Tokens]) -> float:
    """Return the tokens a second of moehub's own loop."""
    rows = pack(texts, _CONTEXT, join=keeps_apart(model))
    adapted = adaptation.adapt(model, _CONFIG)
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = loop.arguments(Path(folder), _CONFIG)
        loop.run(adapted, rows, _CONFIG, settings, title="ours", on_step=lambda *_: ends.append(time.process_time()))
    adapted.unload()
    tokens = sum(len(row.ids) for row in rows) / len(rows) * _CONFIG.batch_size
    return tokens * (len(ends) - 1) / (ends[-1] - ends[0])


def _plain(model: Any, texts: Sequence[Tokens], *, batch: int = 0) -> float:
    """Return the tokens a second of the plain script; with `batch`, of small batches of about one length."""
    mean = sum(len(text.ids) for text in texts) / len(texts)
    many = max(1, round(_CONTEXT * _CONFIG.batch_size / mean))
    lora = LoraConfig(r=_CONFIG.rank, lora_alpha=_CONFIG.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, lora)
    clock = _Clock()
    adapted.register_forward_pre_hook(clock.read, with_kwargs=True)
    parts = max(1, round(many / batch)) if batch else 1
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch or many,
            gradient_accumulation_steps=parts,
            train_sampling_strategy="group_by_length" if batch else "random",
            max_steps=_STEPS,
            learning_rate=_CONFIG.learning_rate,
            use_cpu=not torch.accelerator.is_available(),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            log_level="error",
            remove_unused_columns=False,
        )
        data = [{"input_ids": text.ids, "labels": text.ids.where(text.learned, IGNORED)} for text in texts]
        Trainer(model=adapted, args=settings, train_dataset=data, data_collator=_padded, callbacks=[clock]).train()
    adapted.unload()
    return clock.speed


def _padded(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)
    sizes = torch.tensor([len(row["input_ids"]) for row in rows])
    return {
        "input_ids": torch.stack(
            [functional.pad(row["input_ids"], (0, longest - len(row["input_ids"]))) for row in rows]
        ),
        "labels": torch.stack(
            [functional.pad(row["labels"], (0, longest - len(row["input_ids"])), value=IGNORED) for row in rows]
        ),
        "attention_mask": (torch.arange(longest)[None] < sizes[:, None]).long(),
    }
