import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moehub import base as bases
from moehub.card import ADAPTER_WEIGHTS, Card
from moehub.errors import TrainingError
from moehub.experts import adaptation, statistics
from moehub.experts.folder import open_expert
from moehub.experts.publication import check_place, publish, versions
from tests.builders import tiny_expert
from tests.experts.trainings import settings


@pytest.fixture
def parts(base_folder: Path) -> dict[str, Any]:
    """Everything that a publication takes."""
    base = bases.find(str(base_folder))
    with adaptation.quiet():
        model = adaptation.adapt(base.load_model(dtype=torch.float32), settings())
    pin = base.pin()
    counted = statistics.count([torch.arange(20)], tokenizer=pin.tokenizer, vocabulary=300, pair_bits=8)
    targets = adaptation.targets(model)
    card = Card("law", "law", pin, 2, 32.0, targets, "mit", stages=(), metrics=None, files={})
    return {"weights": adaptation.state(model), "config": settings(), "statistics": counted, "card": card}


def test_published_expert_holds_what_was_given(tmp_path: Path, parts: dict[str, Any]) -> None:
    """Weights, statistics and card come back; the README is the card's."""
    expert = publish(tmp_path / "law", **parts)
    assert {name: one.tolist() for name, one in load_file(expert.folder / ADAPTER_WEIGHTS).items()} == {
        name: one.tolist() for name, one in parts["weights"].items()
    }
    assert torch.equal(expert.statistics().pairs, parts["statistics"].pairs)
    assert dataclasses.replace(expert.card, files={}) == parts["card"]
    assert "# law" in (expert.folder / "README.md").read_text()


def test_publication_replaces_in_one_step(
    tmp_path: Path, parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure in the middle leaves the old expert whole and nothing beside it."""
    publish(tmp_path / "law", **parts)
    parts["card"] = dataclasses.replace(parts["card"], version=2)
    monkeypatch.setattr("moehub.experts.publication.render_expert", _fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        publish(tmp_path / "law", **parts)
    monkeypatch.undo()
    assert open_expert(tmp_path / "law").card.version == 1
    assert [path.name for path in tmp_path.iterdir()] == ["law"]
    publish(tmp_path / "law", **parts)
    assert open_expert(tmp_path / "law").card.version == 2


def _fail(_: Card) -> str:
    raise RuntimeError("in the middle")


def test_weights_that_are_not_finite_are_not_published(tmp_path: Path, parts: dict[str, Any]) -> None:
    """One NaN anywhere in the adapter is enough."""
    name, weights = next((name, one) for name, one in parts["weights"].items() if "lora_B" in name)
    weights.data[0, 0] = torch.nan
    with pytest.raises(TrainingError, match=r"not finite.*lower learning_rate"):
        publish(tmp_path / "law", **parts)
    assert (list(tmp_path.iterdir()), "lora_B" in name) == ([], True)


def test_weights_are_stored_in_full_and_alone(tmp_path: Path, parts: dict[str, Any]) -> None:
    """No embedding and no base weight travels with the adapter."""
    publish(tmp_path / "law", **parts)
    weights = load_file(tmp_path / "law" / "adapter_model.safetensors")
    assert all("lora_A" in name or "lora_B" in name for name in weights)
    assert {one.dtype for one in weights.values()} == {torch.float32}


def test_place_decides_the_version(base_folder: Path, tmp_path: Path) -> None:
    """A new expert is version 1; one that replaces version 1 is version 2."""
    assert check_place(tmp_path / "new", overwrite=False) == 1
    tiny_expert(tmp_path / "old", base_folder)
    assert check_place(tmp_path / "old", overwrite=True) == 2


@pytest.mark.parametrize("damage", ["expert.json", "expert.json/"])
def test_place_of_a_damaged_expert_is_not_overwritten(base_folder: Path, tmp_path: Path, damage: str) -> None:
    """What cannot be read as an expert may be anything, so it stays."""
    tiny_expert(tmp_path / "old", base_folder)
    (tmp_path / "old" / "expert.json").write_text("{" if damage == "expert.json" else "[]")
    with pytest.raises(TrainingError, match="exists and is no expert"):
        check_place(tmp_path / "old", overwrite=True)


def test_versions_are_those_installed() -> None:
    """The card can say what an expert was trained with, also from a checkout that is not installed."""
    import moehub

    found = versions()
    assert found["torch"] == torch.__version__
    assert found["moehub"] == moehub.__version__
