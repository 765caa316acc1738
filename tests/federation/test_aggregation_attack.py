"""The attacks of `python -m benchmarks.federation attack`, on made-up replies."""

import itertools
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import road
from benchmarks.federation import attack
from moehub.experts.settings import TrainConfig
from moehub.federation.aggregation import mean, product
from moehub.federation.settings import FederationConfig
from moehub.federation.weights import B, Weights, trained
from tests.federation.updates import adapter, flat, near, settings


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="flwr")


def first_round(chosen: FederationConfig) -> tuple[Weights, list[Weights]]:
    """Return an adapter with B = 0, and what ten honest nodes send."""
    drawn = adapter(0, size=0.5)
    first = {name: 0 * each if name.endswith(B) else each for name, each in drawn.items()}
    common = near(trained(first, frozen_a=chosen.frozen_a), 1, 0.02)
    return first, [near(common, 2 + node, 0.005) for node in range(attack.NODES)]


def test_flip_is_a_hundred_times_the_change_turned_around() -> None:
    """Both of B alone and of the product."""
    for chosen, size in ((settings("ffa"), mean.norm), (settings("product"), product.norm)):
        first, (own, *_) = first_round(chosen)
        start = trained(first, frozen_a=chosen.frozen_a)
        sent = attack.flip(0, start, own, [])
        assert size(chosen, start, sent) == pytest.approx(100 * size(chosen, start, own), rel=1e-5)


def test_noise_is_as_long_as_the_change_and_has_nothing_to_do_with_it() -> None:
    """And every node draws its own."""
    chosen = settings("ffa")
    first, (own, *_) = first_round(chosen)
    start = trained(first, frozen_a=True)
    one, other = attack.noise(0, start, own, []), attack.noise(1, start, own, [])
    assert mean.norm(chosen, start, one) == pytest.approx(mean.norm(chosen, start, own), rel=1e-5)
    for each in (flat(own), flat(other)):
        cosine = (flat(one) - flat(start)) @ (each - flat(start)) / np.square(flat(own) - flat(start)).sum()
        assert abs(cosine) < 0.4


def test_colluders_send_the_same_within_the_spread() -> None:
    """The honest mean less 1.5 standard deviations, of each value."""
    _, honest = first_round(settings("ffa"))
    sent = [attack.collude(node, honest[0], honest[node], honest) for node in range(2)]
    np.testing.assert_array_equal(flat(sent[0]), flat(sent[1]))
    every = np.stack([flat(each) for each in honest])
    np.testing.assert_allclose(every.mean(axis=0) - 1.5 * every.std(axis=0), flat(sent[0]), atol=1e-6)


@pytest.mark.parametrize("changes", attack.METHODS.values(), ids=attack.METHODS)
def test_without_liars_every_method_finds_the_truth(changes: dict[str, Any]) -> None:
    """The cosine is 1 where nodes nearly agree."""
    chosen = settings(**{"malicious": attack.MALICIOUS, **changes})
    first, replies = first_round(chosen)
    assert attack.measure(chosen, first, replies, 0, "") > 0.95


@pytest.mark.parametrize("aggregation", ["ffa", "product"])
def test_two_liars_turn_the_plain_mean_around(aggregation: str) -> None:
    """So the table can tell a defence from none."""
    chosen = settings(aggregation, clip=False)
    first, replies = first_round(chosen)
    assert attack.measure(chosen, first, replies, 2, "flip") < -0.9


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    """Every method a row, every attack a column, no label broken."""
    from rich.console import Console

    rows = {label: [-0.99] * len(attack.COLUMNS) for label in attack.METHODS}
    console = Console(width=80, record=True, file=Path("/dev/null").open("w", encoding="utf-8"))  # noqa: SIM115 (closed below)
    console.print(attack._table("non-IID", rows))
    console.file.close()
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert all(any(f" {label} " in line for line in lines) for label in attack.METHODS)


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)  # the trainers'
def test_it_trains_attacks_and_keeps_both_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From real trainings, here of one step, and one for all nodes of the same text."""
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n\n## Another\n\nstays\n", encoding="utf-8")
    monkeypatch.setattr(road, "RESULTS", results)
    texts = ["def add(a, b): return a + b " * 40, "the lessee shall pay the rent. " * 40] * 5
    monkeypatch.setattr(attack, "_alike", lambda _seed: texts)
    monkeypatch.setattr(attack, "_apart", lambda: texts)
    done: dict[tuple[str, bool], Weights] = {}
    train = attack._train

    def once(base: Any, config: TrainConfig, text: str, folder: Path, *, frozen_a: bool) -> Weights:
        if (text, frozen_a) not in done:
            done[text, frozen_a] = train(base, config, text, folder, frozen_a=frozen_a)
        return done[text, frozen_a]

    monkeypatch.setattr(attack, "_train", once)
    attack.main(["--steps", "1", "--write"])
    text = results.read_text(encoding="utf-8")
    assert text.startswith("# Results\n\n## Another\n\nstays\n\n## The federation under attack\n\n")
    assert text.count("\n| krum (3) | ") == 2
    cells = [row.split(" | ")[1:] for row in text.splitlines() if row.startswith("| ffa | ")]
    values = [float(cell.rstrip(" |")) for cell in itertools.chain(*cells)]
    assert len(values) == 2 * len(attack.COLUMNS)
    assert all(-1 <= value <= 1 for value in values)


def test_the_benchmarks_are_run_by_name() -> None:
    """`python -m benchmarks.federation` passes on what follows the name."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.federation"]
    done = subprocess.run([*command, "attack", "--help"], capture_output=True, text=True, check=True)
    assert "--steps" in done.stdout
    wrong = subprocess.run([*command, "nothing"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, "invalid choice: 'nothing'" in wrong.stderr) == (2, True)
