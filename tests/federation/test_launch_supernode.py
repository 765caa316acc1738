"""A contributor's SuperNode dies in the middle of a round."""

from pathlib import Path

from moehub.federation.journal import Aggregated, Joined, Missing, RoundBegan
from tests.federation.launched import NODES, gathering, launched


def test_a_round_ends_without_a_node_that_died(base_folder: Path, tmp_path: Path) -> None:
    """At the deadline, named; the node is started again, joins under a new id, and the run goes on to its end."""
    file = gathering(tmp_path, base_folder, rounds=3, steps=30, deadline=25.0, quorum=0.5, nodes=list(NODES[:2]))
    with launched(file, tmp_path / "out", ["--json"]) as run:
        run.until(lambda: run.events(RoundBegan))
        run.kill("node-1")
        code, _, err = run.finish()
    assert code == 0, err
    assert "node-1 ended with exit code -9; it is started again" in err
    missing = [event for event in run.events(Missing) if isinstance(event, Missing) and event.round == 1]
    assert [event.domain for event in missing] == ["law"]
    assert "Secret Ltd (law) is missing in round 1" in err
    law = [event.nodes for event in run.events(Aggregated) if isinstance(event, Aggregated) and event.domain == "law"]
    assert (law[0], len(law)) == (1, 3)
    assert len([event for event in run.events(Joined) if isinstance(event, Joined) and event.domain == "law"]) == 3
    assert run.left() == []
