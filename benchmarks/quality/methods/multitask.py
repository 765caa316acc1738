"""One LoRA on the text of all, of as many tokens as all experts together: what training in one place is worth.

As many steps of as many rows as all experts took together, once at the experts' rank and once at the sum of their
ranks (the same number of parameters). The learning rate is the experts' own or a lower one: each is tried for as many
steps as one expert has, and what does best on the texts for tuning is trained in full. What was trained is kept in the
world's folder, so that an interrupted run goes on from what is there.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import PeftModel

from benchmarks.quality import training
from benchmarks.quality.method import Method, Whole
from benchmarks.quality.methods.learned import shared_bytes
from benchmarks.quality.world import World
from moehub import files
from moehub.experts import adaptation
from moehub.experts.examples import Example
from moehub.experts.settings import TrainConfig
from moehub.experts.training import train

_LOWER = (1.0, 1 / 3, 1 / 10)
"""Parts of the experts' learning rate."""


def pool(world: World) -> list[Example]:
    """Return the text of all contributors."""
    return [example for name in world.names for example in world.examples(name)]


def settings(world: World, *, ranks: int) -> TrainConfig:
    """Return the training of one adapter of `ranks` times the experts' rank on the text of all."""
    own = world.setup.expert
    assert own.max_steps is not None  # noqa: S101 (the bench's setup says so)
    return replace(
        own,
        rank=own.rank * ranks,
        alpha=own.alpha * ranks,
        max_steps=own.max_steps * len(world.names),
        seed=world.seed,
    )


def adapter(world: World, folder: Path, examples: Sequence[Example], config: TrainConfig) -> Any:
    """Return the base with an adapter, trained where there is none in `folder` yet."""
    if not (folder / "expert.json").is_file():
        train(world.base, "multitask", examples, folder, config)
    with adaptation.quiet():
        model = world.base.load_model(dtype=world.moe.dtype)
        return PeftModel.from_pretrained(model, str(folder)).eval()


def make(world: World, *, ranks: int) -> Whole:
    """Choose the learning rate, and train one adapter of `ranks` times the experts' rank."""
    config, examples, texts = settings(world, ranks=ranks), pool(world), training.tuning(world)
    folder = world.folder / f"seed-{world.seed}" / "multitask" / f"rank-{config.rank}"
    kept = folder / "rates.json"
    if not kept.is_file():
        losses = {}
        for part in _LOWER:
            rate = config.learning_rate * part
            short = replace(config, learning_rate=rate, max_steps=world.setup.expert.max_steps)
            tried = Whole(adapter(world, folder / f"trial-{rate:.0e}", examples, short))
            losses[rate] = training.tune_loss(texts, tried)
        files.write_text(kept, json.dumps(losses))
    losses = {float(rate): loss for rate, loss in json.loads(kept.read_text(encoding="utf-8")).items()}
    rate = min(losses, key=lambda one: losses[one])
    entrant = Whole(adapter(world, folder / "adapter", examples, replace(config, learning_rate=rate)))
    entrant.bytes = shared_bytes(world)
    loss = training.tune_loss(texts, entrant)
    entrant.note = f"rank {config.rank}, rate {rate:.1e}; {config.max_steps} steps, tune loss {loss:.4f}"
    return entrant


SMALL = Method("multitask LoRA", "all text", False, lambda world: make(world, ranks=1))
LARGE = Method(
    "multitask LoRA, rank × experts", "all text", False, lambda world: make(world, ranks=len(world.names)), (0,)
)
