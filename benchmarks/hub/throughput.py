"""A file up and down: the hub against `cp` + sha256, and against nginx.

    python -m benchmarks.hub throughput [--megabytes 500] [--repeats 5] [--write]

All ways take turns, in one run, on files of random bytes that differ from turn to turn. Ratios are medians of the
ratios of one turn. Goals: up in twice the time of cp + sha256, down in 1.3 times the time of nginx.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.hub import clients, present, servers, where
from moehub.console import progress

_COLUMNS = ("way", "s, median [least, most]", "MB/s", "ratio, median [least, most]", "against")
_UP, _DOWN, _NOWHERE = "cp + fsync + sha256", "nginx, curl to a file", "nginx, curl to nowhere"
_AGAINST = {
    "up: curl": _UP,
    "up: client": _UP,
    "up: client, Xet": _UP,
    "down: curl to a file": _DOWN,
    "down: client": _DOWN,
    "down: curl to nowhere": _NOWHERE,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table; `--write` puts it into RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work: the disk that is measured")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args(arguments)
    machine = where()
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        turns = measure(Path(place), options.megabytes * 1_000_000, options.repeats)
    rows = [_row(way, turns, options.megabytes) for way in turns[0]]
    how = (
        f"`python -m benchmarks.hub throughput --write`: {options.megabytes} MB of random bytes, {options.repeats} "
        "turns, all ways in each. `cp` is followed by fsync, as the hub does before it answers; the client "
        "computes the sha256 too, before it sends."
    )
    present("The hub: throughput", _COLUMNS, rows, how=how, machine=machine, write=options.write)


def measure(place: Path, size: int, repeats: int) -> list[dict[str, float]]:
    """Return the seconds of every way, turn by turn."""
    root = place / "hub"
    with (
        servers.hub(root) as hub,
        servers.static(root / "blobs", place / "nginx") as nginx,
        progress("measuring", repeats) as advance,
    ):
        turns = []
        for number in range(repeats + 1):
            turns.append(_turn(place, size, hub.url, nginx.url, number))
            advance(int(number > 0), "warming up" if not number else "")
    return turns[1:]


def _turn(place: Path, size: int, hub: str, nginx: str, number: int) -> dict[str, float]:
    found = {_UP: _copied(clients.random_file(place / "plain", size))}
    for way in ("curl", "client", "client, Xet"):
        # Other bytes each time: the hub would not write the same ones again.
        file = clients.random_file(place / "up", size)
        repo = clients.new_repo(hub, f"bench/{way.replace(', ', '-').lower()}-{number}")
        found[f"up: {way}"] = _uploaded(hub, repo, file, way)
        if way == "client":
            stored = f"{hub}/{repo}/resolve/main/model.safetensors"
            sha256 = clients.sha256(file)
    blob = f"{nginx}/{sha256[:2]}/{sha256}"
    found[_DOWN] = clients.curl_down(blob, place / "down")
    found["down: curl to a file"] = clients.curl_down(stored, place / "down")
    found["down: client"] = clients.client_down(hub, f"bench/client-{number}", place / "cache")
    shutil.rmtree(place / "cache")
    found[_NOWHERE] = clients.curl_down(blob)
    found["down: curl to nowhere"] = clients.curl_down(stored)
    return found


def _uploaded(hub: str, repo: str, file: Path, way: str) -> float:
    if way != "curl":
        return clients.client_up(hub, repo, file, xet=way.endswith("Xet"))
    return clients.curl_up(clients.upload_address(hub, repo, clients.sha256(file), file.stat().st_size), file)


def _copied(file: Path) -> float:
    """Return the seconds that copying a file, putting it on disk and computing its sha256 takes."""
    copy = file.with_name("copy")
    started = time.perf_counter()
    shutil.copyfile(file, copy)
    with copy.open("rb") as written:
        os.fsync(written.fileno())
    clients.sha256(copy)
    return time.perf_counter() - started


def _row(way: str, turns: list[dict[str, float]], megabytes: int) -> tuple[str, ...]:
    seconds = [turn[way] for turn in turns]
    against = _AGAINST.get(way)
    ratios = [turn[way] / turn[against] for turn in turns] if against else None
    return (
        way,
        _spread(seconds),
        f"{megabytes / statistics.median(seconds):.0f}",
        _spread(ratios) if ratios else "",
        against or "",
    )


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


if __name__ == "__main__":
    main()
