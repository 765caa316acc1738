"""Good experts: trained as anybody would, on text of the installed packages, no two alike."""

import dataclasses
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moehub import files
from moehub.base import Base
from moehub.card import ADAPTER_CONFIG
from moehub.experts.examples import Text
from moehub.experts.folder import Expert, open_expert, seal
from moehub.experts.settings import TrainConfig
from moehub.experts.training import train

RANKS = (1, 2, 4, 8, 16, 32, 64)
TARGETS = (
    "all-linear",
    "q_proj,v_proj",
    "q_proj,k_proj,v_proj,o_proj",
    "gate_proj,up_proj,down_proj",
    "o_proj,down_proj",
)
LENGTHS = (60_000, 120_000, 250_000, 400_000)
"""Characters of text that one expert learns from."""


@dataclass(frozen=True)
class Recipe:
    """One expert to train."""

    name: str
    domain: str
    begin: float
    """Where its text begins among the domain's, as a share."""
    characters: int
    config: TrainConfig
    rslora: bool
    """Whether its scale is written as alpha/√r."""


def recipes(domains: Sequence[str], count: int, *, dtype: str, seed: int = 0) -> list[Recipe]:
    """Return as many recipes, the domains in turn, everything else drawn."""
    draw = random.Random(f"good experts {seed}")  # noqa: S311 (a benchmark's own drawing)
    made = []
    for number in range(count):
        domain, rank = domains[number % len(domains)], draw.choice(RANKS)
        # alpha / rank from 1/2 to 4, and the steps shorter where it is large.
        factor = draw.choice((0.5, 1.0, 2.0, 2.0, 4.0))
        config = TrainConfig(
            rank=rank,
            alpha=rank * factor,
            targets=draw.choice(TARGETS),
            learning_rate=draw.choice((4e-3, 6e-3, 9e-3)) / math.sqrt(factor / 2),
            max_steps=draw.choice((48, 64, 80)),
            batch_size=4,
            context_length=draw.choice((128, 256, 256)),
            schedule=draw.choice(("cosine", "linear", "constant")),
            dropout=draw.choice((0.0, 0.0, 0.1)),
            weight_decay=draw.choice((0.0, 0.01)),
            holdout=0.04,
            holdout_tokens=4_000,
            seed=number,
            suppress_below=draw.choice((0, 3, 3, 5)),
            features=draw.random() < 0.5,
            dtype=dtype,  # type: ignore[arg-type]
            license="apache-2.0",
            save_every=1_000_000,
        )
        made.append(
            Recipe(f"{domain}-{number:03}", domain, draw.random(), draw.choice(LENGTHS), config, draw.random() < 0.2)
        )
    return made


def make(recipe: Recipe, base: Base, texts: Mapping[str, Sequence[str]], output: Path) -> Expert:
    """Train one expert into the folder `output`."""
    documents = _part(texts[recipe.domain], recipe)
    examples = [Text(document, recipe.domain) for document in documents]
    expert = train(base, recipe.domain, examples, output, recipe.config, name=recipe.name)
    return _rank_stabilised(expert) if recipe.rslora else expert


def _part(documents: Sequence[str], recipe: Recipe) -> list[str]:
    """Return neighbouring documents, around the end to the first again, of the length that is asked for."""
    first, taken, length = int(recipe.begin * len(documents)), [], 0
    for offset in range(len(documents)):
        if length >= recipe.characters:
            break
        taken.append(documents[(first + offset) % len(documents)])
        length += len(taken[-1])
    return taken


def _rank_stabilised(expert: Expert) -> Expert:
    """Write the same scale as rank-stabilised LoRA does: alpha/√r."""
    path = expert.folder / ADAPTER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    alpha = config["lora_alpha"] / math.sqrt(config["r"])
    files.write_text(path, files.to_json({**config, "use_rslora": True, "lora_alpha": alpha}))
    seal(expert.folder, dataclasses.replace(expert.card, alpha=alpha))
    return open_expert(expert.folder)
