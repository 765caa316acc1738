"""The highest version of each expert that was seen on each hub, so that an older one is noticed.

    STATE/versions.json     {"format": 1, "versions": {HUB: {"acme/law": 3}}}

STATE is what the variable MOEHUB_STATE names, else ~/.local/state/moehub. What cannot be remembered there is said, and
stops nothing.
"""

import json
import os
from pathlib import Path
from typing import Any

from moehub import console, files
from moehub.errors import HubError

VARIABLE = "MOEHUB_STATE"
_FORMAT = 1
_SECONDS = 10.0


def highest(hub: str, repo: str) -> int | None:
    """Return the highest version of the expert in `repo` that was seen on the hub at `hub`, or None.

    A merge passes it on as `AtHand.least_version`, where nobody named a revision.

    Raises:
        HubError: the file of seen versions is damaged.
    """
    try:
        version = _read(_file()).get(hub, {}).get(repo.lower())
    except OSError as error:
        _say(error)
        return None
    return version


def remember(hub: str, repo: str, version: int) -> None:
    """Remember that this version of the expert in `repo` was seen on the hub at `hub`.

    Raises:
        HubError: the file of seen versions is damaged.
    """
    from filelock import FileLock, Timeout

    path = _file()
    try:
        if _read(path).get(hub, {}).get(repo.lower(), 0) >= version:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=_SECONDS):
            versions = _read(path)
            known = versions.setdefault(hub, {})
            known[repo.lower()] = max(version, known.get(repo.lower(), 0))
            files.write_text(path, files.to_json({"format": _FORMAT, "versions": versions}))
    except (OSError, Timeout) as error:
        _say(error)


def _file() -> Path:
    named = os.environ.get(VARIABLE)
    return (Path(named).expanduser() if named else Path.home() / ".local" / "state" / "moehub") / "versions.json"


def _read(path: Path) -> dict[str, dict[str, int]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise _damaged(path) from error
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path) from error
    if not isinstance(values, dict) or values.keys() != {"format", "versions"} or values["format"] != _FORMAT:
        raise _damaged(path)
    hubs = values["versions"]
    if not isinstance(hubs, dict) or not all(map(_are_versions, hubs.values())):
        raise _damaged(path)
    return hubs


def _are_versions(repos: Any) -> bool:
    return isinstance(repos, dict) and all(type(version) is int and version > 0 for version in repos.values())


def _damaged(path: Path) -> HubError:
    return HubError(
        f"{path} is damaged, so nobody knows which versions were seen: remove it, and check what you pull next"
    )


def _say(error: BaseException) -> None:
    console.console.print(
        f"note: the versions seen on hubs cannot be kept ({error}), so an older one would not be noticed: "
        f"name a folder that you may write to in {VARIABLE}",
        markup=False,
    )
