"""What a node does for each kind of task, with the parts that train any expert. Nothing here knows of Flower."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moehub import config as settings_files
from moehub.console import console
from moehub.errors import FederationError, TrainingError
from moehub.experts import adaptation, checkpoints, counting, loop
from moehub.experts.checkpoints import Checkpoint
from moehub.experts.evaluation import evaluate_loss
from moehub.experts.loop import Span
from moehub.experts.packing import Row
from moehub.experts.settings import TrainConfig
from moehub.federation import messages
from moehub.federation.messages import (
    Arrays,
    Asked,
    Counted,
    Evaluated,
    EvaluateTask,
    StatisticsTask,
    Trained,
    TrainTask,
)
from moehub.federation.node import adapter, device
from moehub.federation.node.memory import Memory
from moehub.federation.settings import NodeConfig


def perform(
    kind: str, task: Any, arrays: Arrays, contributor: NodeConfig, folder: Path, memory: Memory
) -> tuple[Any, Arrays]:
    """Return the reply's facts and arrays; a training that was interrupted in `folder` goes on.

    Raises:
        MoehubError: the base, the text, the settings or what was sent do not fit, or the training diverged.
    """
    with adaptation.quiet():
        if kind == messages.TRAIN:
            return train(task, arrays, contributor, folder, memory)
        if kind == messages.EVALUATE:
            return evaluate(task, arrays, contributor, memory)
        return statistics(task, contributor, memory)


def train(
    task: TrainTask, arrays: Arrays, contributor: NodeConfig, folder: Path, memory: Memory
) -> tuple[Trained, Arrays]:
    """Train from the weights that were sent, on this round's share of the text."""
    asked = _settings(task)
    config = _own(asked, task, contributor)
    loaded = memory.base(task, contributor, config)
    text = memory.text(loaded, contributor, config)
    with loaded.on(device.here()) as base:
        rows, _ = text.rows(join=loaded.joins)
        with adapter.on(base, config, frozen_a=task.frozen_a) as model:
            adapter.put(model, adapter.cut(_sent(task, arrays, model, asked), config.rank))
            done = _run(model, rows, task, contributor, config, folder)
            learned = adapter.taken(model, frozen_a=task.frozen_a)
    facts = Trained(
        task=task.task,
        digest=task.digest,
        rank=config.rank,
        tokens=done.tokens,
        examples=len(text.material.documents),
        kind=text.material.kind,
        loss=done.nats / done.tokens,
        seconds=done.seconds,
    )
    return facts, learned


def evaluate(task: EvaluateTask, arrays: Arrays, contributor: NodeConfig, memory: Memory) -> tuple[Evaluated, Arrays]:
    """Measure the base, without and with what was sent, on what is held out."""
    config = _settings(task)
    loaded = memory.base(task, contributor, config)
    text = memory.text(loaded, contributor, config)
    with loaded.on(device.here()) as base:
        _, rows = text.rows(join=loaded.joins)
        console.print(f"evaluating {task.domain} on {len(rows):,} held-out rows", markup=False)
        with adapter.on(base, config) as model:
            adapter.put(model, _sent(task, arrays, model, config))
            expert_loss, tokens = evaluate_loss(model, rows)
        base_loss, _ = evaluate_loss(base, rows)
    if not tokens:
        base_loss = expert_loss = 0.0
    return Evaluated(task.task, task.digest, base_loss, expert_loss, tokens), {}


def statistics(task: StatisticsTask, contributor: NodeConfig, memory: Memory) -> tuple[Counted, Arrays]:
    """Count the tokens, pairs and triples of what is trained on; the stronger of the two suppressions holds."""
    asked = _settings(task)
    if asked.private:
        raise FederationError("the task asks for counts with noise, which a federation does not add: leave private out")
    config = dataclasses.replace(asked, suppress_below=max(asked.suppress_below, contributor.suppress_below))
    loaded = memory.base(task, contributor, config)
    text = memory.text(loaded, contributor, config)
    console.print(f"counting {task.domain}: {len(text.material.documents):,} examples", markup=False)
    embedding = loaded.model.get_input_embeddings().weight if config.features else None
    counted = counting.count(text.material.documents, config, task.tokenizer, len(loaded.tokenizer), embedding)
    facts, arrays = counted.to_arrays()
    recipe, features = str(facts.pop("features.recipe", "")), int(facts.pop("features.count", 0))
    said = {"triple_bits": counted.triple_bits, **facts}
    return Counted(task.task, task.digest, recipe=recipe, features=features, **said), arrays


def _run(
    model: Any, rows: Sequence[Row], task: TrainTask, contributor: NodeConfig, config: TrainConfig, folder: Path
) -> Checkpoint:
    size = config.batch_size * task.steps
    part = share(len(rows), (task.round - 1) * size, size, config.seed)
    # Each round drops out anew.
    config = dataclasses.replace(config, seed=(config.seed + task.round - 1) % 2**32)
    return loop.run(
        model,
        [rows[index] for index in part],
        config,
        loop.arguments(folder, config),
        title=f"round {task.round}/{task.rounds}: training {task.domain} on {len(rows):,} rows",
        since=_since(folder, task, contributor, config),
        span=Span((task.round - 1) * task.steps, task.rounds * task.steps),
        proximal=task.proximal,
    )


def share(rows: int, first: int, size: int, seed: int) -> list[int]:
    """Return places `first` to `first + size` in an endless sequence that goes through all rows again and again.

    Each pass has an order of its own, which `seed` decides.
    """
    passes = range(first // rows, -(-(first + size) // rows))
    order = np.concatenate([np.random.default_rng([seed, one]).permutation(rows) for one in passes])
    begin = first - passes[0] * rows
    return [int(index) for index in order[begin : begin + size]]


def _settings(task: Asked) -> TrainConfig:
    try:
        values = json.loads(task.settings)
    except ValueError as error:
        raise FederationError(f"the task's settings are no JSON ({error}): update moehub on both sides") from error
    return settings_files.from_mapping(TrainConfig, values, source="the task's settings")


def _own(asked: TrainConfig, task: TrainTask, contributor: NodeConfig) -> TrainConfig:
    """Return the settings of this node's training: what it must differ in is decided by the contributor."""
    if not 1 <= task.round <= task.rounds or not 0 <= task.proximal < float("inf"):
        raise FederationError(
            f"the task is round {task.round} of {task.rounds} with proximal = {task.proximal}, expected a round "
            "from 1 on and 0 or more: update moehub on both sides"
        )
    rank = min(contributor.rank or asked.rank, asked.rank)
    if rank != asked.rank and task.frozen_a:
        raise FederationError(
            f"this node trains with rank {rank}, but the federation freezes A at rank {asked.rank}: "
            "leave out the node's rank, or let the federation aggregate with product"
        )
    return dataclasses.replace(
        asked,
        rank=rank,
        alpha=asked.alpha * rank / asked.rank,
        max_steps=task.steps,
        accumulation=contributor.accumulation or asked.accumulation,
        gradient_checkpointing=contributor.gradient_checkpointing or asked.gradient_checkpointing,
    )


def _sent(task: TrainTask | EvaluateTask, arrays: Arrays, model: Any, asked: TrainConfig) -> Arrays:
    return adapter.received(
        arrays, adapter.shapes(model, asked.rank), frozen_a=task.frozen_a, seed=asked.seed, start=task.start
    )


def _since(folder: Path, task: TrainTask, contributor: NodeConfig, config: TrainConfig) -> Checkpoint | None:
    """Return the checkpoint to go on from; where there is none of this very training, make the folder new."""
    run = {
        **checkpoints.fingerprint(base=task.digest, examples=_stamps(contributor.data), config=config, processes=1),
        "task": task.task,
    }
    try:
        found = checkpoints.last(folder, run)
    except TrainingError:
        found = None
    if found is None:
        checkpoints.begin(folder, run)
    return found


def _stamps(files: Sequence[Path]) -> list[str]:
    return [f"{path} {path.stat().st_mtime_ns}" for path in files]
