"""One thing that is fuzzed."""

import atexit
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moehub.errors import MoehubError

CORPUS = Path(__file__).parent / "corpus"

Run = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """What is fuzzed, and what it begins with."""

    name: str
    prepare: Callable[[], Run]
    """Imports what is needed and returns what reads the bytes: it may raise a MoehubError, and nothing else."""
    seeds: Callable[[], Mapping[str, bytes]] = field(default=dict)
    """Name → well-formed bytes, made by code."""
    words: tuple[str, ...] = ()
    """What to try in the middle of other bytes."""
    longest: int = 4096
    """Bytes of the longest input that is tried."""

    @property
    def corpus(self) -> Path:
        """Where its inputs are kept."""
        return CORPUS / self.name

    def write_seeds(self) -> None:
        """Put the well-formed inputs into the corpus."""
        self.corpus.mkdir(parents=True, exist_ok=True)
        for name, content in self.seeds().items():
            if not (self.corpus / name).exists():
                (self.corpus / name).write_bytes(content)


def workplace() -> Path:
    """Return a new folder for files that a target reads; in memory where the system can."""
    memory = Path("/dev/shm")  # noqa: S108 (the name of a new folder in it is nobody's to guess)
    folder = Path(tempfile.mkdtemp(prefix="moehub-fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def attempt(run: Run, data: bytes) -> None:
    """Read bytes; only an error that is no sentence for a person comes out."""
    with contextlib.suppress(MoehubError):
        run(data)
