"""Tasks for a small node: a text file, a training of a few steps, and what the server sends with it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moehub import base as bases
from moehub.experts.settings import TrainConfig
from moehub.federation import weights
from moehub.federation.form import Form, form_of
from moehub.federation.messages import EvaluateTask, StatisticsTask, TrainTask
from moehub.federation.settings import NodeConfig
from moehub.federation.weights import Weights

ignore_peft = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
"""PEFT 0.21 asks transformers 5.23 for a property that was renamed."""


def small(**changes: Any) -> TrainConfig:
    """Return the settings of a small training."""
    given = {"rank": 2, "alpha": 4.0, "learning_rate": 1e-2, "context_length": 32, "batch_size": 2, "holdout": 0.2}
    return TrainConfig(**{**given, "targets": ("q_proj", "down_proj"), **changes})


def contributor(folder: Path, base: Path, **changes: Any) -> NodeConfig:
    """Return a contributor of forty sentences."""
    data = folder / "law.txt"
    if not data.exists():
        sentences = [f"the lessee shall pay {number} for the rent of {number * 7} rooms." for number in range(40)]
        data.write_text("<|endoftext|>".join(sentences))
    return NodeConfig(**{"domain": "law", "data": (data,), "base": str(base), **changes})


def form(base: Path, config: TrainConfig) -> Form:
    """Return the form of the adapters of `base`."""
    return form_of(bases.find(str(base)), config)


def start(base: Path, config: TrainConfig) -> Weights:
    """Return the adapter that a run begins with."""
    return weights.initial(form(base, config).shapes(config.rank), config.seed)


def moved(values: Weights, *, scale: float = 0.1, seed: int = 5) -> Weights:
    """Return an adapter as it could be after some rounds."""
    generator = np.random.default_rng(seed)
    return {name: (array + scale * generator.normal(size=array.shape)).astype("f4") for name, array in values.items()}


def training(base: Path, config: TrainConfig, **changes: Any) -> TrainTask:
    """Return the task of the first of three rounds of four steps."""
    given = {
        **_asked(base, config),
        "round": 1,
        "rounds": 3,
        "steps": 4,
        "frozen_a": True,
        "start": weights.digest(start(base, config)),
        "proximal": 0.0,
    }
    return TrainTask(**{**given, **changes})


def evaluation(base: Path, config: TrainConfig, **changes: Any) -> EvaluateTask:
    """Return the task of measuring an adapter."""
    given = {**_asked(base, config), "frozen_a": True, "start": weights.digest(start(base, config))}
    return EvaluateTask(**{**given, **changes})


def counting(base: Path, config: TrainConfig, **changes: Any) -> StatisticsTask:
    """Return the task of counting."""
    return StatisticsTask(**{**_asked(base, config), **changes})


def _asked(base: Path, config: TrainConfig) -> dict[str, Any]:
    pin = bases.find(str(base)).pin()
    return {
        "task": "0" * 64,
        "run": "run",
        "domain": "law",
        "base": pin.reference,
        "revision": "",
        "digest": pin.digest,
        "tokenizer": pin.tokenizer,
        "settings": json.dumps(dataclasses.asdict(config)),
    }
