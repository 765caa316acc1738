"""Other ways to train the same adapter: a plain loop, TRL's SFTTrainer, transformers' Trainer on padded texts."""

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from moehub.experts.packing import IGNORED, Row, collate
from moehub.experts.settings import TrainConfig
from moehub.experts.tokens import Tokens


class Meter:
    """Adds up seconds of processor time per learned token, of what is to be counted alone."""

    def __init__(self) -> None:
        self.total = 0.0

    def read(self) -> float:
        """Return what was counted so far."""
        return self.total

    def watch(self) -> "Watch":
        """Return a watch for one training."""
        return Watch(self)


class Watch:
    """Is told when each step of a training ends; the time up to the end of the first does not count."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.ends: list[float] = []

    def tick(self) -> None:
        """Note that a step has ended."""
        self.ends.append(time.process_time())

    def done(self, tokens: float) -> None:
        """Count the training, whose steps learned `tokens` each."""
        self.meter.total += (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1) / tokens


def by_hand(
    model: Any, rows: Sequence[Row], config: TrainConfig, *, meter: Meter, masked: bool = True, exact: bool = False
) -> None:
    """Train an adapter by the plainest loop: row by row, the mean loss of a step, clipped, AdamW.

    One row at a time is faster on a CPU than four in a batch. Nothing is logged and nothing saved, and the
    learning rate stands still.

    Args:
        model: the base.
        rows: packed.
        config: the adapter's size, rows a step, steps, learning rate, clip.
        meter: told what it took.
        masked: whether texts of a row do not see each other, as transformers masks them.
        exact: whether the adapter is float32 whatever the base is.
    """
    adapted = _adapted(model, config, exact=exact)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(config.seed)).tolist()
    watch, counts = meter.watch(), []
    for step in range(config.max_steps or 0):
        batch = [rows[at] for at in order[step * config.batch_size : (step + 1) * config.batch_size]]
        counts.append(sum(int((row.labels != IGNORED).sum()) for row in batch))
        for row in batch:
            (_loss(adapted, row, masked=masked) / counts[-1]).backward()
        torch.nn.utils.clip_grad_norm_(trained, config.clip)
        optimizer.step()
        optimizer.zero_grad()
        watch.tick()
    watch.done(sum(counts[1:]) / len(counts[1:]))
    adapted.unload()


def _loss(adapted: Any, row: Row, *, masked: bool) -> Tensor:
    inputs = collate([row])
    labels = inputs.pop("labels")
    if not masked:
        inputs.pop("position_ids")
    logits = adapted(**inputs, use_cache=False).logits[0, :-1].float()
    return functional.cross_entropy(logits, labels[0, 1:], ignore_index=IGNORED, reduction="sum")


def _adapted(model: Any, config: TrainConfig, *, exact: bool = True) -> Any:
    """Return PEFT's own adapter of this size on all linears."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, lora, autocast_adapter_dtype=exact)
    adapted.train()
    return adapted


def sft_trainer(model: Any, texts: Sequence[Tokens], config: TrainConfig, *, meter: Meter) -> None:
    """Train with TRL's SFTTrainer, packed best-fit, row by row."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    data = datasets.Dataset.from_dict({"input_ids": [text.ids.tolist() for text in texts]})
    adapted = _adapted(model, config)
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            **_arguments(folder, config, rows=1),
            packing=True,
            packing_strategy="bfd",
            max_length=config.context_length,
            gradient_checkpointing=False,
        )
        watch = meter.watch()
        trainer = SFTTrainer(model=adapted, args=settings, train_dataset=data, processing_class=_tokenizer())
        _train(trainer, watch)
        watch.done(_tokens(texts) / len(trainer.train_dataset) * config.batch_size)
    adapted.unload()


def padded_trainer(model: Any, texts: Sequence[Tokens], config: TrainConfig, *, meter: Meter) -> None:
    """Train with transformers' Trainer on one text a row, padded, as many texts a step as four rows hold."""
    from transformers import Trainer, TrainingArguments

    rows = [Row(text.ids, torch.cat([torch.tensor([IGNORED]), text.ids[1:]]), (len(text.ids),)) for text in texts]
    many = round((config.context_length or 0) / (_tokens(texts) / len(texts)))
    adapted = _adapted(model, config)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(**_arguments(folder, config, rows=many), remove_unused_columns=False)
        watch = meter.watch()
        trainer = Trainer(model=adapted, args=settings, train_dataset=rows, data_collator=_padded)
        _train(trainer, watch)
        watch.done(_tokens(texts) / len(texts) * many * config.batch_size)
    adapted.unload()


def _padded(rows: Sequence[Row]) -> dict[str, Tensor]:
    longest = max(len(row.ids) for row in rows)
    sizes = torch.tensor([len(row.ids) for row in rows])
    return {
        "input_ids": torch.stack([functional.pad(row.ids, (0, longest - len(row.ids))) for row in rows]),
        "labels": torch.stack([functional.pad(row.labels, (0, longest - len(row.ids)), value=IGNORED) for row in rows]),
        "attention_mask": (torch.arange(longest)[None] < sizes[:, None]).long(),
    }


def _arguments(folder: str, config: TrainConfig, *, rows: int) -> dict[str, Any]:
    """Return settings of a Trainer: `rows` a batch, as many batches a step as we take rows."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": config.batch_size,
        "max_steps": config.max_steps or -1,
        "learning_rate": config.learning_rate,
        "max_grad_norm": config.clip,
        "bf16": False,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "log_level": "error",
        "dataloader_pin_memory": False,
    }


def _train(trainer: Any, watch: Watch) -> None:
    from transformers import PrinterCallback, TrainerCallback

    class Ticking(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.tick()

    trainer.add_callback(Ticking())
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def _tokens(texts: Sequence[Tokens]) -> int:
    """Return how many tokens of these texts are learned: all but the first of each."""
    return sum(len(text.ids) - 1 for text in texts)


def _tokenizer() -> Any:
    """Return a tokenizer that nothing is tokenised with; SFTTrainer wants one."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    special = dict(zip(("pad_token", "eos_token"), vocabulary := {"<pad>": 0, "<end>": 1}, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary)), **special)
