"""The gate on push, with the store alone: what it is given, what it remembers, and what happens when it breaks."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from moehub.card import CARD_FILE, read_card
from moehub.hubserver.candidates import candidates
from moehub.hubserver.checking import Checker, checker
from moehub.hubserver.examiner import Examiner, Limits
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.settings import ServerSettings
from moehub.hubserver.store import trees
from moehub.hubserver.store.history import Change
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.store import Store
from moehub.hubserver.visitor import EVERYBODY
from tests.hubserver import troubled_gate
from tests.world import World

LIMITS = Limits(seconds=60, memory=4 << 30)


@pytest.fixture(scope="module")
def examiner() -> Iterator[Examiner]:
    """One process for the tests that do not break it."""
    found = Examiner(LIMITS, command=troubled_gate.COMMAND)
    yield found
    found.close()


@pytest.fixture(autouse=True)
def log(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the process writes down what it was given: one file, since the process outlives a test."""
    path = tmp_path_factory.getbasetemp() / "troubled.jsonl"
    path.unlink(missing_ok=True)
    monkeypatch.setenv(troubled_gate.LOG, str(path))
    return path


@pytest.fixture
def check(store: Store, examiner: Examiner) -> Checker:
    return Checker(store, examiner)


def contents(folder: Path, below: str = "") -> dict[str, bytes]:
    """Return the files of a folder, to be pushed below another."""
    return {below + path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def named(expert: Path, name: str) -> dict[str, bytes]:
    """Return an expert's files with another name on its card."""
    card = dataclasses.replace(read_card(expert), name=name)
    return {**contents(expert), CARD_FILE: card.to_json().encode()}


def push(store: Store, repo: str, files: Mapping[str, bytes], admit: Any, *, branch: str = "main") -> str:
    """Commit files as a client would, and return the commit."""
    try:
        found = store.repos.get(repo, EVERYBODY)
    except RefusedError:
        found = store.repos.create(repo, EVERYBODY)
    return store.history.commit(
        found, branch, change(store, found, files), title="Push", author="somebody", admit=admit
    )


def change(store: Store, repo: Repo, files: Mapping[str, bytes]) -> Change:
    blobs = {name: store.uploads.take_bytes(content, repo.number) for name, content in files.items()}
    return Change({name: trees.large(blob.sha256, blob.size) for name, blob in blobs.items()})


def noted(log: Path) -> list[dict[str, Any]]:
    """Return what every examination was given."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def refusal(store: Store, repo: str, files: Mapping[str, bytes], admit: Any) -> RefusedError:
    """Push, expect a refusal and an untouched repo, and return the refusal."""
    with pytest.raises(RefusedError) as raised:
        push(store, repo, files, admit)
    assert [ref.oid for ref in store.repos.refs(store.repos.get(repo, EVERYBODY))] == [""]
    return raised.value


def test_a_good_expert_is_admitted_and_its_verdict_kept(store: Store, check: Checker, world: World) -> None:
    """The verdict lies where the page of the repo looks for it, with the checks that were not made."""
    oid = push(store, "acme/law", contents(world.experts["law"]), check)
    repo = store.repos.get("acme/law", EVERYBODY)
    [candidate] = candidates(repo.id, store.history.tree(repo, oid))
    kept = store.verdicts.get(candidate.key)
    assert kept is not None
    assert (kept["admitted"], kept["skipped"]) == (
        True,
        [{"code": "grounded", "step": 3, "reason": "no base at hand"}],
    )


def test_a_bad_expert_is_refused_with_code_sentence_and_cure(store: Store, check: Checker, world: World) -> None:
    """Its publisher reads which expert, what is wrong with it and what to do."""
    error = refusal(store, "acme/law", named(world.experts["law"], "bad"), check)
    assert error.status == 422
    assert "troubled: acme/law: its name is 'bad', expected a good one: rename it" in str(error)
    kept = store.database.reading().execute("select count(*) from verdict").fetchone()[0]
    assert kept == 0  # it is in no commit, and no page may call the same files in another repo refused


def test_the_gate_sees_every_file_of_a_repo_but_the_clients_own(
    store: Store, check: Checker, world: World, log: Path
) -> None:
    """A file that an expert has no business with cannot hide in a folder; .gitattributes is never pulled."""
    files = {**contents(world.experts["law"]), ".gitattributes": b"", "tools/run.py": b"import os"}
    push(store, "acme/law", files, check)
    assert noted(log)[0]["files"] == sorted({*files, "tools/run.py"} - {".gitattributes"})


def test_the_same_expert_is_not_examined_twice(store: Store, check: Checker, world: World, log: Path) -> None:
    """Neither on another branch, nor when a file of another folder changes nothing about it."""
    first = push(store, "acme/law", contents(world.experts["law"]), check)
    repo = store.repos.get("acme/law", EVERYBODY)
    store.repos.name(repo, "again", "branch", first)
    push(store, "acme/law", {".gitattributes": b"# nothing"}, check, branch="again")
    # Of the first push nobody had seen a version before.
    push(store, "acme/law", {".gitattributes": b"# nothing else"}, check)
    push(store, "acme/law", {".gitattributes": b"# nothing else at all"}, check)
    assert [entry["least_version"] for entry in noted(log)] == [None, 1]


def test_the_same_expert_in_another_repo_is_examined_for_that_repo(
    store: Store, check: Checker, world: World, log: Path
) -> None:
    """Whose key must have signed it depends on who publishes it."""
    push(store, "acme/law", contents(world.experts["law"]), check)
    push(store, "other/law", contents(world.experts["law"]), check)
    assert [entry["repo"] for entry in noted(log)] == ["acme/law", "other/law"]
    subjects = store.database.reading().execute("select verdict ->> 'subject' from verdict order by 1").fetchall()
    assert [subject for (subject,) in subjects] == ["acme/law", "other/law"]


def test_a_changed_gate_examines_again(
    store: Store, check: Checker, world: World, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an older gate admitted is no proof for a newer one."""
    moe = {"config.json": b"{}", **contents(world.experts["law"], "experts/law/")}
    push(store, "acme/moe", moe, check)
    push(store, "acme/moe", {"README.md": b"one"}, check)
    assert len(noted(log)) == 1
    monkeypatch.setattr("moehub.hubserver.checking._gate", lambda: "another")
    push(store, "acme/moe", {"README.md": b"two"}, check)
    assert len(noted(log)) == 2


def test_an_expert_comes_with_the_version_before_it(store: Store, check: Checker, world: World, log: Path) -> None:
    """A replay is measured against the newest that the repo held, also after its card was deleted."""
    expert = world.experts["law"]
    newer = {**contents(expert), CARD_FILE: dataclasses.replace(read_card(expert), version=7).to_json().encode()}
    push(store, "acme/law", newer, check)
    repo = store.repos.get("acme/law", EVERYBODY)
    store.history.commit(repo, "main", Change(deleted_files=(CARD_FILE,)), title="Hide", author="a", admit=check)
    push(store, "acme/law", contents(expert), check)
    assert [entry["least_version"] for entry in noted(log)] == [None, 7]


def test_every_expert_of_a_moe_is_examined(store: Store, check: Checker, world: World, log: Path) -> None:
    """One bad expert keeps the whole MoE out, and is named."""
    moe = {"config.json": b"{}", "merge.lock": b"{}"}
    for name in ("law", "code"):
        moe |= contents(world.experts[name], f"experts/{name}/")
    bad = named(world.experts["math"], "bad")
    moe |= {f"experts/bad/{name}": content for name, content in bad.items()}
    error = refusal(store, "acme/moe", moe, check)
    assert "troubled: acme/moe/experts/bad: its name is 'bad'" in str(error)
    assert [entry["repo"] for entry in noted(log)] == [None, None, None]


def test_a_folder_of_experts_without_a_card_is_examined_in_a_moe(store: Store, check: Checker) -> None:
    """Leaving the card out does not lead around the gate."""
    files = {"config.json": b"{}", "experts/law/adapter_model.safetensors": b"anything"}
    assert "noted: acme/moe/experts/law: there is no card" in str(refusal(store, "acme/moe", files, check))


def test_a_base_or_a_plain_model_never_meets_the_gate(store: Store, world: World) -> None:
    """No process is started for them."""
    with Checker(store, Examiner(LIMITS, command=("false",))) as check:
        push(store, "acme/base", contents(world.base), check)
        push(store, "acme/notes", {"README.md": b"# Notes", "experts.md": b"none"}, check)
        assert check.examiner.process is None


def test_a_base_on_this_hub_is_found_by_its_digest(store: Store, check: Checker, world: World, log: Path) -> None:
    """Whatever its repo is called; it serves static checks alone, since nobody chose it."""
    push(store, "acme/notes", {"config.json": b"{}"}, check)
    push(store, "acme/some-name", contents(world.base), check)
    push(store, "acme/law", contents(world.experts["law"]), check)
    push(store, "acme/code", contents(world.experts["code"]), check)
    digest = read_card(world.experts["law"]).base.digest
    assert [(entry["pin"], entry["config"], entry["base"]) for entry in noted(log)] == [(digest, True, False)] * 2


def test_a_private_base_serves_its_own_namespace_alone(store: Store, check: Checker, world: World, log: Path) -> None:
    """Others do not learn from refusals what it looks like."""
    push(store, "acme/base", contents(world.base), check)
    store.repos.set(store.repos.get("acme/base", EVERYBODY), private=True)
    push(store, "other/law", contents(world.experts["law"]), check)
    push(store, "acme/law", contents(world.experts["law"]), check)
    assert [entry["pin"] is not None for entry in noted(log)] == [False, True]


@pytest.mark.parametrize("where", ["folder", "repo"])
def test_a_base_that_the_operator_named_serves_forward_passes(
    store: Store, examiner: Examiner, world: World, log: Path, where: str
) -> None:
    """With the generic text that was named beside it."""
    if where == "repo":
        push(store, "acme/base", contents(world.base), lambda *_: None)
    named_base = str(world.base) if where == "folder" else "acme/base"
    check = Checker(store, examiner, bases=("acme/missing", named_base), null=world.null)
    push(store, "acme/law", contents(world.experts["law"]), check)
    assert [(entry["base"], entry["null"]) for entry in noted(log)] == [(True, True)]


@pytest.mark.parametrize(
    ("repo", "sentence"),
    [
        ("acme/lie", "the gate gave no verdict"),
        ("acme/hide", "the gate gave no verdict"),
        ("acme/empty", "the gate gave no verdict"),
    ],
)
def test_a_strange_verdict_admits_nothing(store: Store, check: Checker, world: World, repo: str, sentence: str) -> None:
    """Only a verdict that says true, and names no refusal, opens the gate."""
    assert sentence in str(refusal(store, repo, contents(world.experts["law"]), check))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("die", "it broke the process that read it"),
        ("raise", "ValueError: something that no check foresaw"),
        ("hog", "it took more memory than the 4096 MiB it may"),
    ],
)
def test_an_expert_that_breaks_the_gate_is_refused(
    store: Store, check: Checker, world: World, name: str, sentence: str
) -> None:
    """And the next one is examined as if nothing had happened."""
    error = refusal(store, "acme/law", named(world.experts["law"], name), check)
    assert error.status == 422
    assert f"check-failed: acme/law could not be checked: {sentence}" in str(error)
    push(store, "acme/code", contents(world.experts["code"]), check)


def test_an_expert_that_takes_too_long_is_refused(store: Store, world: World) -> None:
    """The process that hangs is ended."""
    with Checker(store, Examiner(Limits(seconds=6), command=troubled_gate.COMMAND)) as check:
        push(store, "acme/code", contents(world.experts["code"]), check)  # the start is not what takes long
        process = check.examiner.process
        assert process is not None
        check.examiner.limits = Limits(seconds=0.5)
        error = refusal(store, "acme/law", named(world.experts["law"], "hang"), check)
        assert "it took longer than the 0.5 seconds it may" in str(error)
        assert process.poll() is not None


def test_the_process_is_started_again_after_a_kill(store: Store, world: World) -> None:
    """Whoever killed it between two pushes disturbs nobody."""
    with Checker(store, Examiner(LIMITS, command=troubled_gate.COMMAND)) as check:
        push(store, "acme/code", contents(world.experts["code"]), check)
        first = check.examiner.process
        assert first is not None
        first.kill()
        first.wait()
        push(store, "acme/law", contents(world.experts["law"]), check)


def test_a_busy_gate_says_so(store: Store, world: World) -> None:
    """Nobody waits for ever behind somebody else's expert."""
    with Checker(store, Examiner(Limits(seconds=0.1), command=troubled_gate.COMMAND)) as check:
        with check.examiner._turn, pytest.raises(RefusedError, match="busy") as raised:
            push(store, "acme/law", contents(world.experts["law"]), check)
        assert raised.value.status == 503


def test_closing_ends_a_process_that_hangs(store: Store, world: World, log: Path) -> None:
    """Whoever waits for it is refused, and nothing starts it again."""
    check = Checker(store, Examiner(LIMITS, command=troubled_gate.COMMAND))
    refused: list[RefusedError] = []

    def hang() -> None:
        try:
            push(store, "acme/law", named(world.experts["law"], "hang"), check)
        except RefusedError as error:
            refused.append(error)
        store.database.close()

    thread = threading.Thread(target=hang)
    thread.start()
    wait_for(lambda: bool(noted(log)))
    process = check.examiner.process
    assert process is not None
    check.close()
    thread.join(10)
    assert process.poll() is not None
    assert [error.status for error in refused] == [422]
    assert "the hub is being stopped" in str(refusal(store, "acme/code", contents(world.experts["code"]), check))


@pytest.mark.parametrize("name", ["law", "hang"])
def test_the_process_ends_with_a_server_that_is_killed(tmp_path: Path, world: World, name: str, log: Path) -> None:
    """By kill -9, idle or in the middle of an examination."""
    files = tmp_path / "expert"
    files.mkdir()
    for file, content in named(world.experts["law"], name).items():
        (files / file).write_bytes(content)
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(tmp_path / "hub"), str(files)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, troubled_gate.LOG: str(log)},
    )
    wait_for(lambda: bool(noted(log)))
    children = psutil.Process(server.pid).children(recursive=True)
    assert len(children) == 1
    os.kill(server.pid, signal.SIGKILL)
    server.communicate()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


_SERVER = """
import sys, time
from pathlib import Path
from moehub.hubserver.checking import Checker
from moehub.hubserver.examiner import Examiner, Limits
from moehub.hubserver.store.store import open_store
from tests.hubserver import troubled_gate
from tests.hubserver.test_checking import contents, push
store = open_store(Path(sys.argv[1]), create=True)
check = Checker(store, Examiner(Limits(seconds=60), command=troubled_gate.COMMAND))
push(store, "acme/law", contents(Path(sys.argv[2])), check)
time.sleep(60)
"""


def test_what_a_killed_server_left_is_removed(store: Store) -> None:
    """Links to blobs in the workplace are nobody's, and would keep deleted bytes on the disk."""
    left = store.root / "checking" / "abc" / "expert"
    left.mkdir(parents=True)
    with Checker(store, Examiner(LIMITS)) as check:
        assert list(check.workplace.iterdir()) == []


def test_nothing_stays_behind_a_check(store: Store, check: Checker, world: World) -> None:
    """Neither after an admission nor after a refusal, and the blobs are as they were."""
    push(store, "acme/law", contents(world.experts["law"]), check)
    refusal(store, "acme/bad", named(world.experts["law"], "bad"), check)
    assert list(check.workplace.iterdir()) == []


def test_the_hubs_own_gate_admits_what_was_trained_well(store: Store, world: World) -> None:
    """With the true checks and the base on the hub."""
    with checker(store, ServerSettings(store.root, bases=(str(world.base),))) as check:
        for name, folder in world.experts.items():
            push(store, f"acme/{name}", contents(folder), check)
        assert check.examiner.process is not None


def wait_for(condition: Any, seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)
