import dataclasses
import shutil
from pathlib import Path

import pytest

from moehub import files
from moehub.card import CARD_FILE, STATISTICS_FILE, read_card
from moehub.errors import ExpertError
from moehub.experts import folder as expert_folder
from moehub.experts.folder import Expert, open_expert
from tests.builders import tiny_expert


@pytest.fixture(scope="module")
def made(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_expert(tmp_path_factory.mktemp("experts") / "law", base_folder)


@pytest.fixture
def expert(made: Path, tmp_path: Path) -> Path:
    """An expert that may be damaged."""
    return Path(shutil.copytree(made, tmp_path / "law"))


def test_expert_is_opened_with_all_it_holds(expert: Path) -> None:
    """Card and statistics come from the folder."""
    opened = open_expert(expert)
    assert (opened.name, opened.folder) == ("law", expert)
    assert opened.statistics().tokenizer == opened.card.base.tokenizer


def test_all_faults_are_listed(expert: Path) -> None:
    """A changed file and a foreign one are told at once."""
    (expert / STATISTICS_FILE).write_bytes(b"other")
    (expert / "training_args.bin").touch()
    with pytest.raises(ExpertError) as caught:
        open_expert(expert)
    message = str(caught.value)
    assert f"{expert} is not the expert its card describes" in message
    assert ("training_args.bin does not belong" in message, f"{STATISTICS_FILE} was changed" in message) == (True, True)


def test_folder_without_card_is_no_expert(expert: Path) -> None:
    """An interrupted training leaves no card."""
    (expert / CARD_FILE).unlink()
    with pytest.raises(ExpertError, match="is no expert"):
        open_expert(expert)


def test_sealing_pins_every_file_but_card_and_readme(expert: Path) -> None:
    """What is pinned is what is there; a later change is found."""
    card = dataclasses.replace(open_expert(expert).card, version=2, files={})
    (expert / "README.md").write_text("# law")
    sealed = expert_folder.seal(expert, card)
    assert sealed == open_expert(expert).card
    assert sealed.files == {
        name: files.sha256(expert / name)
        for name in ("adapter_config.json", "adapter_model.safetensors", "router_stats.safetensors")
    }


def test_expert_without_statistics_says_what_to_do(expert: Path) -> None:
    """Other tools publish none; the sentence names the router that needs none."""
    (expert / STATISTICS_FILE).unlink()
    opened = Expert(expert, read_card(expert))
    with pytest.raises(ExpertError, match=f"has no {STATISTICS_FILE}: .*--router arrow"):
        opened.statistics()
