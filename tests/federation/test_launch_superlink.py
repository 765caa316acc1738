"""The SuperLink dies in the middle of a round."""

import signal
from pathlib import Path

from moehub.federation.journal import Aggregated, Began, RoundBegan
from tests.federation.launched import NODES, gathering, launched, result


def test_a_run_survives_its_superlink(base_folder: Path, tmp_path: Path) -> None:
    """It is started again on its database and its port; the round's trainings count, and the run goes on to its end."""
    file = gathering(tmp_path, base_folder, steps=30, nodes=list(NODES[1:]))
    with launched(file, tmp_path / "out", ["--json"]) as run:
        run.until(lambda: run.events(RoundBegan))
        killed = run.kill("superlink")
        code, out, err = run.finish()
    assert code == 0, err
    assert f"superlink ended with exit code {-signal.SIGKILL}; it is started again" in err
    assert killed not in {process.pid for process in run.seen.values() if process.is_running()}
    assert len(run.events(Began)) == 1
    rounds = [(event.domain, event.round, event.nodes) for event in run.events(Aggregated)
              if isinstance(event, Aggregated)]  # fmt: skip
    assert sorted(rounds) == [("code", 1, 1), ("code", 2, 1), ("law", 1, 1), ("law", 2, 1)]
    assert [each["domain"] for each in result(out)["experts"]] == ["code", "law"]
    assert run.left() == []
