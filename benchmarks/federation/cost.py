"""What a round costs: bytes against the least there can be, seconds against a round in which nobody does anything.

    python -m benchmarks.federation cost [--nodes 5 --nodes 20] [--rounds 4] [--write]

Real processes on loopback, started by `moehub federate up`: SuperLink, SuperExec, a SuperNode for each contributor, one
worker. The base is a small Llama with random weights, the text is Python's standard library. The floor is a Flower App
that sends empty messages through the same processes. Bytes are the SuperLink's own count of what it sent and received;
the least is each round's B from every node and, once aggregated, to every node, and the router statistics.
Memory is the most that SuperLink and ServerApp held at any look.
"""

import argparse
import contextlib
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import tomli_w
import yaml
from rich.table import Table

from benchmarks.federation import where
from benchmarks.road import keep
from moehub import base as bases
from moehub.console import console, results
from moehub.demo import sources
from moehub.experts.folder import open_expert
from moehub.experts.settings import TrainConfig
from moehub.federation import weights
from moehub.federation.deploy import services
from moehub.federation.deploy.processes import Processes
from moehub.federation.form import form_of
from moehub.federation.journal import Aggregated, Journal, Replied
from tests.builders import tiny_base

_TITLE = "The federation's cost"
_CHARACTERS = 20_000
"""Of text for each contributor."""
_RANK = 16
_PROGRAMS = {"SuperLink": "flower-superlink", "ServerApp": "flwr-serverapp"}


@dataclass
class Watch:
    """What was seen of a run's processes."""

    peak: dict[str, int] = field(default_factory=dict)
    """Program → most bytes of memory."""
    sent: int = 0
    received: int = 0

    def look(self, parent: psutil.Process, database: Path) -> None:
        """Look once."""
        for process in parent.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                words = " ".join(process.cmdline())
                for name, program in _PROGRAMS.items():
                    if program in words:
                        self.peak[name] = max(self.peak.get(name, 0), process.memory_info().rss)
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as file,
        ):
            self.sent, self.received = file.execute("SELECT sum(bytes_sent), sum(bytes_recv) FROM run").fetchone()


@dataclass(frozen=True)
class Cost:
    """What one federation took."""

    nodes: int
    rounds: list[float]
    """Seconds of each."""
    training: list[float]
    """Seconds that all nodes together trained in each round: they take turns at one device."""
    floor: list[float]
    """Seconds of rounds in which nothing is done."""
    carried: int
    """Bytes that the SuperLink sent and received, in the whole run."""
    least: int
    """Bytes that had to travel, in the whole run."""
    peak: dict[str, int]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and keep it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, action="append", help="contributors; repeat it  [default: 5 and 20]")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args(arguments)
    found = []
    for count in options.nodes or [5, 20]:
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(Path(folder), count, options.rounds))
        console.print(str(found[-1]), markup=False)
    results.print(_table(found))
    if options.write:
        keep(_TITLE, _section(found))


def measure(folder: Path, count: int, rounds: int) -> Cost:
    """Run a federation of `count` contributors, and as many rounds of nothing."""
    base = tiny_base(folder / "base", hidden_size=512, intermediate_size=1024, num_hidden_layers=4, head_dim=128)
    file = _gathering(folder, base, count, rounds)
    output = folder / "out"
    watch = Watch()
    command = [sys.executable, "-m", "moehub", "federate", "up", "--nodes", str(file), "--output", str(output)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:  # noqa: S603 (our own command line)
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                watch.look(parent, output / ".flower" / "state.db")
            time.sleep(0.25)
    events = [entry.event for entry in Journal(output).entries()]
    replied = [event for event in events if isinstance(event, Replied)]
    return Cost(
        count,
        [event.seconds for event in events if isinstance(event, Aggregated)],
        [sum(each.seconds for each in replied if each.round == number) for number in range(1, rounds + 1)],
        _floor(folder / "floor", count, rounds),
        watch.sent + watch.received,
        _least(base, output, count, rounds),
        watch.peak,
    )


def _gathering(folder: Path, base: Path, count: int, rounds: int) -> Path:
    texts = sources.python()
    nodes = []
    for number in range(count):
        taken = ""
        while len(taken) < _CHARACTERS:
            taken += next(texts)
        data = folder / f"{number}.txt"
        data.write_text(taken, encoding="utf-8")
        nodes.append({"domain": "python", "data": data.name})
    train = {"rank": _RANK, "batch_size": 2, "context_length": 128}
    values = {"base": str(base), "rounds": rounds, "steps": 2, "train": train, "nodes": nodes}
    (folder / "nodes.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder / "nodes.yaml"


def _least(base: Path, output: Path, count: int, rounds: int) -> int:
    """Return the bytes that cannot be avoided: each round's B down and up, and every node's statistics."""
    shapes = form_of(bases.find(str(base)), TrainConfig(rank=_RANK)).shapes(_RANK)
    adapter = weights.size(weights.trained(weights.initial(shapes, 0), frozen_a=True))
    # Each node's counts are at most as many as those of all together.
    counted = (open_expert(output / "experts" / "python").folder / "router_stats.safetensors").stat().st_size
    # The first B is zero, so it need not travel; the last one travels to be measured.
    return count * (adapter * 2 * rounds + counted)


def _floor(folder: Path, count: int, rounds: int) -> list[float]:
    """Return the seconds of rounds in which nothing is done, after one that is not counted."""
    app = folder / "app"
    app.mkdir(parents=True)
    (app / "floor_app.py").write_bytes((Path(__file__).parent / "floor_app.py").read_bytes())
    seconds = folder / "seconds.json"
    (app / "pyproject.toml").write_text(tomli_w.dumps(_project(count, rounds + 1, seconds)), encoding="utf-8")
    with _flower(folder, count) as environment:
        subprocess.run(  # noqa: S603 (our own command line)
            [services.executable("flwr"), "run", str(app), "floor"], env=environment, check=True, capture_output=True
        )
        while not seconds.is_file():
            time.sleep(0.5)
    found: list[float] = json.loads(seconds.read_text(encoding="utf-8"))
    return found[1:]


def _project(count: int, rounds: int, seconds: Path) -> dict[str, object]:
    app = {
        "publisher": "moehub",
        "components": {"serverapp": "floor_app:server", "clientapp": "floor_app:client"},
        "config": {"nodes": count, "rounds": rounds, "output": str(seconds)},
    }
    return {"project": {"name": "floor", "version": "1.0.0", "dependencies": []}, "tool": {"flwr": {"app": app}}}


@contextlib.contextmanager
def _flower(folder: Path, count: int) -> Iterator[dict[str, str]]:
    """Start the processes that `federate up` starts, unguarded and without a worker; yield their environment."""
    environment = services.environment(folder / "home")
    port, *own = services.free_ports(count + 1)
    address = f"{services.LOOPBACK}:{port}"
    services.connection(folder / "home", "floor", address=address)
    with Processes(folder) as processes:
        database = folder / "state.db"
        processes.start(services.superlink(environment, host=services.LOOPBACK, port=port, database=database))
        processes.wait_for(lambda: services.healthy(services.LOOPBACK, port), "the SuperLink's start", seconds=120)
        processes.start(services.superexec(environment, superlink=address))
        for number, each in enumerate(own):
            written = services.node_configuration(folder / f"{number}.toml", {"number": number})
            processes.start(
                services.supernode(
                    environment, name=f"node-{number}", superlink=address, port=each, configuration=written
                )
            )
        yield environment


def _rows(found: Sequence[Cost]) -> list[list[str]]:
    rows = [["", *(f"{each.nodes} nodes" for each in found)]]

    def spread(values: Sequence[float]) -> str:
        return f"{statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f})"

    rows.append(["seconds a round, median (range)", *(spread(each.rounds) for each in found)])
    rows.append(["of these, training", *(spread(each.training) for each in found)])
    rows.append(["seconds a round that does nothing", *(spread(each.floor) for each in found)])
    whole = [statistics.median(each.rounds) / statistics.median(each.floor) for each in found]
    idle = [
        (statistics.median(each.rounds) - statistics.median(each.training)) / statistics.median(each.floor)
        for each in found
    ]
    rows.append(["ratio to that", *(f"{ratio:.2f}" for ratio in whole)])
    rows.append(["ratio without training", *(f"{ratio:.2f}" for ratio in idle)])
    rows.append(["MB carried in the run", *(f"{each.carried / 1e6:.1f}" for each in found)])
    rows.append(["MB that had to be", *(f"{each.least / 1e6:.1f}" for each in found)])
    rows.append(["ratio to that", *(f"{each.carried / each.least:.3f}" for each in found)])
    return [*rows, *([f"{name}, peak MB", *(f"{each.peak[name] / 1e6:.0f}" for each in found)] for name in _PROGRAMS)]


def _table(found: Sequence[Cost]) -> Table:
    table = Table(title=_TITLE, box=None, title_justify="left", padding=(0, 1, 0, 0))
    rows = _rows(found)
    for place, column in enumerate(rows[0]):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*row)
    return table


def _section(found: Sequence[Cost]) -> str:
    rows = ["|" + "|".join(row) + "|" for row in _rows(found)]
    rows.insert(1, "|---|" + "---:|" * len(found))
    lines = "\n".join(rows)
    return f"""\
`python -m benchmarks.federation cost --write`. {where()}

Two optimizer steps a round on a small Llama, adapters of rank {_RANK}; all processes share this machine, and the nodes
take turns at its one device.

{lines}"""
