"""The commands that look after a hub."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from moehub.cli import main
from moehub.hubserver.store.store import Store, open_store
from moehub.hubserver.store.upkeep import alone
from moehub.hubserver.visitor import Visitor
from tests.hubserver.conftest import Served
from tests.hubserver.pushes import push, repo_of


@pytest.fixture
def law(store: Store) -> Store:
    push(store, "acme/law", {"README.md": b"hello"})
    return store


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["hub", *map(str, arguments)])


def test_a_token_stands_alone_on_standard_output(store: Store) -> None:
    """And says what it was made for."""
    made = run(
        "token", "create", "ada", "--root", store.root, "--namespace", "Acme", "--namespace", "ada", "--write",
        "--expires", "90d", "--grant", "org/law",
    )  # fmt: skip
    assert made.exit_code == 0
    [secret] = made.stdout.splitlines()
    assert store.tokens.visitor(secret) == Visitor("ada", frozenset({"acme", "ada"}), True, frozenset({"org/law"}))
    [token] = store.tokens.list()
    assert f"the token {token.id} of ada reads and writes acme, ada until {token.expires}" in made.stderr
    assert secret not in made.stderr


def test_a_token_reads_the_namespace_of_its_name_unless_told_otherwise(store: Store) -> None:
    """And lasts until it is revoked."""
    made = run("token", "create", "ada", "--root", store.root)
    assert store.tokens.visitor(made.stdout.strip()) == Visitor("ada", frozenset({"ada"}))
    assert "reads ada until it is revoked" in made.stderr


def test_the_first_token_makes_the_hub(tmp_path: Path) -> None:
    """So it can be there before the server is."""
    made = run("token", "create", "ada", "--root", tmp_path / "hub")
    assert open_store(tmp_path / "hub").tokens.visitor(made.stdout.strip()) is not None


@pytest.mark.parametrize("time", ["", "90", "d", "-1d", "1.5d", "90 d", "1y", "99999d"])
def test_a_time_that_is_none_is_bad_usage(store: Store, time: str) -> None:
    """No token is made."""
    made = run("token", "create", "ada", "--root", store.root, "--expires", time)
    assert (made.exit_code, made.stdout) == (2, "")
    assert "expected hours, days or weeks" in made.stderr
    assert store.tokens.list() == []


def test_tokens_are_listed_without_what_is_secret(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a table, and as JSON."""
    monkeypatch.setenv("MOEHUB_ROOT", str(store.root))
    _, secret = store.tokens.create("ada", ["acme"], writes=True)
    store.tokens.create("eve", ["eve"])
    table, listed = run("token", "list"), run("token", "list", "--json")
    found = json.loads(listed.stdout)
    assert [(each["name"], each["writes"], each["namespaces"]) for each in found] == [
        ("ada", True, ["acme"]),
        ("eve", False, ["eve"]),
    ]
    for word in ("ada", "write", "acme", "eve", "read", "never", *(each["id"] for each in found)):
        assert word in table.stdout
    assert secret not in table.stdout + listed.stdout


def test_a_hub_without_tokens_says_how_to_make_one(store: Store) -> None:
    """On standard error; the list itself is empty."""
    listed = run("token", "list", "--root", store.root)
    assert (listed.exit_code, listed.stdout) == (0, "")
    assert "`moehub hub token create NAME` makes one" in listed.stderr


def test_revoked_tokens_open_nothing(store: Store) -> None:
    """Several at once; one that is not there is a failure."""
    ids = [store.tokens.create(name, [name])[0].id for name in ("ada", "bob", "eve")]
    revoked = run("token", "revoke", *ids[:2], "--root", store.root)
    assert revoked.exit_code == 0
    assert [token.name for token in store.tokens.list()] == ["eve"]
    again = run("token", "revoke", ids[0], "--root", store.root)
    assert again.exit_code == 1
    assert f"there is no token '{ids[0]}'" in again.stderr


def test_tokens_are_made_and_revoked_while_the_hub_serves(hub: Served) -> None:
    """Both count at once."""
    secret = run("token", "create", "new", "--root", hub.store.root).stdout.strip()
    assert hub.ask("GET", "/api/whoami-v2", token=secret).json()["name"] == "new"
    run("token", "revoke", hub.store.tokens.list()[-1].id, "--root", hub.store.root)
    assert hub.ask("GET", "/api/whoami-v2", token=secret).status_code == 401


def test_fsck_tells_faults_from_notes(law: Store) -> None:
    """By its exit code, too."""
    healthy = run("fsck", "--root", law.root, "--deep")
    assert healthy.exit_code == 0
    assert "no fault in 1 repos, 1 commits, 1 files, each of them read" in healthy.stderr
    [path] = law.blobs.folder.glob("*/*")
    path.chmod(0o640)
    path.write_bytes(b"jello")
    assert run("fsck", "--root", law.root).exit_code == 0
    damaged = run("fsck", "--root", law.root, "--deep", "--json")
    report = json.loads(damaged.stdout)
    assert (damaged.exit_code, len(report["faults"]), report["notes"], report["deep"]) == (1, 1, [], True)
    assert f"the file {path} holds other bytes" in run("fsck", "--root", law.root, "--deep").stderr


def test_gc_says_what_it_removes(law: Store) -> None:
    """A dry run and JSON, too."""
    law.uploads.take_bytes(b"12345", repo_of(law, "acme/law").number)
    assert "removed: 0 files" in run("gc", "--root", law.root).stderr
    dry = run("gc", "--root", law.root, "--grace", "0h", "--dry-run")
    assert "would be removed: 1 files (5 bytes), 1 uploads without a commit" in dry.stderr
    done = run("gc", "--root", law.root, "--grace", "0h", "--json")
    assert json.loads(done.stdout) == {"blobs": 1, "bytes": 5, "links": 1, "trees": 0, "uploads": 0}


def test_a_backup_can_be_served(law: Store, tmp_path: Path) -> None:
    """It is a hub's folder."""
    made = run("backup", tmp_path / "copy", "--root", law.root)
    assert made.exit_code == 0
    assert f"{tmp_path / 'copy'} holds 1 repos, 1 files (5 bytes); 1 are new" in made.stderr
    again = run("backup", tmp_path / "copy", "--root", law.root, "--json")
    assert json.loads(again.stdout) == {"blobs": 1, "bytes": 5, "linked": 0, "new": 0, "repos": 1}
    assert run("fsck", "--root", tmp_path / "copy", "--deep").exit_code == 0


@pytest.mark.parametrize("command", [["fsck"], ["gc"], ["backup", "copy"], ["token", "list"], ["token", "revoke", "x"]])
def test_without_a_hub_there_is_a_sentence(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none is made."""
    monkeypatch.chdir(tmp_path)
    done = run(*command, "--root", tmp_path / "nothing")
    assert done.exit_code == 1
    assert f"{tmp_path / 'nothing'} holds no hub" in done.stderr
    assert os.listdir(tmp_path) == []  # noqa: PTH208 (names are compared)


@pytest.mark.parametrize("command", [["fsck"], ["gc"], ["backup", "copy"]])
def test_one_looks_after_a_hub_at_a_time(
    command: list[str], law: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is told to wait, and leaves nothing."""
    monkeypatch.chdir(tmp_path)
    with alone(law.root):
        done = run(*command, "--root", law.root)
    assert done.exit_code == 1
    assert "wait until that is done" in done.stderr
    assert not (tmp_path / "copy").exists()
