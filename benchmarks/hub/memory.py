"""The server's memory while a large file goes up and down.

    python -m benchmarks.hub memory [--gigabytes 5] [--xet-gigabytes 1] [--write]

Each row has a server of its own, and says the most that its process ever held (VmHWM). Goal: less than 150 MB.
"""

import argparse
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hub import clients, present, servers, where
from moehub.console import progress

_COLUMNS = ("what", "GB", "server's peak, MB", "s")
_TOGETHER = 4
_REPO = "bench/large"


@dataclass(frozen=True)
class Load:
    """Something large that a client does."""

    what: str
    gigabytes: float
    run: Callable[[str, Path, Path], float]
    """Takes the hub's address, the file and a folder to work in; returns seconds."""
    upload_first: bool = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table; `--write` puts it into RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=5)
    parser.add_argument("--xet-gigabytes", type=float, default=1)
    parser.add_argument("--folder", type=Path, help="where to work; it needs three times the space of the file")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args(arguments)
    machine = where()
    rows = measure(options.folder, options.gigabytes, options.xet_gigabytes)
    how = (
        "`python -m benchmarks.hub memory --write`: random bytes; the server's process alone, without a gate. "
        "MB are millions of bytes."
    )
    present("The hub: memory", _COLUMNS, rows, how=how, machine=machine, write=options.write)


def measure(folder: Path | None, gigabytes: float, xet_gigabytes: float) -> list[tuple[str, ...]]:
    """Return the rows of the table."""
    loads = (
        Load("nothing", 0, lambda *_: 0.0),
        Load("up, by the client", gigabytes, lambda url, file, _: clients.client_up(url, _REPO, file)),
        Load("down, by curl", gigabytes, lambda url, _, __: clients.curl_down(_stored(url)), upload_first=True),
        Load(f"down, {_TOGETHER} at once", gigabytes, _down_together, upload_first=True),
        Load("up through Xet", xet_gigabytes, lambda url, file, _: clients.client_up(url, _REPO, file, xet=True)),
    )
    rows = []
    with tempfile.TemporaryDirectory(dir=folder) as place, progress("measuring", len(loads)) as advance:
        file = clients.random_file(Path(place) / "file", int(gigabytes * 1e9))
        root = Path(place) / "kept"
        with servers.hub(root) as served:  # what is fetched was uploaded to another server, over the same root
            clients.new_repo(served.url, _REPO)
            clients.client_up(served.url, _REPO, file)
        for number, load in enumerate(loads):
            if load.what.endswith("Xet"):
                with file.open("r+b") as opened:
                    opened.truncate(int(load.gigabytes * 1e9))
            rows.append(_row(load, file, root if load.upload_first else Path(place) / f"hub-{number}", Path(place)))
            advance(1, load.what)
    return rows


def _row(load: Load, file: Path, root: Path, place: Path) -> tuple[str, ...]:
    with servers.hub(root) as served:
        if not load.upload_first:
            clients.new_repo(served.url, _REPO)
        seconds = load.run(served.url, file, place)
        return load.what, f"{load.gigabytes:g}", f"{served.memory() / 1e6:.0f}", f"{seconds:.0f}"


def _stored(url: str) -> str:
    return f"{url}/{_REPO}/resolve/main/model.safetensors"


def _down_together(url: str, _file: Path, _place: Path) -> float:
    found: list[float] = []
    threads = [threading.Thread(target=lambda: found.append(clients.curl_down(_stored(url)))) for _ in range(_TOGETHER)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(found) != _TOGETHER:
        raise SystemExit("a download failed: run the benchmark again")
    return max(found)


if __name__ == "__main__":
    main()
