import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from moehub import files
from moehub.errors import MergeError
from moehub.merge.lock import LOCK_FILE, read_lock
from moehub.merge.merging import Recipe, prepare, prepare_again
from moehub.merge.model import MoehubForCausalLM
from tests.merge.stacked import stacked
from tests.world import World


@pytest.fixture(scope="module")
def moe(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MoE of three experts."""
    folder = tmp_path_factory.mktemp("save") / "moe"
    with prepare(Recipe(base=str(world.base), experts=world.references())) as prepared:
        prepared.write(folder)
    return folder


@torch.no_grad()
def trained(moe: Path) -> MoehubForCausalLM:
    """Return the MoE with one expert changed."""
    model: MoehubForCausalLM = AutoModelForCausalLM.from_pretrained(moe, trainable=True)
    stacked(model, "model.layers.1.mlp.down_proj").A[model.names.index("law"), :2] += 0.5
    return model


def test_saving_in_place_keeps_everything(moe: Path, tmp_path: Path) -> None:
    """A MoE may be saved over itself: what was not changed stays byte for byte, what was is new."""
    place = shutil.copytree(moe, tmp_path / "moe")
    AutoModelForCausalLM.from_pretrained(place).save_pretrained(place)
    assert files.tree_digest(place) == files.tree_digest(moe)
    trained(place).save_pretrained(place)
    changed = {str(name) for name in files.files_below(moe) if files.sha256(moe / name) != files.sha256(place / name)}
    law = {"experts/law/expert.json", "experts/law/adapter_model.safetensors"}
    assert changed == {"config.json", "merge.lock", "README.md", *law}


def test_a_trained_expert_differs_where_it_was_trained(moe: Path, tmp_path: Path) -> None:
    """Only the touched rows of the one matrix are new, under the names and in the precision of the old."""
    trained(moe).save_pretrained(tmp_path / "saved")
    old, new = (load_file(one / "experts" / "law" / "adapter_model.safetensors") for one in (moe, tmp_path / "saved"))
    touched = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"
    assert old.keys() == new.keys()
    assert {name for name in old if not torch.equal(old[name], new[name])} == {touched}
    torch.testing.assert_close(new[touched][:2], old[touched][:2] + 0.5)
    assert torch.equal(new[touched][2:], old[touched][2:])


def test_the_lock_of_a_trained_moe_makes_it_again(moe: Path, tmp_path: Path) -> None:
    """The lock names the saved folder as the trained expert's source, and still makes the same MoE."""
    trained(moe).save_pretrained(tmp_path / "saved")
    locked = {one.name: one for one in read_lock(tmp_path / "saved" / LOCK_FILE).experts}
    assert locked["law"].source == str(tmp_path / "saved" / "experts" / "law")
    assert locked["code"] == next(one for one in read_lock(moe / LOCK_FILE).experts if one.name == "code")
    with prepare_again(tmp_path / "saved" / LOCK_FILE) as prepared:
        prepared.write(tmp_path / "again")
    for name in ("router.safetensors", "config.json", "merge.lock", "experts/law/adapter_model.safetensors"):
        assert files.sha256(tmp_path / "again" / name) == files.sha256(tmp_path / "saved" / name), name


def test_what_is_no_moe_is_never_overwritten(moe: Path, tmp_path: Path) -> None:
    """`save_pretrained` into a folder of somebody's refuses, and what was there stays."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(MergeError, match="exists and is no MoE"):
        trained(moe).save_pretrained(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text(encoding="utf-8") == "mine"


def test_an_empty_folder_may_be_filled(moe: Path, tmp_path: Path) -> None:
    """Trainers make the folder before they save into it."""
    (tmp_path / "checkpoint").mkdir()
    AutoModelForCausalLM.from_pretrained(moe).save_pretrained(tmp_path / "checkpoint")
    assert files.tree_digest(tmp_path / "checkpoint") == files.tree_digest(moe)


def test_cards_and_configuration_name_the_same_bytes(moe: Path, tmp_path: Path) -> None:
    """After training, configuration, lock and card agree about the expert."""
    trained(moe).save_pretrained(tmp_path / "saved")
    card = files.sha256(tmp_path / "saved" / "experts" / "law" / "expert.json")
    config = json.loads((tmp_path / "saved" / "config.json").read_text(encoding="utf-8"))
    assert {one["name"]: one["card"] for one in config["experts"]}["law"] == card
    assert {one.name: one.card for one in read_lock(tmp_path / "saved" / LOCK_FILE).experts}["law"] == card


@torch.no_grad()
def test_an_expert_that_diverged_is_not_saved(moe: Path, tmp_path: Path) -> None:
    """A value that is not finite would spoil every answer: the sentence names the expert, and nothing is written."""
    model = trained(moe)
    stacked(model, "model.layers.1.mlp.down_proj").A[model.names.index("law"), 0, 0] = float("nan")
    with pytest.raises(MergeError, match="'law' holds values that are not finite, so nothing was written"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
