from collections.abc import Iterator
from pathlib import Path

import pytest

from moehub.errors import RouterError
from moehub.router.native import compiler


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    for remembered in (compiler.compiler, compiler.library):
        remembered.cache_clear()
    yield
    for remembered in (compiler.compiler, compiler.library):
        remembered.cache_clear()


def script(folder: Path, text: str) -> str:
    """Return a program that stands in for a compiler."""
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_the_kernel_is_compiled_once() -> None:
    """A second call, also of another process, finds the library that the first one left."""
    first = compiler.library()
    written = first.stat().st_mtime_ns
    compiler.library.cache_clear()
    assert compiler.library() == first
    assert first.stat().st_mtime_ns == written


def test_without_a_compiler_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says what to install, and which variable names a compiler elsewhere."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RouterError, match=r"no C\+\+ compiler .*CXX.*install g\+\+"):
        compiler.library()


def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its first error is shown, and nothing is left in the cache."""
    refusing = 'case "$*" in *-dM*) echo "#define X 1";; *) echo "kernel.cpp:1: error: no room" >&2; exit 1;; esac'
    monkeypatch.setenv("CXX", script(tmp_path, refusing))
    with pytest.raises(RouterError, match=r"cannot compile the kernel \(kernel.cpp:1: error: no room\)"):
        compiler.library()


def test_flags_that_a_compiler_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A compiler without threads still makes a kernel, for one thread."""
    picky = 'case "$*" in *-fopenmp*) echo "error: unsupported" >&2; exit 1;; esac; exec c++ "$@"'
    monkeypatch.setenv("CXX", script(tmp_path, picky))
    assert compiler.library().is_file()
