"""Which process is which: pid files by which one command finds the processes of another."""

import contextlib
import json
from pathlib import Path

import psutil

from moehub import files

_FOLDER = "pids"


def record(folder: Path, name: str, pid: int) -> None:
    """Write down that `name` is this process, so that another command can find it."""
    created = psutil.Process(pid).create_time()
    files.write_text(folder / _FOLDER / f"{name}.json", json.dumps({"pid": pid, "created": created}))


def forget(folder: Path, name: str) -> None:
    """Undo `record`."""
    (folder / _FOLDER / f"{name}.json").unlink(missing_ok=True)


def recorded(folder: Path) -> dict[str, psutil.Process]:
    """Return name → process of those that were recorded and still run; a pid that is another's by now is none."""
    found = {}
    for path in sorted((folder / _FOLDER).glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, psutil.Error):
            entry = json.loads(path.read_text(encoding="utf-8"))
            process = psutil.Process(int(entry["pid"]))
            if abs(process.create_time() - entry["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                found[path.stem] = process
    return found


def began(folder: Path, name: str) -> bool:
    """Say whether `name` was recorded, whether or not it still runs."""
    return (folder / _FOLDER / f"{name}.json").exists()
