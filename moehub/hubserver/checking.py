"""Checking on push: every commit that holds experts passes the admission gate, or is not made.

The gate runs in a process of its own (`examiner`), on links to the blobs. What it said is remembered with the
circumstances it was said under, and what was admitted under the same ones is not checked again. Where no answer
comes, nothing is admitted.
"""

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import moehub
from moehub import files
from moehub.card import CARD_FILE
from moehub.errors import listed
from moehub.hubserver.bases import Bases, KnownBase, linked
from moehub.hubserver.candidates import Candidate, candidates
from moehub.hubserver.examiner import Examiner, FailedError, Limits
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.settings import ServerSettings
from moehub.hubserver.store.repos import MAIN, Repo
from moehub.hubserver.store.store import Store
from moehub.hubserver.store.trees import Entry, Tree
from moehub.signing.keyring import Keyring

WORKPLACE = "checking"
"""The folder below the root in which the links lie while they are looked at."""


class Checker:
    """What every commit has to pass: an `Admit` (see `moehub.hubserver.store.history`)."""

    def __init__(
        self, store: Store, examiner: Examiner, *, bases: tuple[str, ...] = (), null: Path | None = None
    ) -> None:
        """Keep the parts.

        Args:
            store: the hub's.
            examiner: where the gate runs.
            bases: folders or repos of this hub whose experts are checked with forward passes too.
            null: the generic text of the routing checks and of the loss on public text; None: they are not made.
        """
        self.store, self.examiner, self.null = store, examiner, null
        self.workplace = store.root / WORKPLACE
        shutil.rmtree(self.workplace, ignore_errors=True)  # what a server that was killed left behind
        self.workplace.mkdir()
        self.bases = Bases(store, examiner, self.workplace, bases)

    def __call__(self, repo: Repo, tree: Tree) -> None:
        """Return if every expert in the tree may be published.

        Raises:
            RefusedError: 422 with every refusal of the gate, or because the gate could not finish; 503 if it is busy.
        """
        found = [line for candidate in candidates(repo.id, tree) for line in self._refusals(repo, candidate)]
        if found:
            raise RefusedError(422, listed(f"the admission gate of this hub refuses what {repo.id} would hold:", found))

    def _refusals(self, repo: Repo, candidate: Candidate) -> list[str]:
        """Return what the gate has against an expert, as lines for its publisher."""
        name = candidate.named(repo.id)
        try:
            verdict = self._verdict(repo, candidate, name)
            lines = [f"{one['code']}: {name}: {one['sentence']}: {one['cure']}" for one in verdict["refusals"]]
            if lines or verdict["admitted"] is True:
                return lines
        except FailedError as error:
            return [f"check-failed: {name} could not be checked: {error}: `moehub check` may say more"]
        except (KeyError, TypeError):
            pass
        return [f"check-failed: {name} could not be checked: the gate gave no verdict: tell whoever runs the hub"]

    def _verdict(self, repo: Repo, candidate: Candidate, name: str) -> Mapping[str, Any]:
        with self._laid_out(candidate) as folder:
            claim = self.examiner.ask({"do": "peek", "card": str(folder / CARD_FILE)})
            base = self.bases.find(str(claim["digest"]), str(claim["reference"]), repo)
            at_hand: dict[str, Any] = {"repo": candidate.repo, "least_version": None, "base": None, "null": None}
            if candidate.repo is not None:
                at_hand["least_version"] = self._newest_version(repo)
            circumstances = _circumstances(at_hand, base, self.null)
            known = self.store.verdicts.get(candidate.key)
            if known is not None and known.get("circumstances") == circumstances and known["admitted"] is True:
                return known
            if base is not None:
                at_hand |= {
                    "base": base.lay_out(self.store.blobs, folder.parent / "base"),
                    "null": self.null and str(self.null),
                }
            verdict = self.examiner.ask({"do": "examine", "folder": str(folder), "name": name, "at_hand": at_hand})
        if verdict.get("admitted") is True and not verdict["refusals"]:
            # Nothing that was refused is kept: it is in no commit, and its publisher may try again.
            self.store.verdicts.put(candidate.key, {**verdict, "circumstances": circumstances})
        return verdict

    @contextlib.contextmanager
    def _laid_out(self, candidate: Candidate) -> Iterator[Path]:
        """Yield a folder with an expert's files."""
        with tempfile.TemporaryDirectory(dir=self.workplace) as place:
            yield linked(self.store.blobs, candidate.files, Path(place) / "expert")

    def _newest_version(self, repo: Repo) -> int | None:
        """Return the version of the newest expert of a repo's `main`, or None where there was none."""
        oid = next((ref.oid for ref in self.store.repos.refs(repo) if ref.name == MAIN), "")
        for commit in self.store.history.before(repo, oid):
            entry = self.store.history.tree(repo, commit.oid).get(CARD_FILE)
            if entry is not None:
                return self._version(entry)
        return None

    def _version(self, card: Entry) -> int | None:
        version = self.examiner.ask({"do": "peek", "card": str(self.store.blobs.path(card.sha256))})["version"]
        return version if isinstance(version, int) else None

    def close(self) -> None:
        """End the gate's process."""
        self.examiner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def checker(store: Store, settings: ServerSettings, *, limits: Limits | None = None) -> Checker:
    """Return what checks every commit; its process starts with the first expert, and ends with `close`."""
    return Checker(store, Examiner(limits), bases=settings.bases, null=settings.null)


def _circumstances(at_hand: Mapping[str, Any], base: KnownBase | None, null: Path | None) -> str:
    """Return a digest of everything besides the expert's files that a verdict depends on."""
    keyring = Keyring.open_default()
    repo = at_hand["repo"]
    pinned = keyring.for_repo(repo) if repo is not None else None
    values = {
        "gate": _gate(),
        "repo": repo,
        "least_version": at_hand["least_version"],
        "key": pinned.fingerprint if pinned else None,
        "base": [base.digest, base.tokenizer, base.trusted] if base else None,
        "null": files.sha256(null) if null is not None and base is not None else None,
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@cache
def _gate() -> str:
    """Return a digest of the gate itself: what an older one admitted is checked again."""
    folder = Path(moehub.__file__).parent / "admission"
    sources = {path.name: files.sha256(path) for path in sorted(folder.glob("*.py"))}
    return hashlib.sha256(json.dumps([moehub.__version__, sources]).encode()).hexdigest()
