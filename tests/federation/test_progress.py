import dataclasses
import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from moehub.federation.deploy.names import Names, called
from moehub.federation.deploy.progress import Domain, Progress
from moehub.federation.deploy.wording import line
from moehub.federation.journal import (
    Aggregated,
    Began,
    Ended,
    Entry,
    Event,
    GaveUp,
    Joined,
    Missing,
    Published,
    Refused,
    Replied,
    RoundBegan,
)
from moehub.federation.settings import NodeConfig

BEGAN = Began("a1", "org/base", "ffa", 3, 0)
REPLIED = Replied(1, "north", "law", 500, 2.5, 3.0, 1000, 2000)
AGGREGATED = Aggregated(1, "law", 2, 2.25, 1000, 2000, 12.34)
COURSE: tuple[tuple[Event, str], ...] = (
    (BEGAN, "federation on org/base: 3 rounds of ffa"),
    (Began("a1", "org/base", "krum", 1, 2), "federation on org/base: 1 round of krum, going on after round 2"),
    (Joined("north", "law", "cpu"), "NORTH joined: law, on cpu"),
    (Refused(0, "north", "law", "it has another base"), "NORTH was refused: it has another base"),
    (Refused(2, "north", "law", "NaN"), "NORTH was refused in round 2: NaN"),
    (Missing(2, "north", "law", "late"), "NORTH (law) is missing in round 2: late"),
    (RoundBegan(1, {"law": 2, "code": 1}), "round 1: code 1 node, law 2 nodes"),
    (REPLIED, ""),
    (AGGREGATED, "round 1, law: 2 nodes, loss 2.2500, 3.0 kB, 12.3 s"),
    (dataclasses.replace(AGGREGATED, discarded=1e-9), "round 1, law: 2 nodes, loss 2.2500, 3.0 kB, 12.3 s"),
    (
        Aggregated(1, "law", 4, 2.25, 0, 0, 1.0, ("a", "b"), ("c",), 0.125, 1.5),
        (
            "round 1, law: 4 nodes, loss 2.2500, 0 bytes, 1.0 s, 2 clipped, left out: C, "
            "12.5% of the energy discarded, ε = 1.50"
        ),
    ),
    (GaveUp(2, "law", "no quorum"), "law gave up in round 2: no quorum"),
    (Published("law", "/x/law", 2, 5.0, 4.0, 100), "law is finished: held-out loss 5.0000 → 4.0000"),
    (Published("law", "/x/law", 2, None, None, 0), "law is finished"),
    (Ended(1, 60.0), "1 expert in 60.0 s"),
)


@pytest.mark.parametrize(("event", "text"), COURSE)
def test_each_event_is_one_line(event: Event, text: str) -> None:
    """Nodes are called as they are called here."""
    assert line(event, str.upper) == text


def test_every_kind_of_event_has_its_line() -> None:
    """Only a single reply says nothing: its round will."""
    kinds = {type(event) for event, _ in COURSE}
    assert kinds == set(Event.__args__)


def shown(*events: Event, terminal: bool) -> tuple[Progress, str]:
    """Return a progress after these events, and what was written meanwhile."""
    screen = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    progress = Progress(screen=screen)
    with progress:
        progress.now("starting")
        for event in events:
            progress.show(Entry(time.time(), event))
    assert isinstance(screen.file, io.StringIO)
    return progress, screen.file.getvalue()


def cells(progress: Progress) -> list[list[str]]:
    screen = Console(width=120, record=True, file=io.StringIO())
    screen.print(progress.table())
    return [row.split() for row in screen.export_text().splitlines()]


def test_off_a_terminal_each_event_is_a_plain_line() -> None:
    """As in a log file: no colours, no cursor movements."""
    _, text = shown(BEGAN, RoundBegan(1, {"law": 2}), REPLIED, AGGREGATED, terminal=False)
    assert text.splitlines() == [
        "starting",
        "federation on org/base: 3 rounds of ffa",
        "round 1: law 2 nodes",
        "round 1, law: 2 nodes, loss 2.2500, 3.0 kB, 12.3 s",
    ]


def test_on_a_terminal_a_table_is_redrawn() -> None:
    """And nothing else is printed; it is gone at the end, when the results come."""
    _, text = shown(BEGAN, RoundBegan(1, {"law": 2}), terminal=True)
    assert "\x1b[" in text
    assert "round 1: law 2 nodes" not in text


def test_before_anybody_joins_the_step_is_shown() -> None:
    """A person sees that something happens."""
    progress, _ = shown(terminal=True)
    assert cells(progress) == [["starting", "…"]]


def test_the_table_tells_how_far_each_domain_is() -> None:
    """Round, nodes that answered of those asked, last loss, bytes, seconds, state."""
    progress, _ = shown(
        *(BEGAN, Joined("north", "law", "cpu"), Joined("south", "law", "cpu"), Joined("east", "code", "cpu")),
        *(RoundBegan(1, {"law": 2, "code": 1}), REPLIED, REPLIED, AGGREGATED, RoundBegan(2, {"law": 2}), REPLIED),
        GaveUp(1, "code", "no quorum"),
        terminal=True,
    )
    assert cells(progress) == [
        ["domain", "round", "nodes", "loss", "carried", "seconds"],
        ["code", "1/3", "1", "0", "bytes", "0", "gave", "up"],
        ["law", "2/3", "1/2", "2.2500", "3.0", "kB", "0", "training"],
        ["code", "gave", "up", "in", "round", "1:", "no", "quorum"],
    ]


def test_a_finished_domain_keeps_the_seconds_of_its_last_round() -> None:
    """Running seconds stop."""
    progress, _ = shown(
        *(BEGAN, RoundBegan(1, {"law": 1}), REPLIED, AGGREGATED, Published("law", "/x", 1, 5.0, 4.0, 9)), terminal=True
    )
    assert cells(progress)[1] == ["law", "1/3", "1", "2.2500", "3.0", "kB", "12", "finished"]


def test_only_the_latest_problems_stay_on_the_screen() -> None:
    """A flood of them must not push the table out; off a terminal all are lines."""
    lost = [Missing(1, f"node-{number}", "law", "late") for number in range(20)]
    progress, _ = shown(BEGAN, *lost, terminal=True)
    assert [row[0] for row in cells(progress)[2:]] == [f"node-{number}" for number in range(14, 20)]
    assert shown(BEGAN, *lost, terminal=False)[1].count("is missing") == 20


def test_a_node_that_joins_late_changes_no_round() -> None:
    """It is asked from the next round on."""
    domain = Domain().asked(1, 2, 0.0).after(Entry(0.0, Joined("late", "law", "cpu")))
    assert domain.nodes == 2


def test_markup_in_what_others_say_is_text() -> None:
    """A node's reason cannot colour or break the screen."""
    progress, text = shown(BEGAN, Refused(0, "x", "", "[red]/[/red] [/nothing]"), terminal=False)
    assert "[red]/[/red] [/nothing]" in text
    assert cells(progress)[-1][-1] == "[/nothing]"


def test_nodes_are_called_as_on_their_machine(tmp_path: Path) -> None:
    """The journal knows one that agreed to no name by the first digits of Flower's id, which is in its log."""
    nodes = [NodeConfig("law", (Path("a"),), name="St Mary"), NodeConfig("code", (Path("b"),))]
    assert called(nodes) == ["St Mary", "node 2 (code)"]
    names = Names(dict(zip((tmp_path / "0.log", tmp_path / "1.log"), called(nodes), strict=True)))
    (tmp_path / "1.log").write_text("INFO: SuperNode ID: 1234567890\nINFO: SuperNode ID: 9876543210\n")
    labels = ["node-12345678", "node-98765432", "node-9876543210", "node-55555555", "north", "node-x"]
    assert [names(label) for label in labels] == [*["node 2 (code)"] * 3, "node-55555555", "north", "node-x"]
