import json
from pathlib import Path

import pytest
import torch

from moehub import base as bases
from moehub.errors import ExpertError, MergeError
from moehub.experts.statistics import Statistics, count
from moehub.hub import open_hub
from moehub.merge.entrance import admitted
from moehub.merge.lock import LOCK_FILE, read_lock
from moehub.merge.merging import Recipe, prepare, prepare_again
from moehub.merge.null import keep_null, make_null
from moehub.router.settings import RouterSettings
from tests.builders import tiny_expert
from tests.world import GENERIC, LAW, World

EVIDENCE = RouterSettings()


def counted(world: World, text: str) -> Statistics:
    """Return the counts of one text, from its tokens alone."""
    base = bases.find(str(world.base))
    tokenizer = base.load_tokenizer()
    ids = torch.tensor(tokenizer(text)["input_ids"])
    return count([ids], tokenizer=bases.tokenizer_digest(tokenizer), vocabulary=len(tokenizer), pair_bits=10)


def test_text_and_lines_count_alike(world: World, tmp_path: Path) -> None:
    """Plain text and JSON Lines of the same text make the same null expert, counted as experts are."""
    (tmp_path / "null.txt").write_text(GENERIC, encoding="utf-8")
    (tmp_path / "null.jsonl").write_text(json.dumps({"text": GENERIC}) + "\n", encoding="utf-8")
    base, like = bases.find(str(world.base)), [admitted(str(world.experts["law"]), hub=None, workspace=tmp_path)]
    plain, lines = (
        make_null(str(tmp_path / name), base, like=like, router=EVIDENCE).statistics
        for name in ("null.txt", "null.jsonl")
    )
    expected = counted(world, GENERIC)
    assert plain.unigrams.tolist() == lines.unigrams.tolist() == expected.unigrams.tolist()
    assert plain.pairs.tolist() == lines.pairs.tolist() == expected.pairs.tolist()
    assert plain.tokenizer == expected.tokenizer


def test_buckets_are_those_of_the_experts(world: World, tmp_path: Path) -> None:
    """The null counts into as many buckets as the experts do, into those of the default where nobody says."""
    base, like = bases.find(str(world.base)), [admitted(str(world.experts["law"]), hub=None, workspace=tmp_path)]
    beside = make_null(str(world.null), base, like=like, router=EVIDENCE)
    alone = make_null(str(world.null), base, like=[], router=EVIDENCE)
    assert (beside.statistics.pair_bits, alone.statistics.pair_bits) == (10, 16)
    assert (beside.statistics.triple_bits, alone.statistics.triple_bits) == (10, 18)


def test_a_folder_gives_what_it_holds(world: World, tmp_path: Path) -> None:
    """An expert's folder, and a MoE's with its null inside, serve as they are; others are explained."""
    base = bases.find(str(world.base))
    from_expert = make_null(str(world.experts["law"]), base, like=[], router=EVIDENCE)
    assert from_expert.statistics.unigrams.tolist() == counted(world, LAW * 30).unigrams.tolist()
    with prepare(Recipe(str(world.base), world.references("law"), str(world.null))) as prepared:
        prepared.write(tmp_path / "moe")
    from_moe = make_null(str(tmp_path / "moe"), base, like=[], router=EVIDENCE)
    assert from_moe.statistics.unigrams.tolist() == counted(world, GENERIC * 20).unigrams.tolist()
    (tmp_path / "empty").mkdir()
    with pytest.raises(MergeError, match="is a folder without"):
        make_null(str(tmp_path / "empty"), base, like=[], router=EVIDENCE)


def test_a_moe_keeps_its_null(world: World, tmp_path: Path) -> None:
    """What a MoE stores of its null is what it was merged with, and nothing where it has none."""
    for name, null in (("with", str(world.null)), ("without", None)):
        with prepare(Recipe(str(world.base), world.references("law"), null)) as prepared:
            prepared.write(tmp_path / name)
    kept = keep_null(tmp_path / "with", read_lock(tmp_path / "with" / LOCK_FILE))
    assert kept is not None
    assert kept.statistics.unigrams.tolist() == counted(world, GENERIC * 20).unigrams.tolist()
    assert keep_null(tmp_path / "without", read_lock(tmp_path / "without" / LOCK_FILE)) is None
    (tmp_path / "with" / "null" / "router_stats.safetensors").write_bytes(b"")
    with pytest.raises(ExpertError, match="holds no router statistics"):
        keep_null(tmp_path / "with", read_lock(tmp_path / "with" / LOCK_FILE))


def test_a_null_from_a_hub_is_locked_at_its_commit(world: World, tmp_path: Path) -> None:
    """Where the hub's expert is published anew, the lock still makes the MoE again from the old commit."""
    hub = open_hub(str(tmp_path / "hub"))
    first = hub.push(tiny_expert(tmp_path / "v1", world.base, name="prose", text=GENERIC), "acme/prose", message="1")
    recipe = Recipe(str(world.base), world.references("law"), "acme/prose")
    with prepare(recipe, hub=str(tmp_path / "hub")) as prepared:
        prepared.write(tmp_path / "moe")
    hub.push(tiny_expert(tmp_path / "v2", world.base, name="prose", text=LAW), "acme/prose", message="2")
    lock = read_lock(tmp_path / "moe" / LOCK_FILE)
    assert lock.null is not None
    assert lock.null.source == f"acme/prose@{first.commit}"
    with prepare_again(tmp_path / "moe" / LOCK_FILE, hub=str(tmp_path / "hub")) as prepared:
        assert prepared.plan.null is not None
        assert prepared.plan.null.sha256 == lock.null.sha256


def test_a_changed_null_is_not_the_locked_one(world: World, tmp_path: Path) -> None:
    """The lock pins the text's bytes: one more word, and merging again is refused."""
    null = tmp_path / "null.txt"
    null.write_text(GENERIC * 20, encoding="utf-8")
    with prepare(Recipe(str(world.base), world.references("law"), str(null))) as prepared:
        prepared.write(tmp_path / "moe")
    null.write_text(GENERIC * 20 + "more", encoding="utf-8")
    with (
        pytest.raises(MergeError, match=r"the null expert's .*null\.txt is not the one that was locked"),
        prepare_again(tmp_path / "moe" / LOCK_FILE),
    ):
        pass
