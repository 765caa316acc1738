"""Every input that fuzzing found worth keeping, read again."""

import time
import tracemalloc
from functools import cache

import pytest

from tests.fuzz.registry import registered
from tests.fuzz.target import Run, attempt

TARGETS = registered()
_SECONDS = 2.0
_MEMORY = 64 << 20


@cache
def prepared(name: str) -> Run:
    """Return a target that has read one input: what is imported on first use counts for nobody."""
    run = TARGETS[name].prepare()
    attempt(run, next(iter(TARGETS[name].seeds().values())))
    return run


@pytest.mark.parametrize("name", list(TARGETS))
def test_whatever_comes_is_read_or_refused_in_a_sentence(name: str) -> None:
    """Soon, and in little memory; nothing but an error of ours comes out."""
    run = prepared(name)
    inputs = sorted(TARGETS[name].corpus.iterdir())
    assert inputs
    for path in inputs:
        data = path.read_bytes()
        tracemalloc.start()
        started = time.process_time()
        try:
            attempt(run, data)
        except Exception as error:
            error.add_note(f"the input is {path}")
            raise
        finally:
            seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert (path.name, seconds < _SECONDS, peak < _MEMORY) == (path.name, True, True)


@pytest.mark.parametrize("name", list(TARGETS))
def test_the_seeds_are_what_the_corpus_begins_with(name: str) -> None:
    """A target whose well-formed inputs are not kept would replay nothing of worth."""
    kept = {path.name for path in TARGETS[name].corpus.iterdir()}
    assert set(TARGETS[name].seeds()) - kept == set()


def test_the_corpus_is_small() -> None:
    """Everybody clones it."""
    sizes = {name: sum(path.stat().st_size for path in target.corpus.iterdir()) for name, target in TARGETS.items()}
    assert sum(sizes.values()) < 300 << 10, sizes


def test_a_parser_that_stumbles_is_noticed() -> None:
    """An error that is no sentence comes out of an attempt."""

    def stumbles(data: bytes) -> None:
        raise KeyError(data)

    with pytest.raises(KeyError):
        attempt(stumbles, b"anything")
