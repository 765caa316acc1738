"""Small MoEs to export: experts of the FFN alone, with the null expert; and one whose experts change attention."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from moehub.merge.load import Parts, load_parts
from moehub.merge.merging import Recipe, prepare
from moehub.router.settings import RouterSettings
from tests.builders import tiny_base, tiny_expert
from tests.world import CODE, GENERIC, LAW

FFN = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Small:
    """A MoE and what its gates can be made of."""

    folder: Path
    base: Path
    moe: Path
    texts: dict[str, tuple[Path, ...]]

    @property
    def parts(self) -> Parts:
        return load_parts(str(self.moe), base=None, hub_options={})


def make_small(
    folder: Path,
    *,
    architecture: str = "llama",
    targets: tuple[tuple[str, ...], tuple[str, ...]] = (FFN, FFN),
    null: bool = True,
    top_k: int = 2,
    retokenize: Callable[[Path], None] | None = None,
    dora: bool = False,
    **changes: Any,
) -> Small:
    """Merge two experts of ranks 4 and 6, perhaps DoRAs; `retokenize` may give the base another tokenizer."""
    base = tiny_base(folder / "base", architecture=architecture, **changes)
    if retokenize is not None:
        retokenize(base)
    texts = {"code": CODE * 30, "law": LAW * 30, "null": GENERIC * 30}
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    lora: dict[str, Any] = {"fan_in_fan_out": True} if architecture == "gpt2" else {}
    lora |= {"use_dora": True} if dora else {}
    experts = [
        tiny_expert(folder / name, base, name=name, rank=rank, targets=targets[at], text=texts[name], seed=rank, **lora)
        for at, (name, rank) in enumerate((("law", 4), ("code", 6)))
    ]
    recipe = Recipe(
        str(base),
        tuple(map(str, experts)),
        null=str(folder / "null.txt") if null else None,
        router=RouterSettings(top_k=top_k),
    )
    with prepare(recipe, top_k_was_asked_for=False) as prepared:
        prepared.write(folder / "moe")
    kept = texts if null else ("code", "law")
    return Small(folder, base, folder / "moe", {name: (folder / f"{name}.txt",) for name in kept})


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Two experts of the FFN and the null expert on a Llama."""
    return make_small(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="session")
def attentive(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """One expert of the FFN, and one that changes attention too, without a null expert."""
    return make_small(tmp_path_factory.mktemp("attentive"), targets=(FFN, (*FFN, "q_proj", "o_proj")), null=False)
