"""A base with three experts of different ranks and targets, and generic text."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import torch

from moehub import base as bases
from moehub.card import STATISTICS_FILE, read_card
from moehub.experts.features import recipe_for, sums
from moehub.experts.folder import seal
from moehub.experts.statistics import Statistics
from tests.builders import tiny_base, tiny_expert

LAW = "the court finds that the lessee shall pay the rent. "
CODE = "def add(a, b): return a + b. "
MATH = "12 + 30 = 42. "
GENERIC = "something generic in plain English, of no domain at all, that anybody might say. "


@dataclass(frozen=True)
class World:
    """Everything a merge needs."""

    base: Path
    null: Path
    experts: dict[str, Path]
    texts: dict[str, Path] = field(default_factory=dict)
    """Expert → text of its domain that it has not seen, where the experts are trained and not random."""

    def references(self, *names: str) -> tuple[str, ...]:
        return tuple(str(self.experts[name]) for name in names or self.experts)


def make_world(folder: Path) -> World:
    """Save a base, three experts and generic text in `folder`."""
    base = tiny_base(folder / "base")
    null = folder / "null.txt"
    null.write_text(GENERIC * 20, encoding="utf-8")
    experts = {
        "law": tiny_expert(folder / "law", base, name="law", text=LAW * 30, seed=1),
        "code": tiny_expert(
            folder / "code", base, name="code", rank=7, alpha=3, targets="all-linear", text=CODE * 30, seed=2
        ),
        "math": tiny_expert(
            folder / "math",
            base,
            name="math",
            rank=2,
            targets=("q_proj", "o_proj", "gate_proj"),
            text=MATH * 30,
            seed=3,
            use_rslora=True,
        ),
    }
    return World(base, null, experts)


def make_described_world(folder: Path) -> World:
    """Save a base, generic text, and three experts that publish sums of hidden states beside their counts."""
    base, null = tiny_base(folder / "base"), folder / "null.txt"
    null.write_text(GENERIC * 20, encoding="utf-8")
    found = bases.find(str(base))
    tokenizer, table = found.load_tokenizer(), found.load_model().get_input_embeddings().weight
    texts = {"law": LAW * 30, "code": CODE * 30, "math": MATH * 30}
    for seed, (name, text) in enumerate(texts.items()):
        expert = tiny_expert(folder / name, base, name=name, text=text, seed=seed)
        ids = torch.tensor(tokenizer(text)["input_ids"])
        counted = Statistics.load(expert / STATISTICS_FILE)
        summed = sums([ids], table, recipe_for(table.shape[1]))
        dataclasses.replace(counted, features=summed).save(expert / STATISTICS_FILE)
        seal(expert, read_card(expert))
    return World(base, null, {name: folder / name for name in texts})
