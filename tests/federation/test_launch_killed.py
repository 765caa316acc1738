"""The command itself dies in the middle of a run."""

import signal
import sys
from pathlib import Path

import pytest

from moehub.federation.journal import Aggregated, Began, RoundBegan
from tests.federation.launched import NODES, gathering, launched, result


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent")
def test_a_killed_command_leaves_nothing_and_is_resumed(base_folder: Path, tmp_path: Path) -> None:
    """SIGKILL after the first round: every process ends by itself, and the second command goes on after that round."""
    file = gathering(tmp_path, base_folder, nodes=list(NODES[2:]))
    with launched(file, tmp_path / "out") as run:
        run.until(lambda: any(isinstance(event, RoundBegan) and event.round == 2 for event in run.events(RoundBegan)))
        run.look()
        run.command.kill()
        run.command.communicate(timeout=10)
        assert len(run.seen) >= 8
        assert run.left(seconds=10) == []
    with launched(file, tmp_path / "out", ["--resume", "--json"]) as again:
        code, out, err = again.finish()
    assert code == 0, err
    assert "going on after round 1" in err
    began = [event.after for event in again.events(Began) if isinstance(event, Began)]
    assert began == [0, 1]
    rounds = [(event.domain, event.round) for event in again.events(Aggregated) if isinstance(event, Aggregated)]
    assert sorted(rounds) == [("code", 1), ("code", 2)]
    assert [each["domain"] for each in result(out)["experts"]] == ["code"]
    assert again.left() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_a_stopped_command_leaves_nothing(base_folder: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Ctrl-C and SIGTERM while the nodes are starting."""
    file = gathering(tmp_path, base_folder)
    with launched(file, tmp_path / "out") as run:
        run.until(lambda: run.place.joinpath("logs", "node-2.log").exists())
        run.look()
        run.command.send_signal(number)
        done, _, _ = run.finish(60)
    assert done == code
    assert len(run.seen) > 6
    assert run.left() == []
