"""The benchmark for a GPU, at tiny sizes on a CPU: every line runs, and what it must refuse it refuses."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from benchmarks.gpu import Budget, Run, layer, megablocks, model, peers, timing
from benchmarks.gpu.__main__ import PARTS, main
from benchmarks.gpu.correct import faults
from benchmarks.gpu.timing import Spread, Timer
from moehub.router.backends import BACKENDS, runnable
from moehub.router.backends.grouped import grouped

CPU = torch.device("cpu")
SMALL = ("--device", "cpu", "--small")
INTERPRETED = ("triton", "megablocks")
RUN = Run(CPU, ("loop", "dense", "grouped"), small=True, timer=Timer(CPU, warm=0, repeats=2), say=lambda _: None)


def test_every_part_measures_something(capsys: pytest.CaptureFixture[str]) -> None:
    """Correctness first, then each table has its lines, with a column for every backend that runs here."""
    main([*SMALL, "--json"])
    output = capsys.readouterr()
    assert "all within their tolerance" in output.err
    tables = json.loads(output.out)
    assert set(tables) == set(PARTS)
    assert set(runnable(CPU)) <= set(tables["layer"]["columns"])
    assert set(runnable(CPU)) <= set(tables["model"]["columns"])
    assert {name: len(tables[name]["rows"]) for name in ("layer", "model", "peers")} == {
        "layer": 4,
        "model": 3,
        "peers": 3,
    }
    here = "megablocks" in runnable(CPU)
    assert len(tables["megablocks"]["rows"]) == (2 if here else 0)
    assert here or "Left out, needs" in tables["megablocks"]["notes"][0]


def test_a_wrong_backend_ends_it_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit is not zero, and says which backend was wrong in what."""

    def off_by_a_percent(*given: Any, **adapters: Any) -> torch.Tensor:
        return grouped(*given, **adapters) * 1.01

    monkeypatch.setitem(BACKENDS, "grouped", off_by_a_percent)
    with pytest.raises(
        SystemExit, match=r"(?s)nothing was measured.*grouped, 1 tokens.*output is off by 1\.0e-02"
    ) as end:
        main([*SMALL, "--without", *INTERPRETED])
    assert end.value.code != 0
    assert "dense, " not in str(end.value)
    assert capsys.readouterr().out == ""


def test_a_backend_that_raises_is_wrong_too_and_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own words are shown; without it the others are measured."""

    def broken(*_: Any, **__: Any) -> torch.Tensor:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setitem(BACKENDS, "grouped", broken)
    made, wrong = faults(RUN)
    assert made > 0
    assert {line.partition(",")[0] for line in wrong} == {"grouped"}
    assert all(line.endswith("RuntimeError: no kernel image is available") for line in wrong)
    main([*SMALL, "--without", *runnable(CPU), "--only", "megablocks"])


def test_figures_of_a_cpu_are_not_kept() -> None:
    """RESULTS.md is for what was measured on a GPU."""
    with pytest.raises(SystemExit) as end:
        main([*SMALL, "--write"])
    assert end.value.code == 2


def test_without_a_gpu_it_says_how_to_try_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="finds no CUDA device here: --device cpu --small"):
        main([])


@pytest.mark.parametrize("part", [layer, model])
def test_out_of_time_a_part_says_what_it_left_out(part: Any) -> None:
    """Nothing more is begun, and the table says so."""
    table = part.measure(RUN, Budget(0))
    assert table.rows == []
    assert any("Out of time before" in note for note in table.notes)


def test_peers_that_no_time_is_left_for_are_left_out() -> None:
    """Arrow comes last; the adapters that were loaded are counted."""
    table = peers.measure(RUN, Budget(0))
    assert table.notes == ["Out of time before Arrow."]
    assert [(row[1], row[-1]) for row in table.rows] == [("1", "–")] * 3


def test_megablocks_is_left_out_with_grouped() -> None:
    """It is compared with nothing else."""
    run = dataclasses.replace(RUN, backends=("megablocks",))
    assert megablocks.measure(run, Budget(9)).rows == []


def test_a_missing_megablocks_is_left_out_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other parts need nothing of it."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    table = megablocks.measure(RUN, Budget(9))
    assert (table.rows, "Left out, needs" in table.notes[0]) == ([], True)


def test_a_spread_is_the_median_and_the_outer_tenths() -> None:
    """Of 101 repeats, and a ratio is that of the medians."""
    spread = Spread.of([float(number) for number in range(101)])
    assert (spread.median, spread.low, spread.high) == (50, 10, 90)
    assert spread.over(Spread(25, 1, 99)) == "2.000 [0.400, 3.600]"


def test_slow_works_are_repeated_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement takes two seconds, or the fewest repeats."""
    counted: list[int] = []
    timer = Timer(CPU)

    def on_cpu(work: timing.Work, repeats: int) -> list[float]:
        counted.append(repeats)
        return [0.1 if work is slow else 1e-6] * repeats

    def slow() -> None: ...

    def quick() -> None: ...

    monkeypatch.setattr(timer, "_on_cpu", on_cpu)
    timer.time(slow)
    timer.time(quick)
    assert counted == [1, 20, 1, 100]


def test_events_and_graphs_are_used_as_cuda_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for CUDA's own: each repeat lies between two events, and a work that waits makes no graph."""
    made: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            made.append("event")

        def elapsed_time(self, _: "Event") -> float:
            return 2.0

    class Stream:
        def wait_stream(self, _: "Stream") -> None:
            made.append("wait")

    class Graph:
        def replay(self) -> None:
            made.append("replay")

    @contextlib.contextmanager
    def within(_: object) -> Iterator[None]:
        yield

    for name, value in {
        "Event": Event, "Stream": Stream, "CUDAGraph": Graph, "graph": within, "stream": within,
        "synchronize": lambda *_: None, "current_stream": Stream,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(timing, "_CACHE", 16)
    assert Timer(CPU)._on_gpu(lambda: made.append("work"), 2) == [0.002, 0.002]
    assert made == ["event", "work", "event"] * 2
    replay = timing._graph(lambda: None, 1)
    assert replay is not None
    replay()
    assert made[-1] == "replay"

    def waits() -> None:
        if made[-1] == "wait":
            raise RuntimeError("operation not permitted when stream is capturing")

    assert timing._graph(waits, 0) is None
