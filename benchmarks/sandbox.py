"""What a trial of strangers' code costs.

    python -m benchmarks.sandbox [--trials 200]

Each trial is a function and three asserts. Seconds of the clock: one after another, then by several workers at once.
"""

import argparse
import statistics
import time

from moehub import sandbox

_CODE = "def add(a, b):\n    return a + b\n"
_TESTS = ["assert add(1, 1) == 2", "assert add(-1, 1) == 0", "assert add(2.5, 1) == 3.5"]
_CALLS = 200


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    trials = parser.parse_args().trials
    started = time.perf_counter()
    _passing(1, 1)
    first = _ms(time.perf_counter() - started)
    print(f"| what | measured |\n|---|--:|\n| the first trial, with its keeper | {first} |")
    alone = [_timed(_TESTS) for _ in range(trials)]
    print(f"| one trial, median [least, most] of {trials} | {_spread(alone)} |")
    many = [_timed([f"for number in range({_CALLS}): assert add(number, 1) == number + 1"]) for _ in range(20)]
    call = (statistics.median(many) - statistics.median(alone)) / _CALLS
    print(f"| one call from tests to code | {_ms(call, 3)} |")
    for workers in (1, 2):
        started = time.perf_counter()
        _passing(trials, workers)
        print(f"| trials a second, {workers} worker(s) | {trials / (time.perf_counter() - started):.0f} |")
    sandbox.close()


def _timed(tests: list[str]) -> float:
    started = time.perf_counter()
    outcome = sandbox.run(_CODE, tests)
    if outcome.status != "passed":
        raise SystemExit(f"an honest trial {outcome.status}: {outcome.stderr}")
    return time.perf_counter() - started


def _passing(trials: int, workers: int) -> None:
    outcomes = sandbox.run_many([_CODE] * trials, [_TESTS] * trials, workers=workers)
    if any(one.status != "passed" for one in outcomes):
        raise SystemExit("an honest trial did not pass")


def _spread(seconds: list[float]) -> str:
    return f"{_ms(statistics.median(seconds))} [{_ms(min(seconds))}, {_ms(max(seconds))}]"


def _ms(seconds: float, digits: int = 1) -> str:
    return f"{1000 * seconds:.{digits}f} ms"


if __name__ == "__main__":
    main()
