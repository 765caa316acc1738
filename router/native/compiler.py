"""Compile the kernel once for this processor, and keep the library in the user's cache.

A kernel that was compiled elsewhere would either lack this processor's instructions or crash on them, so it is made
where it runs: in about two seconds, under a name that changes with the sources, the compiler and the processor.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from moehub.console import console
from moehub.errors import RouterError

_SOURCES = ("kernel.cpp", "plain.h", "amx.h")
_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-Wno-psabi")
_NATIVE = ("-march=native", "-mcpu=native")
"""How compilers are told to use everything that this processor has: one or the other, by processor."""
_THREADS = "-fopenmp"
_SECONDS = 180.0


@cache
def compiler() -> str | None:
    """Return the C++ compiler to use, or None where there is none."""
    named = os.environ.get("CXX")
    return next((found for name in ([named] if named else _COMPILERS) if (found := shutil.which(name))), None)


@cache
def library() -> Path:
    """Return the compiled kernel, compiling it where this processor has none yet.

    Raises:
        RouterError: there is no compiler, or it fails.
    """
    command = compiler()
    if command is None:
        raise RouterError("there is no C++ compiler (c++, g++ or clang++; the variable CXX names one): install g++")
    faults = []
    for flags in _flags():
        macros = _run([command, *flags, "-dM", "-E", "-x", "c++", os.devnull])
        if macros.returncode == 0:
            place = _place(command, flags, macros.stdout)
            if place.is_file() or not (fault := _compile(command, flags, place)):
                return place
            faults.append(fault)
        else:
            faults.append(macros.stderr)
    raise RouterError(f"{command} cannot compile the kernel ({_last_line(faults)}): name another compiler in CXX")


def _flags() -> list[tuple[str, ...]]:
    """Return sets of flags to try: with threads and all instructions first."""
    threads = [(_THREADS,), ()] if sys.platform != "win32" else [()]
    return [(*_FLAGS, native, *more) for more in threads for native in _NATIVE]


def _place(command: str, flags: tuple[str, ...], macros: str) -> Path:
    """Return where the kernel is kept; the macros tell the compiler's version and the processor's instructions."""
    from huggingface_hub.constants import HF_HOME

    digest = hashlib.sha256("\0".join([command, *flags, macros]).encode())
    for name in _SOURCES:
        digest.update(_source(name).read_bytes())
    return Path(HF_HOME) / "moehub" / "kernels" / f"{digest.hexdigest()[:32]}.so"


def _compile(command: str, flags: tuple[str, ...], place: Path) -> str:
    """Compile the kernel to `place`; return what the compiler complained about, or nothing."""
    from moehub import files

    console.print("compiling the kernel for this processor, once", markup=False)
    with tempfile.TemporaryDirectory(prefix="moehub-kernel-") as folder:
        made = Path(folder) / place.name
        done = _run([command, *flags, str(_source("kernel.cpp")), "-o", str(made)])
        if done.returncode:
            return done.stderr
        try:
            with files.new_file(place) as output:
                shutil.copyfile(made, output)
        except OSError as error:
            return f"error: {place.parent} cannot be written ({error})"
    return ""


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _source(name: str) -> Path:
    return Path(__file__).parent / name


def _last_line(faults: list[str]) -> str:
    lines = [line.strip() for line in (faults[0] if faults else "").splitlines() if "error" in line]
    return lines[0] if lines else (faults[0].strip() if faults else "it says nothing")
