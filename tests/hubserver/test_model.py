"""The store against a model in memory that fits on a page: whatever people do, both say the same.

With MOEHUB_NIGHTLY set it takes at least 10,000 steps.
"""

import datetime as dt
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store import fsck, trees
from moehub.hubserver.store.collection import collect
from moehub.hubserver.store.history import Change
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.store import open_store
from moehub.hubserver.visitor import EVERYBODY, Visitor

NIGHTLY = bool(os.environ.get("MOEHUB_NIGHTLY"))
EXAMPLES, STEPS, LEAST = (260, 50, 10_000) if NIGHTLY else (60, 50, 2_000)
QUOTA = 60
NAMES = st.sampled_from(["acme/law", "Acme/law", "acme/code", "eve/law"])
PATHS = st.sampled_from(["a", "A", "b", "b/c", "b/d", "README.md"])
CONTENTS = st.sampled_from([b"", b"1", b"22", b"4444", b"88888888", b"---\nlicense: mit\n---\n"])
BRANCHES = st.sampled_from(["main", "exp/1", "v1"])


@dataclass
class Modelled:
    """A repo as the model sees it."""

    repo: Repo
    private: bool = False
    refs: dict[str, tuple[str, str]] = field(default_factory=lambda: {"main": ("branch", "")})
    commits: dict[str, tuple[str | None, dict[str, bytes]]] = field(default_factory=dict)
    uploaded: set[bytes] = field(default_factory=set)

    def files(self, oid: str) -> dict[str, bytes]:
        return self.commits[oid][1] if oid else {}


def stand_together(paths: set[str]) -> bool:
    """Return whether one folder can hold these files on every system."""
    folders = {path[:end] for path in paths for end, letter in enumerate(path) if letter == "/"}
    folded = [name.lower() for name in sorted(paths | folders)]
    return len(set(folded)) == len(paths) + len(folders)


def tried(action: Callable[..., Any], *arguments: Any, **more: Any) -> tuple[int, Any]:
    """Return 0 and what an action returns, or the status of the refusal."""
    try:
        return 0, action(*arguments, **more)
    except RefusedError as error:
        return error.status, None


class Hub(RuleBasedStateMachine):
    """People who create, upload, commit, name, delete and collect, in any order."""

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))  # noqa: S108 (a disk in memory)
        self.store = open_store(self.folder / "hub", create=True, quota=QUOTA)
        self.repos: dict[str, Modelled] = {}
        self.tokens: dict[str, tuple[str, Visitor]] = {}
        self.all_commits: list[str] = [""]

    def teardown(self) -> None:
        """Check everything at the end of every story."""
        try:
            self.check()
        finally:
            self.store.database.close()
            shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        for name in ("acme/law", "acme/code"):
            self.repos[name] = Modelled(self.store.repos.create(name, EVERYBODY))

    def chosen(self, data: st.DataObject) -> Modelled:
        return self.repos[data.draw(st.sampled_from(sorted(self.repos)))]

    def used(self, repo: Repo) -> int:
        mine = [each for each in self.repos.values() if each.repo.namespace.lower() == repo.namespace.lower()]
        return sum(len(content) for each in mine for content in each.uploaded)

    @rule(name=NAMES)
    def create(self, name: str) -> None:
        taken = name.lower() in self.repos
        status, repo = tried(self.store.repos.create, name, EVERYBODY)
        assert status == (409 if taken else 0)
        if not taken:
            self.repos[name.lower()] = Modelled(repo)

    @precondition(lambda self: self.repos)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        gone = self.chosen(data)
        self.store.repos.delete(gone.repo)
        del self.repos[gone.repo.id.lower()]
        assert tried(self.store.uploads.take_bytes, b"late", gone.repo.number)[0] == 404

    @precondition(lambda self: self.repos)
    @rule(data=st.data(), private=st.booleans())
    def hide(self, data: st.DataObject, private: bool) -> None:
        modelled = self.chosen(data)
        self.store.repos.set(modelled.repo, private=private)
        modelled.private = private

    @precondition(lambda self: self.repos)
    @rule(data=st.data(), content=CONTENTS)
    def upload(self, data: st.DataObject, content: bytes) -> None:
        modelled = self.chosen(data)
        room = content in modelled.uploaded or self.used(modelled.repo) + len(content) <= QUOTA
        status, _ = tried(self.store.uploads.take_bytes, content, modelled.repo.number)
        assert status == (0 if room else 507)
        if room:
            modelled.uploaded.add(content)

    @precondition(lambda self: self.repos)
    @rule(
        data=st.data(),
        branch=BRANCHES,
        files=st.dictionaries(PATHS, CONTENTS, max_size=3),
        deleted=st.lists(PATHS, max_size=1),
        with_parent=st.booleans(),
        uploads=st.booleans(),
    )
    def commit(
        self,
        data: st.DataObject,
        branch: str,
        files: dict[str, bytes],
        deleted: list[str],
        *,
        with_parent: bool,
        uploads: bool,
    ) -> None:
        modelled = self.chosen(data)
        parent = data.draw(st.sampled_from(self.all_commits[-4:])) if with_parent else None
        self.commit_to(modelled, branch, files, deleted, parent, uploads=uploads)

    def commit_to(
        self,
        modelled: Modelled,
        branch: str,
        files: dict[str, bytes],
        deleted: list[str],
        parent: str | None,
        *,
        uploads: bool,
    ) -> None:
        for content in files.values() if uploads else ():
            if self.used(modelled.repo) + len(content) <= QUOTA or content in modelled.uploaded:
                self.store.uploads.take_bytes(content, modelled.repo.number)
                modelled.uploaded.add(content)
        expected = self.expected(modelled, branch, files, deleted, parent)
        entries = {path: trees.regular(content, sha256(content).hexdigest()) for path, content in files.items()}
        change = Change(entries, tuple(deleted))
        commit = partial(self.store.history.commit, modelled.repo, branch, change, title="", author="ada")
        status, oid = tried(commit, parent=parent)
        assert (status or oid) == (oid if isinstance(expected, dict) else expected)
        if isinstance(expected, dict):
            modelled.commits[oid] = (modelled.refs[branch][1] or None, expected)
            modelled.refs[branch] = ("branch", oid)
            self.all_commits.append(oid)

    @precondition(lambda self: self.repos)
    @rule(data=st.data(), files=st.dictionaries(PATHS, CONTENTS, min_size=1, max_size=2))
    def push(self, data: st.DataObject, files: dict[str, bytes]) -> None:
        """Upload and commit to a branch that is there, which most often succeeds."""
        modelled = self.chosen(data)
        branch = data.draw(st.sampled_from([name for name, (kind, _) in modelled.refs.items() if kind == "branch"]))
        there = sorted(modelled.files(modelled.refs[branch][1]))
        deleted = data.draw(st.lists(st.sampled_from(there), max_size=1)) if there else []
        self.commit_to(modelled, branch, files, deleted, None, uploads=True)

    def expected(
        self, modelled: Modelled, branch: str, files: dict[str, bytes], deleted: list[str], parent: str | None
    ) -> int | str | dict[str, bytes]:
        """Return the status of the refusal, the commit that is there already, or the files of the new one."""
        kind, head = modelled.refs.get(branch, ("", ""))
        if kind != "branch":
            return 404

        def changed(before: dict[str, bytes]) -> dict[str, bytes] | None:
            if any(path not in before for path in deleted):
                return None
            return {path: content for path, content in before.items() if path not in deleted} | files

        before = modelled.files(head)
        earlier = modelled.commits[head][0] if head else None
        repeated = bool(head) and changed(modelled.files(earlier or "")) == before
        if parent and parent != head:
            return head if repeated and earlier == parent else 412
        after = changed(before)
        if after is None:
            return head if repeated else 404
        if head and after == before:
            return head
        if not stand_together(set(after)):
            return 400
        return after if set(files.values()) <= modelled.uploaded else 422

    @precondition(lambda self: self.repos)
    @rule(data=st.data(), name=BRANCHES, kind=st.sampled_from(["branch", "tag"]))
    def name(self, data: st.DataObject, name: str, kind: str) -> None:
        modelled = self.chosen(data)
        oid = data.draw(st.sampled_from(self.all_commits[-4:]))
        known = oid in modelled.commits or (not oid and kind == "branch")
        taken = name in modelled.refs
        status, _ = tried(self.store.repos.name, modelled.repo, name, kind, oid)
        assert status == (404 if not known else 409 if taken else 0)
        if not status:
            modelled.refs[name] = (kind, oid)

    @precondition(lambda self: self.repos)
    @rule(data=st.data(), name=BRANCHES, kind=st.sampled_from(["branch", "tag"]))
    def unname(self, data: st.DataObject, name: str, kind: str) -> None:
        modelled = self.chosen(data)
        there = name != "main" and modelled.refs.get(name, ("",))[0] == kind
        status, _ = tried(self.store.repos.unname, modelled.repo, name, kind)
        assert status == (0 if there else 403 if name == "main" else 404)
        if there:
            del modelled.refs[name]

    @rule(dry_run=st.booleans())
    def collect(self, dry_run: bool) -> None:
        done = collect(self.store, grace=dt.timedelta(0), dry_run=dry_run)
        unused = 0
        for modelled in self.repos.values():
            kept = {content for _, files in modelled.commits.values() for content in files.values()}
            unused += len(modelled.uploaded - kept)
            if not dry_run:
                modelled.uploaded &= kept
        assert done.links == unused

    @rule(name=st.sampled_from(["ada", "eve"]), writes=st.booleans())
    def make_token(self, name: str, writes: bool) -> None:
        token, secret = self.store.tokens.create(name, [name, "acme"], writes=writes)
        self.tokens[token.id] = (secret, Visitor(name, frozenset({name, "acme"}), writes))

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def revoke_token(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(list(self.tokens)))
        self.store.tokens.revoke(id_)
        assert self.store.tokens.visitor(self.tokens.pop(id_)[0]) is None

    @rule()
    def reopen(self) -> None:
        self.store.database.close()
        self.store = open_store(self.folder / "hub", quota=QUOTA)

    @rule()
    def check(self) -> None:
        """Read every byte, and compare what there is with what there should be."""
        report = fsck.check(self.store, deep=True)
        assert report.faults == []
        assert report.commits == sum(len(modelled.commits) for modelled in self.repos.values())
        for modelled in self.repos.values():
            for oid, (parent, files) in modelled.commits.items():
                tree = self.store.history.tree(modelled.repo, oid)
                found = {path: self.store.blobs.path(entry.sha256).read_bytes() for path, entry in tree.items()}
                assert found == files
                assert next(self.store.history.before(modelled.repo, oid)).parent == parent

    @invariant()
    def count(self) -> None:
        type(self).steps += 1

    @invariant()
    def repos_and_refs_are_those_of_the_model(self) -> None:
        eve = Visitor("eve", frozenset({"eve"}))
        for name in ("acme/law", "acme/code", "eve/law"):
            modelled = self.repos.get(name)
            seen = modelled is not None and (not modelled.private or name == "eve/law")
            assert tried(self.store.repos.get, name, eve)[0] == (0 if seen else 404)
        for modelled in self.repos.values():
            refs = {ref.name: (ref.kind, ref.oid) for ref in self.store.repos.refs(modelled.repo)}
            assert refs == modelled.refs

    @invariant()
    def a_repo_holds_what_was_uploaded_to_it_and_no_more(self) -> None:
        for modelled in self.repos.values():
            for content in (b"", b"1", b"22", b"4444", b"88888888", b"---\nlicense: mit\n---\n"):
                held = self.store.uploads.holds(modelled.repo.number, sha256(content).hexdigest(), len(content))
                assert held == (content in modelled.uploaded)
            assert self.store.uploads.used(modelled.repo.number) == self.used(modelled.repo)

    @invariant()
    def lists_show_the_newest_of_main(self) -> None:
        for modelled in self.repos.values():
            head = self.store.heads.get(modelled.repo)
            assert (head.oid if head else "") == modelled.refs["main"][1]
            if head:
                card = modelled.files(head.oid).get("README.md", b"")
                assert head.license == ("mit" if b"license" in card else None)

    @invariant()
    def tokens_say_who_they_are(self) -> None:
        for secret, visitor in self.tokens.values():
            assert self.store.tokens.visitor(secret) == visitor


def test_the_store_does_what_the_model_does(capsys: pytest.CaptureFixture[str]) -> None:
    """In every story that was tried."""
    Hub.steps = 0
    run_state_machine_as_test(
        Hub,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            derandomize=not NIGHTLY,
        ),
    )
    capsys.readouterr()  # every check shows its progress
    assert Hub.steps >= LEAST
