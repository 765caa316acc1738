"""The training loop: transformers' Trainer on packed rows, with our loss, our checkpoints and our progress bar."""

import contextlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainingArguments

from moehub.card import ADAPTER_WEIGHTS
from moehub.console import Advance, console, progress
from moehub.errors import TrainingError
from moehub.experts import adaptation, checkpoints
from moehub.experts.attention import by_text
from moehub.experts.batches import layout
from moehub.experts.checkpoints import Checkpoint
from moehub.experts.curves import Curves
from moehub.experts.evaluation import summed_loss
from moehub.experts.packing import Row
from moehub.experts.settings import TrainConfig
from moehub.experts.watch import OnStep, Watch

A = TypeVar("A", bound=TrainingArguments)


@dataclass(frozen=True)
class Span:
    """Which part of a longer training this one is: its learning rates are those of that part."""

    first: int
    """Steps before it."""
    total: int
    """Steps of the whole."""


_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def arguments(folder: Path, config: TrainConfig) -> TrainingArguments:
    """Return the Trainer's settings; it also finds out which of how many processes this one is."""
    return arguments_of(TrainingArguments, folder, config)


def arguments_of(kind: type[A], folder: Path, config: TrainConfig, **more: Any) -> A:
    """Return a trainer's settings of its own `kind`, with `more` of them."""
    accelerated = torch.accelerator.is_available()
    settings = kind(
        output_dir=str(folder),
        per_device_train_batch_size=config.batch_size // config.accumulation,
        gradient_accumulation_steps=config.accumulation,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=_SCHEDULES[config.schedule],
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip,
        seed=config.seed,
        activation_checkpointing=config.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if config.gradient_checkpointing else None,
        save_strategy="steps",
        save_steps=config.save_every,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        use_cpu=not accelerated,
        dataloader_num_workers=0,
        dataloader_pin_memory=accelerated,
        remove_unused_columns=False,
        label_names=["labels"],
        ddp_find_unused_parameters=False,
        **more,
    )
    settings._n_gpu = min(settings.n_gpu, 1)  # noqa: SLF001 (several devices: through `accelerate launch`)
    return settings


def first_process() -> bool:
    """Return whether this is the process that writes and speaks: the only one, or the first under a launcher."""
    return bool(launched().is_main_process)


def launched() -> PartialState:
    """Return what knows the processes that a launcher started, and can wait for all of them."""
    return PartialState(cpu=not torch.accelerator.is_available())


def steps(rows: int, config: TrainConfig, *, processes: int = 1) -> int:
    """Return the number of optimizer steps of a training."""
    if config.max_steps is not None:
        return config.max_steps
    batches = math.ceil(math.ceil(rows / (config.batch_size // config.accumulation)) / processes)
    return math.ceil(config.epochs * math.ceil(batches / config.accumulation))


def run(
    model: Any,
    rows: Sequence[Row],
    config: TrainConfig,
    settings: TrainingArguments,
    *,
    title: str,
    since: Checkpoint | None = None,
    on_step: OnStep | None = None,
    curves: Curves | None = None,
    span: Span | None = None,
    proximal: float = 0.0,
) -> Checkpoint:
    """Train the adapter of `model` on `rows`, from the checkpoint `since` where there is one.

    With a `span` this is a part of a longer training, and `rows` are taken in the order in which they are.
    `proximal` is FedProx's μ: each gradient gets μ·(w − w at the start) added (Li et al. 2020, section 3.2).

    Returns:
        The state at the end: steps taken, tokens learned and seconds spent, those before `since` included.

    Raises:
        TrainingError: the loss left the finite, or a disk or a memory is full; checkpoints are kept.
    """
    total = steps(len(rows), config, processes=settings.world_size)
    if since is not None and since.step >= total:
        return finished(model, since, curves)
    batches = layout(model, rows, config)
    settings.per_device_train_batch_size = config.batch_size // batches.parts
    settings.gradient_accumulation_steps = batches.parts
    length = sum(len(row.ids) for row in rows) / len(rows)
    with bar(title, total, settings) as advance, by_text(model) if batches.by_text else contextlib.nullcontext():
        watch = Watch(advance, since, on_step=on_step, curves=curves, step_tokens=length * config.batch_size)
        trainer = _Trainer(
            model=model,
            args=settings,
            train_dataset=rows,
            data_collator=batches.form,
            compute_loss_func=_mean_loss,
            callbacks=[watch],
            span=span,
            proximal=proximal,
        )
        return drive(trainer, watch, since)


def bar(title: str, total: int, settings: TrainingArguments) -> AbstractContextManager[Advance]:
    """Return a progress bar on the first process, and nothing to see on the others."""
    return progress(title, total) if settings.process_index == 0 else contextlib.nullcontext(_no_advance)


def finished(model: Any, since: Checkpoint, curves: Curves | None) -> Checkpoint:
    """Bring the model to where a training ended that was cut short before it was published."""
    adaptation.restore(model, load_file(since.path / ADAPTER_WEIGHTS))
    if curves is not None:
        curves.load(since.path)
    return since


def drive(trainer: Any, watch: Watch, since: Checkpoint | None) -> Checkpoint:
    """Train to the end, from the checkpoint `since` where there is one, and return where that is.

    Args:
        trainer: of transformers or TRL, with the watch among its callbacks; it counts tokens in `learned`.
        watch: sees what it does.
        since: where it goes on from.

    Raises:
        TrainingError: the training diverged, or a disk or a memory is full; checkpoints are kept.
    """
    watch.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    folder = Path(str(trainer.args.output_dir))
    try:
        with checkpoints.kept_when_full(folder):
            trainer.train(resume_from_checkpoint=str(since.path) if since is not None else None)
    except KeyboardInterrupt:
        console.print(f"interrupted: --resume goes on from the last checkpoint in {folder}", markup=False)
        raise
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the device has too little memory for this training: set a larger accumulation, "
            "gradient_checkpointing=true, or a smaller context_length, rank or batch_size"
        ) from error
    return watch.now(trainer.state.global_step)


class _Trainer(Trainer):
    """The Trainer, with a count of the tokens learned and without the one of floating-point operations."""

    learned = 0

    def __init__(self, *, span: Span | None, proximal: float, **everything: Any) -> None:
        super().__init__(**everything)
        self.span, self.proximal = span, proximal
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.anchors = [(parameter, parameter.detach().clone()) for parameter in trained] if proximal else []

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            self.learned += int(num_items_in_batch)
            for parameter, start in self.anchors:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - start.to(parameter.device), alpha=self.proximal)
        return loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.span is None:
            return super().create_scheduler(num_training_steps, optimizer)
        scheduler: Any = super().create_scheduler(self.span.total, optimizer)
        scheduler.lr_lambdas = [_later(share, self.span.first) for share in scheduler.lr_lambdas]
        # Its constructor set the rates of the first step of all.
        rates = [base * share(0) for base, share in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
        scheduler._last_lr = rates  # noqa: SLF001 (the Trainer logs these)
        for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        return scheduler

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.span is None:
            return super()._get_train_sampler(train_dataset)
        return SequentialSampler(self.train_dataset)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:  # noqa: ARG002 (the Trainer's signature)
        return 0


def _later(share: Callable[[int], float], first: int) -> Callable[[int], float]:
    return lambda step: share(first + step)


def _mean_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """Return this part's share of the mean over all learned tokens of the step, on all processes."""
    return summed_loss(outputs.logits, labels) / num_items_in_batch


def _no_advance(steps: int = 1, note: str = "") -> None:
    """Show nothing: another process does."""
