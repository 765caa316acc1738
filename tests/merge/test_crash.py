"""A process that is killed in the middle of a change leaves the old MoE or the new one, never a mixture."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from moehub import files
from moehub.merge.merging import Recipe, prepare, prepare_change
from tests.world import World


@pytest.fixture
def moe(world: World, tmp_path: Path) -> Path:
    """A MoE of two experts in a folder of its own."""
    with prepare(Recipe(str(world.base), world.references("code", "law"), str(world.null))) as prepared:
        prepared.write(tmp_path / "place" / "moe")
    return tmp_path / "place" / "moe"


@pytest.mark.skipif(sys.platform != "linux", reason="folders are exchanged in one step on Linux only")
def test_a_killed_change_leaves_the_old_or_the_new(world: World, moe: Path, tmp_path: Path) -> None:
    """Killed at any point of `--into --add`, the folder's digest is that before or that after, and both occur."""
    (tmp_path / "workspace").mkdir()
    arguments = map(str, (moe, world.experts["math"], tmp_path / "workspace"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.merge.killed_change", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    told = json.loads(done.stdout)
    before, after, outcomes = told["before"], told["after"], told["outcomes"]
    assert told["ended"] == 0
    assert before != after
    assert {died for _, died, _ in outcomes} == {-signal.SIGKILL}
    switched = [{before: False, after: True}[digest] for _, _, digest in outcomes]
    assert set(switched) == {False, True}
    assert switched == sorted(switched)  # once it is the new one, it stays the new one


def test_what_a_killed_change_left_behind_disturbs_nobody(world: World, moe: Path) -> None:
    """A half built folder beside the MoE is neither read nor taken for it by the next change."""
    (moe.parent / ".moe.left0ver" / "experts").mkdir(parents=True)
    before = files.tree_digest(moe)
    with prepare_change(moe, add=world.references("math")) as change:
        change.write()
    with prepare_change(moe, remove=("math",)) as change:
        change.write()
    assert files.tree_digest(moe) == before
    assert (moe.parent / ".moe.left0ver" / "experts").is_dir()
