"""Many writers of one repo at once, through HTTP.

    python -m benchmarks.hub writers [--writers 50] [--repeats 5] [--write]

Each is a process's thread with a connection of its own that commits a file of its own: once without naming a parent, so
that all are to land one after the other; and once all naming the same parent, so that one is to win and the others are
to be told.
"""

import argparse
import base64
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hub import clients, present, servers, where
from moehub.console import progress

_COLUMNS = ("writers", "made", "told that they are late", "lost", "s for all", "ms a commit, median", "ms, most")
_STALE = 412
_MOST = 500
"""Commits that the hub lists at once."""


@dataclass(frozen=True)
class Turn:
    """What came of one turn."""

    statuses: tuple[int, ...]
    seconds: float
    each: tuple[float, ...]
    lost: int
    """Commits that were said to be made and are not in the history."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table; `--write` puts it into RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=50, choices=range(1, _MOST), metavar="N")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args(arguments)
    machine = where()
    rows = []
    with (
        tempfile.TemporaryDirectory() as place,
        servers.hub(Path(place) / "hub") as served,
        progress("measuring", 2 * options.repeats) as advance,
    ):
        for named in (False, True):
            turns = []
            for number in range(options.repeats):
                repo = clients.new_repo(served.url, f"bench/{'named' if named else 'free'}-{number}")
                turns.append(_turn(served.url, repo, options.writers, named=named))
                advance()
            rows.append(_row(options.writers, turns, named=named))
    how = (
        f"`python -m benchmarks.hub writers --write`: {options.repeats} turns of a kind, each with its own repo; "
        "counts are of all turns, seconds medians over turns."
    )
    present("The hub: many writers", _COLUMNS, rows, how=how, machine=machine, write=options.write)


def _turn(url: str, repo: str, writers: int, *, named: bool) -> Turn:
    parent = clients.asked(url, "GET", f"/api/models/{repo}")["sha"] if named else None
    ready = threading.Barrier(writers)
    made: list[tuple[int, float, str]] = []

    def write(number: int) -> None:
        lines = [
            {"key": "header", "value": {"summary": f"Writer {number}", "parentCommit": parent}},
            {"key": "file", "value": {"path": f"{number}.txt", "content": base64.b64encode(b"%d" % number).decode()}},
        ]
        body = "\n".join(json.dumps(line) for line in lines)
        with clients.session() as session:
            session.get(f"{url}/api/models/{repo}")
            ready.wait()
            started = time.perf_counter()
            answer = session.post(f"{url}/api/models/{repo}/commit/main", content=body)
            made.append((answer.status_code, time.perf_counter() - started, answer.json().get("commitOid", "")))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if len(made) != writers:
        raise SystemExit(f"{writers - len(made)} writers got no answer: run the benchmark again")
    history = {each["id"] for each in clients.asked(url, "GET", f"/api/models/{repo}/commits/main?limit={_MOST}")}
    lost = sum(status == 200 and oid not in history for status, _, oid in made)
    return Turn(tuple(status for status, *_ in made), seconds, tuple(each for _, each, _ in made), lost)


def _row(writers: int, turns: list[Turn], *, named: bool) -> tuple[str, ...]:
    statuses = [status for turn in turns for status in turn.statuses]
    strange = sorted(set(statuses) - {200, _STALE})
    if strange:
        raise SystemExit(f"the hub answered {strange}, expected 200 or {_STALE}: see what it logs")
    each = [seconds * 1000 for turn in turns for seconds in turn.each]
    return (
        f"{writers}, {'one parent' if named else 'no parent'}",
        str(statuses.count(200)),
        str(statuses.count(_STALE)),
        str(sum(turn.lost for turn in turns)),
        f"{statistics.median(turn.seconds for turn in turns):.2f}",
        f"{statistics.median(each):.0f}",
        f"{max(each):.0f}",
    )


if __name__ == "__main__":
    main()
