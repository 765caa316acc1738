import itertools
import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from moehub import files
from moehub.card import SIGNATURE_FILE
from moehub.errors import MergeError
from moehub.hub.parcel import MOE_SIGNATURE
from moehub.merge.assemble import CONFIG_FILE, ROUTER_FILE
from moehub.merge.lock import LOCK_FILE, read_lock
from moehub.merge.merging import Recipe, prepare, prepare_again, prepare_change, read_recipe
from moehub.router.settings import RouterSettings
from tests.builders import tiny_expert
from tests.world import World


def merge(world: World, output: Path, *names: str, method: str = "evidence", null: bool = True) -> Path:
    recipe = Recipe(
        base=str(world.base),
        experts=world.references(*names),
        null=str(world.null) if null else None,
        router=RouterSettings(method=method),
    )
    with prepare(recipe) as prepared:
        prepared.write(output)
    return output


def change(moe: Path, *, add: tuple[str, ...] = (), remove: tuple[str, ...] = ()) -> None:
    with prepare_change(moe, add=add, remove=remove) as changed:
        changed.write()


@pytest.mark.parametrize("method", ["evidence", "arrow"])
def test_every_order_gives_the_same_bytes(world: World, tmp_path: Path, method: str) -> None:
    """Whatever order the experts come in, the folder's bytes are the same."""
    digests = {
        files.tree_digest(merge(world, tmp_path / str(number), *order, method=method))
        for number, order in enumerate(itertools.permutations(world.experts))
    }
    assert len(digests) == 1


def test_a_hundred_random_orders_give_the_same_router(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`router.safetensors` and `config.json` of six experts are byte-identical in a hundred random orders."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # the disk's patience is not what is tested
    copies = [*many_experts(world, tmp_path, 3), *world.experts.values()]
    shuffled = random.Random(0)  # noqa: S311 (a test's own order)
    digests = set()
    for _ in range(100):
        shuffled.shuffle(copies)
        recipe = Recipe(base=str(world.base), experts=tuple(map(str, copies)), null=str(world.null))
        with prepare(recipe) as prepared:
            prepared.write(tmp_path / "moe")
        digests.add(tuple(files.sha256(tmp_path / "moe" / name) for name in (ROUTER_FILE, CONFIG_FILE)))
    assert len(digests) == 1


@pytest.mark.parametrize("method", ["evidence", "arrow"])
@pytest.mark.parametrize("null", [True, False], ids=["with null", "without null"])
@pytest.mark.parametrize("name", ["law", "code", "math"])
def test_removing_equals_never_having_had(world: World, tmp_path: Path, name: str, null: bool, method: str) -> None:
    """merge(S) − x and merge(S without x) have the same hash, for every x."""
    moe = merge(world, tmp_path / "moe", method=method, null=null)
    change(moe, remove=(name,))
    others = [other for other in world.experts if other != name]
    never = merge(world, tmp_path / "never", *others, method=method, null=null)
    assert files.tree_digest(moe) == files.tree_digest(never)


@pytest.mark.parametrize("method", ["evidence", "arrow"])
def test_adding_equals_merging_at_once(world: World, tmp_path: Path, method: str) -> None:
    """An expert that was added later leaves no trace of when it came."""
    moe = merge(world, tmp_path / "moe", "code", "law", method=method)
    change(moe, add=world.references("math"))
    assert files.tree_digest(moe) == files.tree_digest(merge(world, tmp_path / "at-once", method=method))


def test_adding_leaves_every_other_table_as_it_was(world: World, tmp_path: Path) -> None:
    """The other experts' tables are the same bytes before and after."""
    moe = merge(world, tmp_path / "moe", "code", "law")
    before = load_file(moe / ROUTER_FILE)
    change(moe, add=world.references("math"))
    after = load_file(moe / ROUTER_FILE)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name.split("/")[1] for name in after.keys() - before.keys()} == {"math"}


def test_tables_of_other_rules_are_made_anew(world: World, tmp_path: Path) -> None:
    """A MoE from before a setting that there is now does not mix old tables with new ones when it is changed."""
    moe = merge(world, tmp_path / "moe", "code", "law")
    config = json.loads((moe / CONFIG_FILE).read_text(encoding="utf-8"))
    del config["router"]["least_count"]
    files.write_text(moe / CONFIG_FILE, files.to_json(config))
    save_file({name: tensor * 2 for name, tensor in load_file(moe / ROUTER_FILE).items()}, moe / ROUTER_FILE)
    change(moe, add=world.references("math"))
    assert files.tree_digest(moe) == files.tree_digest(merge(world, tmp_path / "at-once"))


def many_experts(world: World, folder: Path, number: int) -> list[Path]:
    """Return experts of other names with the files of one."""
    card = (world.experts["law"] / "expert.json").read_text(encoding="utf-8")
    experts = []
    for index in range(number):
        name = f"law-{index:03d}"
        shutil.copytree(world.experts["law"], folder / name)
        (folder / name / "expert.json").write_text(card.replace('"name": "law"', f'"name": "{name}"'), encoding="utf-8")
        experts.append(folder / name)
    return experts


def test_adding_and_removing_at_a_hundred_experts_takes_under_a_second(world: World, tmp_path: Path) -> None:
    """With a hundred experts in the MoE, one more costs less than a second of CPU each way."""
    recipe = Recipe(
        base=str(world.base), experts=tuple(map(str, many_experts(world, tmp_path, 100))), null=str(world.null)
    )
    with prepare(recipe) as prepared:
        prepared.write(tmp_path / "moe")
    digest = files.tree_digest(tmp_path / "moe")
    begin = time.process_time()
    change(tmp_path / "moe", add=world.references("code"))
    added = time.process_time()
    change(tmp_path / "moe", remove=("code",))
    removed = time.process_time()
    assert added - begin < 1.0
    assert removed - added < 1.0
    assert files.tree_digest(tmp_path / "moe") == digest


def test_a_lock_makes_the_same_folder_again(world: World, tmp_path: Path) -> None:
    """`merge.lock` alone reproduces every byte."""
    moe = merge(world, tmp_path / "moe")
    with prepare_again(moe / LOCK_FILE) as prepared:
        prepared.write(tmp_path / "again")
    assert files.tree_digest(tmp_path / "again") == files.tree_digest(moe)


def test_a_lock_refuses_what_changed(world: World, tmp_path: Path) -> None:
    """An expert that was published anew under the same path is not the locked one."""
    tiny_expert(tmp_path / "expert", world.base, name="law", seed=1)
    recipe = Recipe(base=str(world.base), experts=(str(tmp_path / "expert"),))
    with prepare(recipe) as prepared:
        prepared.write(tmp_path / "moe")
    shutil.rmtree(tmp_path / "expert")
    tiny_expert(tmp_path / "expert", world.base, name="law", seed=99)
    with (
        pytest.raises(MergeError, match=r"'law' from .* is not the one that was locked"),
        prepare_again(tmp_path / "moe" / LOCK_FILE),
    ):
        pass


def test_a_lock_of_another_format_is_refused(tmp_path: Path) -> None:
    """A lock from the future says so."""
    (tmp_path / LOCK_FILE).write_text('{"format": 99}', encoding="utf-8")
    with pytest.raises(MergeError, match="format 99, expected 1: update moehub"):
        read_lock(tmp_path / LOCK_FILE)


def test_a_failed_change_leaves_the_folder_as_it_was(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up in the middle of a change loses nothing."""
    moe = merge(world, tmp_path / "moe", "code", "law")
    before = files.tree_digest(moe)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("moehub.merge.assemble.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        change(moe, add=world.references("math"))
    assert files.tree_digest(moe) == before
    assert [path.name for path in tmp_path.iterdir()] == ["moe"]


def test_a_change_leaves_no_link_to_what_it_replaced(world: World, tmp_path: Path) -> None:
    """After a change the old files are gone, and every file has one name again."""
    moe = merge(world, tmp_path / "moe")
    change(moe, remove=("law",))
    assert {os.stat(moe / name).st_nlink for name in files.files_below(moe)} == {1}  # noqa: PTH116 (link counts)


def test_a_change_drops_the_signature_of_what_it_replaced(world: World, tmp_path: Path) -> None:
    """It would not hold for the changed MoE; the signatures of the experts that stay do."""
    moe = merge(world, tmp_path / "moe", "code")
    signed = shutil.copytree(world.experts["law"], tmp_path / "law")
    (signed / SIGNATURE_FILE).write_text("by the publisher of law")
    change(moe, add=(str(signed),))
    (moe / MOE_SIGNATURE).write_text("by whoever published the MoE")
    change(moe, remove=("code",))
    assert not (moe / MOE_SIGNATURE).exists()
    assert (moe / "experts" / "law" / SIGNATURE_FILE).read_text() == "by the publisher of law"


def test_what_is_no_moe_is_never_overwritten(world: World, tmp_path: Path) -> None:
    """A folder of somebody's is refused as output, and kept."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(MergeError, match="exists and is no MoE"):
        merge(world, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text(encoding="utf-8") == "mine"


def test_removing_a_stranger_names_who_is_there(world: World, tmp_path: Path) -> None:
    """An expert that is not in the MoE cannot be removed."""
    moe = merge(world, tmp_path / "moe", "code", "law")
    with pytest.raises(MergeError, match="no expert 'physics' to remove, expected code, law"):
        change(moe, remove=("physics",))


def test_removing_the_last_expert_is_refused(world: World, tmp_path: Path) -> None:
    """A MoE without experts would be its base."""
    moe = merge(world, tmp_path / "moe", "law")
    with pytest.raises(MergeError, match="there is no expert"):
        change(moe, remove=("law",))


def test_an_embedded_base_is_copied(world: World, tmp_path: Path) -> None:
    """With embed_base the folder stands alone."""
    recipe = Recipe(base=str(world.base), experts=world.references("law"), embed_base=True)
    with prepare(recipe) as prepared:
        prepared.write(tmp_path / "moe")
    assert files.sha256(tmp_path / "moe" / "base" / "model.safetensors") == files.sha256(
        world.base / "model.safetensors"
    )


def test_a_recipe_is_read_from_yaml(tmp_path: Path) -> None:
    """A recipe file holds what the options say."""
    path = tmp_path / "merge.yaml"
    path.write_text("base: b\nexperts: [x, org/y]\nrouter: {kappa: 0.4, top_k: 1}\n", encoding="utf-8")
    assert read_recipe(path) == Recipe(base="b", experts=("x", "org/y"), router=RouterSettings(kappa=0.4, top_k=1))
