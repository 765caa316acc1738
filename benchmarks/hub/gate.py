"""What the admission gate adds to a push.

    python -m benchmarks.hub gate [--repeats 20] [--write]

Commits go straight to a store whose files are uploaded already, so that the gate is all that differs: one expert of the
tests' small base after another, with the base on the hub, without a gate, with it, and when it saw the expert before.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.hub import present, where
from moehub.base import quiet_transformers
from moehub.card import CARD_FILE, read_card
from moehub.console import progress
from moehub.hubserver.checking import checker
from moehub.hubserver.settings import ServerSettings
from moehub.hubserver.store import trees
from moehub.hubserver.store.history import Admit, Change
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.store import Store, open_store
from moehub.hubserver.visitor import EVERYBODY

_COLUMNS = ("a commit of one expert", "ms, median", "least", "most")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table; `--write` puts it into RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args(arguments)
    machine = where()
    rows = [(what, *(f"{1000 * seconds:.1f}" for seconds in found)) for what, found in measure(options.repeats).items()]
    how = (
        f"`python -m benchmarks.hub gate --write`: {options.repeats} experts of rank 16 on all linears of the "
        "tests' small base. The first one starts the gate's process and identifies the base."
    )
    present("The hub: the gate on push", _COLUMNS, rows, how=how, machine=machine, write=options.write)


def measure(repeats: int) -> dict[str, tuple[float, float, float]]:
    """Return what was done → median, least and most seconds."""
    from tests.builders import tiny_base, tiny_expert

    with tempfile.TemporaryDirectory() as folder, progress("measuring", 3 * repeats) as advance:
        place = Path(folder)
        with quiet_transformers():
            base = tiny_base(place / "base")
            expert = tiny_expert(place / "expert", base, rank=16, targets="all-linear")
        store = open_store(place / "hub", create=True)

        def commits(what: str, admit: Admit) -> list[float]:
            found = []
            for number in range(repeats):
                repo = store.repos.create(f"bench/{what}-{number}", EVERYBODY)
                found.append(_commit(store, repo, _named(expert, f"{what}-{number}"), admit))
                advance()
            return found

        found = {"without a gate": commits("plain", lambda *_: None)}
        with checker(store, ServerSettings(store.root)) as gate:
            _commit(store, store.repos.create("bench/base", EVERYBODY), _contents(base), gate)
            first, *others = commits("guarded", gate)
            found |= {"the first, through the gate": [first], "through the gate": others}
            again = [
                _commit(store, store.repos.get(f"bench/guarded-{number}", EVERYBODY), {".gitattributes": text}, gate)
                for text in (b"# one", b"# two")
                for number in range(repeats)
            ]
            found["seen before"] = again[repeats:]  # of the first push, nobody had seen a version before
        store.database.close()
    return {what: (statistics.median(each), min(each), max(each)) for what, each in found.items()}


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _named(expert: Path, name: str) -> dict[str, bytes]:
    """Return an expert's files under another name: to the gate, another expert."""
    card = dataclasses.replace(read_card(expert), name=name)
    return {**_contents(expert), CARD_FILE: card.to_json().encode()}


def _commit(store: Store, repo: Repo, contents: dict[str, bytes], admit: Admit) -> float:
    """Upload files, commit them, and return the seconds that the commit took."""
    blobs = {name: store.uploads.take_bytes(content, repo.number) for name, content in contents.items()}
    change = Change({name: trees.large(blob.sha256, blob.size) for name, blob in blobs.items()})
    started = time.perf_counter()
    store.history.commit(repo, "main", change, title="Push", author="bench", admit=admit)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
