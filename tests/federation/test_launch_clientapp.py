"""The process that Flower starts for a message dies in the middle of a round."""

from pathlib import Path

import psutil

from moehub.federation.journal import Aggregated, RoundBegan
from tests.federation.launched import NODES, Launched, gathering, launched


def client_apps(run: Launched) -> list[psutil.Process]:
    """Return the ClientApp processes that live now."""
    run.look()
    found = []
    for process in run.seen.values():
        try:
            if "flwr-clientapp" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_node_whose_client_app_died_is_asked_again(base_folder: Path, tmp_path: Path) -> None:
    """Flower says so after a while; the node answers from what its worker kept, and takes part in the round."""
    file = gathering(tmp_path, base_folder, rounds=1, steps=60, nodes=list(NODES[:2]))
    with launched(file, tmp_path / "out", ["--json"]) as run:
        run.until(lambda: run.events(RoundBegan))
        run.until(lambda: len(client_apps(run)) == 2)
        first, second = client_apps(run)
        first.kill()
        run.until(lambda: {process.pid for process in client_apps(run)} - {first.pid, second.pid})
        assert run.events(Aggregated) == []
        code, _, err = run.finish()
    assert code == 0, err
    assert [event.nodes for event in run.events(Aggregated) if isinstance(event, Aggregated)] == [2]
    assert run.left() == []
