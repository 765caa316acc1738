"""Look for inputs that break a target; see `tests.fuzz`."""

import argparse
import contextlib
import hashlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.mutation import mutated

if TYPE_CHECKING:
    from tests.fuzz.target import Run, Target

_SECONDS_EACH = 10
_MEMORY = 3000
"""MiB that a target and torch may take."""
_LARGEST_CORPUS = 22 << 10
"""Bytes that are kept for one target."""
_MOST_KEPT = 30
"""Inputs that are added at once: each is replayed by every `make test`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Fuzz one target, or list all."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--work", type=Path, default=Path("build/fuzz"), help="where inputs that were found are put")
    parser.add_argument("--keep", action="store_true", help="add the smallest that reach new code to the corpus")
    options = parser.parse_args(arguments)
    with _instrumenting():
        # Imported here and not above: only what is imported within the block is watched.
        from tests.fuzz.registry import registered

        targets = registered()
        if options.target is None:
            print("\n".join(targets))  # noqa: T201 (the answer)
            return
        if options.target not in targets:
            parser.error(f"{options.target!r} is no target, expected one of {', '.join(targets)}")
        target: Target = targets[options.target]
        work = options.work / target.name
        work.mkdir(parents=True, exist_ok=True)
        target.write_seeds()
        run = target.prepare()
    if not (child := os.fork()):
        _look(target, run, work, options.seconds)
        os._exit(0)
    # libFuzzer ends its process at once; this one is left to clean up.
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise SystemExit(f"{target.name} broke: the input is in {work}")
    if options.keep:
        _keep(target, work)


def _instrumenting() -> contextlib.AbstractContextManager[object]:
    """Watch which code is reached, of all that is imported within the block, where atheris is installed."""
    try:
        import atheris
    except ModuleNotFoundError:
        return contextlib.nullcontext()
    watching: contextlib.AbstractContextManager[object] = atheris.instrument_imports(include=["moehub"])
    return watching


def _look(target: "Target", run: "Run", work: Path, seconds: int) -> None:
    """Fuzz for some seconds; inputs that reach new code, and the one that breaks something, are put into `work`."""
    from tests.fuzz.target import attempt

    try:
        import atheris
    except ModuleNotFoundError:
        _mutate(target, run, work, seconds)
        return
    with tempfile.NamedTemporaryFile("w", suffix=".dict", delete=False) as words:
        words.writelines(f'"{_escaped(word)}"\n' for word in target.words)
    options = [f"-max_total_time={seconds}", f"-timeout={_SECONDS_EACH}", f"-rss_limit_mb={_MEMORY}"]
    options += [f"-max_len={target.longest}", f"-artifact_prefix={work}/", f"-dict={words.name}"]
    options += ["-print_final_stats=1", "-reload=0"]
    found = work / "found"
    found.mkdir(exist_ok=True)

    def change(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)  # noqa: S311 (nothing secret)
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        return mutated(data, chance, target.words, ())[:most]

    atheris.Setup(
        [sys.argv[0], *options, str(found), str(target.corpus)],
        lambda data: attempt(run, data),
        custom_mutator=change,
    )
    atheris.Fuzz()


def _escaped(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode("latin-1"))


def _mutate(target: "Target", run: "Run", work: Path, seconds: int) -> None:
    """Fuzz without looking at which code an input reaches."""
    from tests.fuzz.target import attempt

    seeds = [path.read_bytes() for path in sorted(target.corpus.iterdir())]
    chance = random.Random(0)  # noqa: S311 (nothing secret)
    ends, tried = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        data = mutated(chance.choice(seeds), chance, target.words, seeds)[: target.longest]
        tried += 1
        try:
            attempt(run, data)
        except BaseException:
            path = work / f"crash-{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"
            path.write_bytes(data)
            raise
    print(f"{target.name}: {tried} inputs, none broke it", file=sys.stderr)  # noqa: T201 (a report)


def _keep(target: "Target", work: Path) -> None:
    """Add some of the inputs that were found to the corpus, small and large ones, up to its size."""
    found = sorted((work / "found").iterdir(), key=lambda path: (path.stat().st_size, path.name))
    kept = sum(path.stat().st_size for path in target.corpus.iterdir())
    for path in found[:: max(1, len(found) // _MOST_KEPT)]:
        kept += path.stat().st_size
        if kept > _LARGEST_CORPUS:
            return
        (target.corpus / path.name).write_bytes(path.read_bytes())


if __name__ == "__main__":
    main()
