"""The gate on push, through a running hub and the unmodified client; and the whole corpus of attacks."""

import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from moehub.admission.registry import registered as checks
from moehub.card import CARD_FILE, read_card
from moehub.cli import main
from moehub.hubserver.candidates import candidates
from moehub.hubserver.checking import Checker
from moehub.hubserver.examiner import Examiner, Limits
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.store import open_store
from moehub.hubserver.visitor import EVERYBODY
from moehub.signing import keys
from moehub.signing.keyring import VARIABLE, Keyring
from tests.attacks import Attack, registered
from tests.hubserver.conftest import Served, served
from tests.hubserver.test_checking import push
from tests.world import World

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub asks httpx2 so


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A hub with a gate."""
    with served(tmp_path_factory.mktemp("guarded") / "hub", gate=True) as found:
        yield found


@pytest.fixture
def plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client uploads without Xet."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


def files_of(folder: Path) -> dict[str, bytes]:
    """Return what of a folder can travel: regular files."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    return {name: path.read_bytes() for name, path in found.items() if stat.S_ISREG(path.lstat().st_mode)}


@pytest.mark.usefixtures("plain_http")
def test_the_client_pushes_a_good_expert(guarded: Served, world: World) -> None:
    """And its verdict is where the hub's pages look for it."""
    api = HfApi(guarded.url, token=guarded.ada)
    api.create_repo("acme/good")
    commit = api.upload_folder(repo_id="acme/good", folder_path=world.experts["law"])
    repo = guarded.store.repos.get("acme/good", EVERYBODY)
    [candidate] = candidates(repo.id, guarded.store.history.tree(repo, commit.oid))
    verdict = guarded.store.verdicts.get(candidate.key)
    assert verdict is not None
    assert verdict["admitted"] is True
    assert {one["code"] for one in verdict["skipped"]} & set(verdict["seconds"]) == set()


@pytest.mark.usefixtures("plain_http")
def test_the_client_is_told_why_an_expert_is_refused(guarded: Served, world: World, tmp_path: Path) -> None:
    """The code, the sentence and the cure, in the client's own error; the repo stays as it was."""
    chosen = next(each for each in registered() if each.code == "finite")
    bad = chosen.make(tmp_path / "bad", world)
    api = HfApi(guarded.url, token=guarded.ada)
    api.create_repo("acme/bad")
    before = api.list_repo_refs("acme/bad").branches[0].target_commit
    with pytest.raises(HfHubHTTPError, match="finite: acme/bad: ") as raised:
        api.upload_folder(repo_id="acme/bad", folder_path=bad)
    assert raised.value.response.status_code == 422
    assert api.list_repo_refs("acme/bad").branches[0].target_commit == before


def test_moehub_push_says_why_an_expert_is_refused(
    guarded: Served, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a sentence, with exit code 1."""
    monkeypatch.setenv("MOEHUB_TOKEN", guarded.ada)
    bad = next(each for each in registered() if each.code == "finite").make(tmp_path / "bad", world)
    ran = CliRunner().invoke(main, ["push", str(bad), "acme/refused", "--hub", guarded.url])
    assert ran.exit_code == 1
    assert "finite: acme/refused: " in ran.output
    assert "Traceback" not in ran.output


def test_moehub_push_publishes_a_good_expert(guarded: Served, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the gate, in one commit."""
    monkeypatch.setenv("MOEHUB_TOKEN", guarded.ada)
    ran = CliRunner().invoke(main, ["push", str(world.experts["code"]), "acme/code", "--hub", guarded.url])
    assert ran.exit_code == 0, ran.output
    assert CARD_FILE in HfApi(guarded.url).list_repo_files("acme/code")


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory, world: World) -> Iterator[Checker]:
    """The true gate, on a hub that holds the base."""
    made = open_store(tmp_path_factory.mktemp("store") / "hub", create=True)
    with Checker(made, Examiner(Limits(seconds=60))) as found:
        push(made, "acme/base", files_of(world.base), found)
        yield found
    made.database.close()


def attacks() -> list[Attack]:
    """Return one attack for each code of the steps that need no more than the base."""
    steps = {one.code: one.step for one in checks()}
    left_out = {
        "linked-file": "a commit holds no links",
        "special-file": "a commit holds nothing but files",
        "hidden-file": "the client's own .gitattributes is no part of an expert",
        "pickle-file": "refused by its name before the gate",
        "base": "without the base that the card names, no base is at hand",
    }
    found: dict[str, Attack] = {}
    for attack in registered():
        if steps[attack.code] < 7 and attack.code not in left_out and not attack.name.startswith(("missing", "folder")):
            found.setdefault(attack.code, attack)
    return list(found.values())


@pytest.mark.parametrize("chosen", attacks(), ids=lambda each: each.code)
def test_no_attack_gets_in_by_a_push(chosen: Attack, check: Checker, world: World, tmp_path: Path) -> None:
    """One of each kind that the gate knows, refused with its code."""
    bad = chosen.make(tmp_path / "bad", world)
    with pytest.raises(RefusedError, match=f"{chosen.code}: acme/law: ") as raised:
        push(check.store, "acme/law", files_of(bad), check)
    assert raised.value.status == 422


def test_a_replay_is_refused(check: Checker, world: World) -> None:
    """An older version than the one that the repo held before."""
    expert = world.experts["code"]
    newer = dataclasses.replace(read_card(expert), version=7).to_json().encode()
    push(check.store, "acme/code", {**files_of(expert), CARD_FILE: newer}, check)
    with pytest.raises(RefusedError, match="version: acme/code: "):
        push(check.store, "acme/code", files_of(expert), check)


def test_an_expert_without_the_pinned_signature_is_refused(check: Checker, world: World, tmp_path: Path) -> None:
    """As soon as a key is pinned on the hub's machine, also for what was admitted before."""
    push(check.store, "acme/math", files_of(world.experts["math"]), check)
    push(check.store, "acme/math", {".gitattributes": b"# of a version that was seen"}, check)
    ring = Keyring(Path(os.environ[VARIABLE]))
    pin = ring.pin("acme/math", keys.create(tmp_path / "key"))
    try:
        with pytest.raises(RefusedError, match="signature: acme/math: "):
            push(check.store, "acme/math", {".gitattributes": b"# nothing"}, check)
    finally:
        ring.unpin(pin.publisher)
    push(check.store, "acme/math", {".gitattributes": b"# nothing"}, check)
