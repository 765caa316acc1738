"""A server that is killed, or whose disk is full, goes on where it was."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moehub.errors import FederationError
from moehub.experts.folder import open_expert
from moehub.federation.journal import Aggregated, Began, Journal, Replied
from moehub.federation.messages import Trained
from moehub.federation.server.checkpoint import Checkpoints
from moehub.federation.server.replies import Replies, Sender
from moehub.federation.server.state import Participant, Progress, State
from tests.federation.grid import Clock, FakeNode, LocalGrid
from tests.federation.runs import FORM, conduct, events, nodes, settings


class Killed(BaseException):
    """What is left of a process that was killed: nothing more is written, removed or renamed."""


class Fuse:
    """Kills the server at the n-th moment at which something reaches the disk or Flower."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.left = at
        self.whole = True
        for place, name in ((os, "fsync"), (Path, "replace"), (Path, "rename"), (LocalGrid, "pull_messages")):
            monkeypatch.setattr(place, name, self._guarded(getattr(place, name), counts=True))
        for place, name in ((shutil, "rmtree"), (Path, "unlink"), (LocalGrid, "push_messages")):
            monkeypatch.setattr(place, name, self._guarded(getattr(place, name), counts=False))

    def _guarded(self, real: Any, *, counts: bool) -> Any:
        def guarded(*arguments: Any, **options: Any) -> Any:
            self.left -= counts
            if self.left < 0:
                self.whole = False
                raise Killed
            return real(*arguments, **options)

        return guarded


def experts(output: Path) -> dict[str, bytes]:
    """Return every byte of the finished experts."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted((output / "experts").rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The experts of a run that nobody disturbed."""
    output = tmp_path_factory.mktemp("undisturbed")
    conduct(output, {**nodes(2), **nodes(1, domain="code", first=11)})
    return experts(output)


MOMENTS = range(0, 98, 3)
"""When the server is killed: spread over a whole run."""


@pytest.mark.parametrize("at", MOMENTS)
def test_a_killed_server_goes_on_to_the_same_experts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, bytes], at: int
) -> None:
    """Killed at any write, rename, flush or fetch and resumed, the run ends with the same experts, bit for bit."""
    members = {**nodes(2), **nodes(1, domain="code", first=11)}
    with monkeypatch.context() as patched:
        fuse = Fuse(patched, at)
        with pytest.raises(Killed):
            conduct(tmp_path, members)
        assert not fuse.whole
    conduct(tmp_path, members, resume=True)
    assert experts(tmp_path) == undisturbed
    asked = [node.asked["train"] for node in members.values() if isinstance(node, FakeNode)]
    assert sum(asked) <= 2 * len(members) + 3  # only those whose replies were being fetched are asked again


def test_the_moments_reach_to_the_end_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kills above are spread over a whole run: it has hardly more moments than those."""
    with monkeypatch.context() as patched:
        fuse = Fuse(patched, 10**6)
        conduct(tmp_path, {**nodes(2), **nodes(1, domain="code", first=11)})
    assert 0 <= 10**6 - fuse.left - max(MOMENTS) <= 20


def test_a_killed_server_does_not_ask_again_who_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a round it goes on from the replies that were kept."""
    members = nodes(3)
    real, kept = Replies.keep, list[Any]()

    def keep(self: Replies, *arguments: Any) -> Any:
        if len(kept) == 2:
            raise Killed
        kept.append(arguments)
        return real(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Replies, "keep", keep)
        with pytest.raises(Killed):
            conduct(tmp_path, members)
    conduct(tmp_path, members, resume=True)
    asked = [node.asked["train"] for node in members.values() if isinstance(node, FakeNode)]
    assert sorted(asked) == [2, 2, 3]
    assert [each.nodes for each in events(tmp_path, Aggregated)] == [3, 3]


def test_a_node_is_asked_the_same_again_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task has the same name, so a node answers from what it kept."""
    members = nodes(1)

    def killed(*_: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Replies, "keep", killed)
        with pytest.raises(Killed):
            conduct(tmp_path, members)
    conduct(tmp_path, members, resume=True)
    (node,) = members.values()
    assert isinstance(node, FakeNode)
    assert [task.round for task in node.tasks] == [1, 1, 2]
    assert node.tasks[0] == node.tasks[1]


def test_a_server_that_is_started_again_waits_for_the_nodes_that_are_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes that connect again one after the other all take part in the round that it goes on with."""
    with monkeypatch.context() as patched:
        Fuse(patched, 30)
        with pytest.raises(Killed):
            conduct(tmp_path, nodes(2))
    clock = Clock()
    grid = LocalGrid(nodes(1))
    clock.at(20, lambda: grid.join(1002, FakeNode(FORM, 2)))
    conduct(tmp_path, grid, resume=True, expected=2, clock=clock)
    assert [(each.round, each.nodes) for each in events(tmp_path, Aggregated)] == [(1, 2), (2, 2)]


def test_resuming_goes_on_after_the_last_round(tmp_path: Path) -> None:
    """A finished run with more rounds trains only those, and writes the next version."""
    conduct(tmp_path, nodes(2), settings(rounds=2))
    (expert,) = conduct(tmp_path, nodes(2), settings(rounds=3, deadline=50.0), resume=True)
    assert [each.after for each in events(tmp_path, Began)] == [0, 2]
    assert [each.round for each in events(tmp_path, Aggregated)] == [1, 2, 3]
    assert open_expert(expert).card.version == 2


def test_resuming_a_finished_run_does_nothing(tmp_path: Path) -> None:
    """It returns the experts, and no node is asked for anything but nothing."""
    before = conduct(tmp_path, nodes(2))
    members = nodes(2)
    assert conduct(tmp_path, members, resume=True) == before
    assert len(events(tmp_path, Replied)) == 4


def test_resuming_where_nothing_was_run_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says that there is nothing to go on with."""
    conduct(tmp_path, nodes(1), resume=True)
    assert "there is no run in" in capsys.readouterr().err


def test_another_run_is_not_resumed(tmp_path: Path) -> None:
    """Everything that differs is listed; what may change freely is not."""
    conduct(tmp_path, nodes(1))
    other = settings(rounds=5, deadline=7.0, quorum=0.9, retries=7, wait=1.0, steps=8, rank=4, context_length=None)
    with pytest.raises(FederationError, match="cannot be resumed") as caught:
        conduct(tmp_path, nodes(1), other, resume=True)
    listed = [line.strip(" -") for line in str(caught.value).splitlines()[1:]]
    assert listed == [
        "steps was 4, now it is 8",
        "train.context_length was 64, now it is None",
        "train.rank was 2, now it is 4",
    ]


def test_a_run_that_cannot_be_read_is_not_resumed(tmp_path: Path) -> None:
    """A damaged federation.json is named, with the cure."""
    conduct(tmp_path, nodes(1))
    (tmp_path / "federation.json").write_text("{")
    with pytest.raises(FederationError, match=r"cannot be read .*leave out --resume"):
        conduct(tmp_path, nodes(1), resume=True)


def state(lap: int) -> State:
    """Return a state with one domain in training and one that gave up."""
    participants = {"key": Participant("ada", "Ada", "sft", 12)}
    progress = Progress(done=lap, left_out=("key",), tokens=90, participants=participants)
    values = {"x.lora_B.weight": np.full((2, 3), lap, np.float32)}
    return State(lap, 1.5, {"law": progress, "code": Progress(gave_up="no nodes")}, {"law": values})


def test_checkpoints_come_back_as_they_were(tmp_path: Path) -> None:
    """All that a state says, and its weights to the bit; two checkpoints are kept."""
    checkpoints = Checkpoints(tmp_path)
    run = checkpoints.begin(settings(), FORM)
    for lap in (1, 2, 3):
        checkpoints.save(state(lap))
    name, found = checkpoints.resume(settings(), FORM) or ("", State())
    assert (name, found.lap, found.seconds, found.domains) == (run, 3, 1.5, state(3).domains)
    assert found.weights["law"]["x.lora_B.weight"].tobytes() == state(3).weights["law"]["x.lora_B.weight"].tobytes()
    assert sorted(path.name for path in (tmp_path / "rounds").iterdir()) == ["0002", "0003"]


@pytest.mark.parametrize("name", ["state.json", "law.safetensors"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, and the run goes on from the last whole one."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.begin(settings(), FORM)
    for lap in (1, 2):
        checkpoints.save(state(lap))
    (tmp_path / "rounds" / "0002" / name).write_bytes(b"{")
    _, found = checkpoints.resume(settings(), FORM) or ("", State())
    assert found.lap == 1
    assert "0002 is damaged" in capsys.readouterr().err


def test_a_run_without_any_whole_checkpoint_is_not_begun_anew_unasked(tmp_path: Path) -> None:
    """Rather than losing rounds silently, resuming is refused with the cure."""
    conduct(tmp_path, nodes(1))
    for path in (tmp_path / "rounds").glob("*/state.json"):
        path.write_text("{}")
    with pytest.raises(FederationError, match=r"no checkpoint in .* can be read: leave out --resume"):
        conduct(tmp_path, nodes(1), resume=True)


def test_a_reply_comes_back_as_it_was(tmp_path: Path) -> None:
    """Its task, sender, facts and arrays; one that was cut short is passed over and swept away."""
    replies, sender = Replies(tmp_path), Sender("1001", "node-1001", "Ada")
    facts = Trained("ab" * 32, "d", 2, 5, 6, "sft", 1.25, 0.5)
    kept = replies.keep(sender, facts, {"x": np.eye(2, dtype=np.float32)})
    (tmp_path / "cut.safetensors").write_bytes(kept.path.read_bytes()[:40])
    (found,) = replies.stored()
    assert (found.task, found.sender, found.facts(Trained)) == ("ab" * 32, sender, facts)
    assert (found.arrays()["x"] == np.eye(2)).all()
    replies.retain([found])
    assert list(tmp_path.iterdir()) == [kept.path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("at", [3, 12, 20, 30, 40, 50])
def test_a_full_disk_is_one_sentence_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, bytes], number: int, at: int
) -> None:
    """Wherever the disk is full, the run ends with the cure; resumed with space, it ends with the same experts."""
    members, real, left = {**nodes(2), **nodes(1, domain="code", first=11)}, os.fsync, [at]

    def full(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(FederationError, match="is full: free some space"):
            conduct(tmp_path, members)
    Journal(tmp_path).read()
    conduct(tmp_path, members, resume=True)
    assert experts(tmp_path) == undisturbed


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 512 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = shutil.which("mount")
    mounted = (
        command
        and not subprocess.run(
            [command, "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], check=False, capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("mounting a file system is not permitted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)  # noqa: S607 (found where mount was)


def test_a_really_full_disk_is_one_sentence_and_loses_nothing(tiny_disk: Path) -> None:
    """On a disk without room for the replies the run ends with the cure, and goes on when there is space."""
    members, config = nodes(2), settings(rank=64)
    filler = tiny_disk / "filler"
    filler.write_bytes(bytes(490_000))
    with pytest.raises(FederationError, match="is full: free some space"):
        conduct(tiny_disk, members, config)
    Journal(tiny_disk).read()
    filler.unlink()
    (expert,) = conduct(tiny_disk, members, config, resume=True)
    assert expert.name == "law"
