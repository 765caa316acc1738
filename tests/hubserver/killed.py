"""Do something to a hub again and again, each time in a child that is killed one step later; print what was left.

python -m tests.hubserver.killed SCENARIO WORKSPACE EVERY      EVERY: of how many steps one is tried
"""

import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store import fsck
from moehub.hubserver.store.backup import back_up
from moehub.hubserver.store.collection import collect
from moehub.hubserver.store.store import DATABASE, Store, open_store
from moehub.hubserver.visitor import EVERYBODY
from tests.hubserver import faults
from tests.hubserver.pushes import push

FIRST = {"README.md": b"---\nlicense: mit\n---\nthe first", "adapter_model.safetensors": b"tensors" * 100}
SECOND = {"README.md": b"---\nlicense: gpl\n---\nthe second", "expert.json": b"{}"}
NOW = dt.timedelta(0)


@dataclass(frozen=True)
class Scenario:
    """Something that is done to a hub."""

    prepare: Callable[[Path], None]
    act: Callable[[Path], None]
    look: Callable[[Path], Any]
    """What is to be old or new."""


def made(place: Path) -> Store:
    return open_store(place / "hub", create=True)


def first(place: Path) -> None:
    push(made(place), "acme/law", FIRST)


def second(place: Path) -> None:
    push(made(place), "acme/law", SECOND, deleted=("adapter_model.safetensors",))


def delete(place: Path) -> None:
    repos = made(place).repos
    with contextlib.suppress(RefusedError):
        repos.delete(repos.get("acme/law", EVERYBODY))


def rubbish(place: Path) -> None:
    """Make a repo that stays, one that is deleted, and an upload without a commit."""
    first(place)
    store = made(place)
    push(store, "acme/old", SECOND | {"only here": b"old"})
    store.repos.delete(store.repos.get("acme/old", EVERYBODY))
    store.uploads.take_bytes(b"never committed", store.repos.get("acme/law", EVERYBODY).number)


def first_backup(place: Path) -> None:
    first(place)
    back_up(made(place), place / "copy")
    second(place)


def published(root: Path) -> dict[str, Any] | None:
    """Return repos, the files that their `main` holds, and what lists say; None where there is no hub."""
    if not (root / DATABASE).is_file():
        return None
    store = open_store(root)
    found: dict[str, Any] = {}
    for row in store.database.reading().execute("select folded from repo order by 1").fetchall():
        repo = store.repos.get(row["folded"], EVERYBODY)
        head = store.heads.get(repo)
        tree = store.history.tree(repo, head.oid) if head else {}
        found[repo.id] = head and [head.license, {path: entry.sha256 for path, entry in tree.items()}]
    return found


def hub(place: Path) -> object:
    return published(place / "hub")


def copy(place: Path) -> object:
    return published(place / "copy")


def rows(place: Path) -> object:
    return made(place).database.reading().execute("select count(*) from blob").fetchone()[0]


def make(place: Path) -> None:
    made(place)


def nothing(_place: Path) -> None:
    """Begin with an empty folder."""


def exists(place: Path) -> bool:
    return (place / "hub" / DATABASE).is_file()


def gc(place: Path) -> None:
    collect(made(place), grace=NOW)


def token(place: Path) -> None:
    made(place).tokens.create("ada", ["acme"])


def tokens(place: Path) -> bool:
    return bool(made(place).tokens.list())


def backup(place: Path) -> None:
    back_up(made(place), place / "copy")


SCENARIOS = {
    "make": Scenario(nothing, make, exists),
    "push": Scenario(make, first, hub),
    "change": Scenario(first, second, hub),
    "delete": Scenario(first, delete, hub),
    "gc": Scenario(rubbish, gc, rows),
    "token": Scenario(first, token, tokens),
    "backup": Scenario(first, backup, copy),
    "next backup": Scenario(first_backup, backup, copy),
}


def sick(place: Path) -> list[str]:
    """Return the faults of the hub and of its copy."""
    stores = [open_store(root) for root in (place / "hub", place / "copy") if (root / DATABASE).is_file()]
    return [fault for store in stores for fault in fsck.check(store, deep=True).faults]


def litter(place: Path) -> list[str]:
    """Collect, and return what is left that should not be there."""
    store = made(place)
    collect(store, grace=NOW)
    return fsck.check(store).notes


def apart(action: Callable[[Path], Any], place: Path) -> Any:
    """Return what an action returns in a process of its own: SQLite must not be open where others are forked from."""
    reader, writer = os.pipe()
    if not os.fork():
        code = 1
        try:
            os.write(writer, json.dumps(action(place)).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        said = answer.read()
    _, status = os.wait()
    if status:
        raise RuntimeError(f"{action} failed")
    return json.loads(said)


def main(scenario: Scenario, workspace: Path, every: int) -> None:
    """Print before and after, and (step, faults, state, faults, state, litter) for each step."""

    def judge(place: Path) -> list[object]:
        left = [sick(place), scenario.look(place)]
        scenario.act(place)
        return [*left, sick(place), scenario.look(place), litter(place)]

    template, place = workspace / "template", workspace / "place"
    template.mkdir()
    apart(scenario.prepare, template)
    shutil.copytree(template, place)
    before = apart(scenario.look, place)
    apart(scenario.act, place)
    after = apart(scenario.look, place)
    outcomes: list[object] = []
    for step in range(1, 10_000, every):
        shutil.rmtree(place)
        shutil.copytree(template, place)
        ended = faults.run(lambda: scenario.act(place), [place], die_at=step)
        if ended.code != -signal.SIGKILL:
            break
        outcomes.append([ended.steps[-1].replace(str(place), ""), *apart(judge, place)])
    print(json.dumps({"before": before, "after": after, "code": ended.code, "outcomes": outcomes}))  # noqa: T201


if __name__ == "__main__":
    main(SCENARIOS[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3]))
