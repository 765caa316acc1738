"""What training together loses against training on everybody's text in one place.

    python -m benchmarks.federation quality [--rounds 4] [--steps 20] [--method ffa …] [--write]

Ten contributors of one domain, source code: Python of the standard library, torch's C++ headers and JSON of
site-packages, on the demo's small base. IID: documents are dealt out at random. Non-IID: most contributors have one
kind alone. Pooled training sees all of the text and as many rows, once with as many optimizer steps as the federation
takes one after another (so with ten times the batch), once with the batch of one contributor (so with ten times the
steps). Each has a learning rate of its own: for pooled training the better of two on the texts for tuning at half the
steps, for the others picked by hand.
The losses are those of texts that nothing was trained or tuned on.

Messages go through Flower's serialisation and the real handlers of server and node, in one process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from rich.table import Table

from benchmarks.federation import where
from benchmarks.road import keep
from moehub import base as bases
from moehub.base import Base
from moehub.config import from_mapping
from moehub.console import console, results
from moehub.demo import corpora, steps
from moehub.demo.base import bf16_is_quick
from moehub.demo.config import DemoConfig
from moehub.demo.corpora import Corpora
from moehub.demo.measure import Bench, bench
from moehub.experts.examples import Text
from moehub.experts.settings import TrainConfig
from moehub.experts.training import train
from moehub.federation import client_app
from moehub.federation.form import form_of
from moehub.federation.node.contributor import to_flower
from moehub.federation.server.run import run
from moehub.federation.settings import FederationConfig, NodeConfig
from tests.federation.grid import LocalGrid, app_node

NODES = 10
RATES: dict[str, float] = {"pooled, same steps": 1.2e-2, "pooled, same batch": 4e-3, "ffa": 3e-2, "product": 1.2e-2}
"""Method → learning rate."""
_TITLE = "Federation: quality"


@dataclass(frozen=True)
class Plan:
    """Who has which text, and how much is trained."""

    base: Base
    documents: list[tuple[str, str]]
    """Kind and text of every document."""
    rounds: int
    steps: int
    rates: dict[str, float]

    def train(self, method: str, **changes: Any) -> TrainConfig:
        """Return the settings of the expert."""
        return TrainConfig(
            **{
                "learning_rate": self.rates[method],
                "batch_size": 4,
                "holdout": 0.0,
                "save_every": 1_000_000,
                "dtype": "bfloat16" if bf16_is_quick() else "float32",
                **changes,
            }
        )

    def parts(self, *, iid: bool) -> list[list[str]]:
        """Deal the documents to the contributors: at random, or each kind to as many as it has text for."""
        order = list(self.documents)
        if iid:
            Random(0).shuffle(order)  # noqa: S311 (a benchmark's own dealing)
        total, before = sum(len(text) for _, text in order), 0
        parts: list[list[str]] = [[] for _ in range(NODES)]
        for _, text in order:
            parts[min(NODES - 1, NODES * before // total)].append(text)
            before += len(text)
        return parts


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and keep it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20, help="of each contributor in each round")
    parser.add_argument("--method", action="append", choices=sorted(RATES), help="one of them; repeat it")
    parser.add_argument("--rate", type=float, help="another learning rate")
    parser.add_argument("--tune", action="store_true", help="measure on the texts for tuning")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args(arguments)
    text, plan = _plan(options.rounds, options.steps, options.rate)
    kinds = {kind for kind, _ in plan.documents}
    held = {one.name: one.tune if options.tune else one.test for one in text.contributors if one.name in kinds}
    desk = bench(plan.base, held)
    losses = {"base": _losses(desk, plan.base.folder)}
    seconds = {"base": 0.0}
    for method in options.method or RATES:
        for label, iid in ((method, True),) if method.startswith("pooled") else ((method, True), (method, False)):
            name = label if label.startswith("pooled") else f"{label}, {'IID' if iid else 'non-IID'}"
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                found = _train(plan, method, Path(folder), iid=iid)
                losses[name], seconds[name] = _losses(desk, found), time.monotonic() - began
            console.print(f"{name}: {losses[name]}", markup=False)
    results.print(_table(losses, seconds))
    if options.write:
        keep(_TITLE, _section(plan, losses, seconds))


def _plan(rounds: int, count: int, rate: float | None) -> tuple[Corpora, Plan]:
    config = DemoConfig()
    text = corpora.gather(config.sizes)
    kinds = ("python", "cpp", text.newcomer.name)
    documents = [(one.name, document) for one in text.contributors if one.name in kinds for document in one.train]
    base = bases.find(str(steps.small_base(text, config)))
    return text, Plan(base, documents, rounds, count, {name: rate or each for name, each in RATES.items()})


def _train(plan: Plan, method: str, folder: Path, *, iid: bool) -> Path:
    """Return the folder of the expert that a method trains."""
    if not method.startswith("pooled"):
        return _federated(plan, method, folder, iid=iid)
    wide = method == "pooled, same steps"
    settings = plan.train(
        method,
        batch_size=4 * NODES if wide else 4,
        accumulation=NODES if wide else 1,
        max_steps=plan.rounds * plan.steps * (1 if wide else NODES),
    )
    examples = [Text(text, kind) for kind, text in plan.documents]
    return train(plan.base, "code", examples, folder / "code", settings).folder


def _federated(plan: Plan, method: str, folder: Path, *, iid: bool) -> Path:
    values = {"base": plan.base.location, "rounds": plan.rounds, "steps": plan.steps, "aggregation": method}
    settings = from_mapping(FederationConfig, {**values, "train": plan.train(method)}, source=method)
    with _worker(folder / "desk") as desk:
        grid = LocalGrid()
        for number, part in enumerate(plan.parts(iid=iid), 1):
            data = folder / f"{number}.jsonl"
            data.write_text("".join(json.dumps({"text": text}) + "\n" for text in part), encoding="utf-8")
            node = NodeConfig("code", (data,), base=plan.base.location)
            grid.join(number, app_node(client_app.app, to_flower(node, desk), number))
        return run(grid, settings, form_of(plan.base, settings.train), folder / "run", resume=False)[0]


@contextmanager
def _worker(desk: Path) -> Iterator[Path]:
    """Yield a desk with a worker."""
    desk.mkdir(parents=True)
    command = [sys.executable, "-m", "moehub.federation.node.worker", str(desk)]
    with (desk / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as worker:  # noqa: S603 (our own)
        try:
            yield desk
        finally:
            worker.terminate()


def _losses(desk: Bench, folder: Path) -> dict[str, float]:
    scores = desk.scores({"it": folder})["it"]
    found = {name: score.loss for name, score in scores.items()}
    return {**found, "mean": sum(found.values()) / len(found)}


def _table(losses: dict[str, dict[str, float]], seconds: dict[str, float]) -> Table:
    table = Table(title="Held-out loss, nats per token", box=None, title_justify="left", padding=(0, 1, 0, 0))
    rows = _rows(losses, seconds)
    for place, column in enumerate(rows[0]):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*row)
    return table


def _rows(losses: dict[str, dict[str, float]], seconds: dict[str, float]) -> list[list[str]]:
    base = losses["base"]["mean"]
    named = {name: found["mean"] for name, found in losses.items() if name.startswith("pooled")}
    pooled = list(named.values())
    rows = [["", *losses["base"], *(f"vs {name.rpartition(' ')[2]}" for name in named), "gain", "s"]]
    for name, found in losses.items():
        gaps = [f"{100 * (found['mean'] / each - 1):+.1f} %" for each in pooled]
        gain = f"{base - found['mean']:.3f}"
        rows.append([name, *(f"{loss:.3f}" for loss in found.values()), *gaps, gain, f"{seconds[name]:.0f}"])
    return rows


def _section(plan: Plan, losses: dict[str, dict[str, float]], seconds: dict[str, float]) -> str:
    rows = ["|" + "|".join(row) + "|" for row in _rows(losses, seconds)]
    rows.insert(1, "|---|" + "---:|" * (rows[0].count("|") - 2))
    rates = ", ".join(f"{name} {rate:g}" for name, rate in plan.rates.items())
    return f"""\
`python -m benchmarks.federation quality --write`. {where()}

{NODES} contributors, {plan.rounds} rounds of {plan.steps} steps of 4 rows each. Learning rates: {rates}. Held-out
loss in nats per token; gain: how far below the base; vs: against pooled training with the same steps, the same batch.

{chr(10).join(rows)}"""
