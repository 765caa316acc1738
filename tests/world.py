"""A base with three experts of different ranks and targets, and generic text."""

from dataclasses import dataclass, field
from pathlib import Path

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
