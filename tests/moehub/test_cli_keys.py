import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from moehub.card import SIGNATURE_FILE
from moehub.cli import main
from moehub.hub.folder import FolderHub
from moehub.signing import keys
from moehub.signing.keyring import Keyring
from tests.published import paper_expert, paper_moe
from tests.signing.signed import publisher


@pytest.fixture(autouse=True)
def keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keyring:
    """A keyring of this test alone."""
    monkeypatch.setenv("MOEHUB_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MOEHUB_KEYS", str(tmp_path / "keyring"))
    return Keyring(tmp_path / "keyring")


@pytest.fixture
def law(tmp_path: Path) -> Path:
    return paper_expert(tmp_path / "law")


@pytest.fixture
def hub(tmp_path: Path) -> FolderHub:
    return FolderHub(tmp_path / "hub")


def moehub(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def acme_pub(tmp_path: Path) -> Path:
    """Return the public key of a publisher."""
    return keys.public_file(publisher(tmp_path / "keys of acme" / "key").key)


def test_a_key_is_made_where_push_looks_for_it(keyring: Keyring) -> None:
    """What is printed says which half is for whom, and the fingerprint."""
    result = moehub("keys", "create")
    fingerprint = keys.fingerprint(keys.read_private(keyring.own))
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, fingerprint)
    assert f"{keyring.own} signs: keep it to yourself" in result.stdout


def test_a_key_is_made_where_one_asks_for_it(tmp_path: Path) -> None:
    """With --json for programs."""
    printed = json.loads(moehub("keys", "create", tmp_path / "mine", "--json").stdout)
    fingerprint = keys.fingerprint(keys.read_public(tmp_path / "mine.pub"))
    private, public = str(tmp_path / "mine"), str(tmp_path / "mine.pub")
    assert printed == {"private": private, "public": public, "fingerprint": fingerprint}


def test_a_second_key_does_not_overwrite_the_first(keyring: Keyring) -> None:
    """The failure is one sentence."""
    moehub("keys", "create")
    before = keyring.own.read_bytes()
    result = moehub("keys", "create")
    assert (result.exit_code, keyring.own.read_bytes()) == (1, before)
    assert "is not overwritten" in result.stderr


def test_trusting_shows_the_fingerprint(tmp_path: Path, keyring: Keyring) -> None:
    """That the publisher told by another way."""
    public = acme_pub(tmp_path)
    fingerprint = keys.fingerprint(keys.read_public(public))
    result = moehub("keys", "trust", "acme", public)
    assert (result.exit_code, result.stdout) == (0, f"acme must sign with {fingerprint}\n")
    assert json.loads(moehub("keys", "trust", "acme/law", public, "--json").stdout)["fingerprint"] == fingerprint
    assert [pin.publisher for pin in keyring.pins()] == ["acme", "acme/law"]


def test_another_key_is_not_trusted_unless_one_insists(tmp_path: Path, keyring: Keyring) -> None:
    """A thief sends a new key with a friendly letter."""
    moehub("keys", "trust", "acme", acme_pub(tmp_path))
    thief = publisher(tmp_path / "thief" / "key")
    refused = moehub("keys", "trust", "acme", keys.public_file(thief.key))
    assert (refused.exit_code, "--replace" in refused.stderr) == (1, True)
    assert moehub("keys", "trust", "acme", keys.public_file(thief.key), "--replace").exit_code == 0
    assert [pin.key for pin in keyring.pins()] == [thief.public]


def test_a_file_that_is_not_there_is_bad_usage() -> None:
    """Exit code 2."""
    assert moehub("keys", "trust", "acme", "nothing.pub").exit_code == 2


def test_the_list_shows_fingerprint_publisher_and_since(tmp_path: Path, keyring: Keyring) -> None:
    """And one's own key, as a line or as JSON."""
    moehub("keys", "create")
    moehub("keys", "trust", "acme", acme_pub(tmp_path))
    (pin,) = keyring.pins()
    own = keys.fingerprint(keys.read_private(keyring.own))
    assert moehub("keys", "list").stdout == f"{pin.fingerprint}  acme  since {pin.since}\n{own}  your own\n"
    listed = json.loads(moehub("keys", "list", "--json").stdout)
    trusted = {"publisher": "acme", "fingerprint": pin.fingerprint, "since": pin.since}
    assert listed == {"own": own, "trusted": [trusted]}


def test_an_empty_list_says_so_and_prints_no_result() -> None:
    """Or empty JSON."""
    result = moehub("keys", "list")
    assert (result.exit_code, result.stdout, "holds no keys" in " ".join(result.stderr.split())) == (0, "", True)
    assert json.loads(moehub("keys", "list", "--json").stdout) == {"own": None, "trusted": []}


def test_a_forgotten_key_is_asked_for_no_more(tmp_path: Path, law: Path, hub: FolderHub) -> None:
    """What is unsigned arrives again."""
    moehub("push", law, "acme/law", "--hub", hub.root)
    moehub("keys", "trust", "acme", acme_pub(tmp_path))
    pull = ("pull", "acme/law", tmp_path / "pulled", "--hub", hub.root)
    refused = moehub(*pull)
    assert (refused.exit_code, "is not what acme signed" in " ".join(refused.stderr.split())) == (1, True)
    assert moehub("keys", "untrust", "acme").exit_code == 0
    assert moehub(*pull).exit_code == 0
    assert moehub("keys", "untrust", "acme").exit_code == 1


def test_a_signed_push_is_pulled_by_whoever_trusts_the_key(
    tmp_path: Path, law: Path, hub: FolderHub, keyring: Keyring
) -> None:
    """The whole road of a signature."""
    moehub("keys", "create")
    assert moehub("push", law, "acme/law", "--sign", "--hub", hub.root).exit_code == 0
    moehub("keys", "trust", "acme", keys.public_file(keyring.own))
    assert moehub("pull", "acme/law", tmp_path / "pulled", "--hub", hub.root).exit_code == 0
    assert (tmp_path / "pulled" / SIGNATURE_FILE).is_file()


def test_naming_a_key_is_asking_for_a_signature(tmp_path: Path, law: Path, hub: FolderHub) -> None:
    """With another key than one's own."""
    key = publisher(tmp_path / "other" / "key").key
    assert moehub("push", law, "acme/law", "--key", key, "--hub", hub.root).exit_code == 0
    assert (law / SIGNATURE_FILE).is_file()


def test_signing_without_a_key_says_how_to_make_one(law: Path, hub: FolderHub) -> None:
    """And publishes nothing."""
    result = moehub("push", law, "acme/law", "--sign", "--hub", hub.root)
    assert (result.exit_code, "`moehub keys create`" in result.stderr, hub.root.exists()) == (1, True, False)


def test_a_dry_run_signs_nothing(law: Path, hub: FolderHub) -> None:
    """It names the key."""
    moehub("keys", "create")
    result = moehub("push", law, "acme/law", "--sign", "--dry-run", "--hub", hub.root)
    assert (result.exit_code, (law / SIGNATURE_FILE).exists(), hub.root.exists()) == (0, False, False)
    assert "it would be signed with" in result.stderr


def test_a_raised_version_is_said(tmp_path: Path, law: Path, hub: FolderHub) -> None:
    """On standard error: the result stays alone."""
    moehub("push", law, "acme/law", "--hub", hub.root)
    second = paper_expert(tmp_path / "second", weights=b"better")
    result = moehub("push", second, "acme/law", "--hub", hub.root)
    assert "is version 2 now, was 1" in " ".join(result.stderr.split())
    assert len(result.stdout.splitlines()) == 2


def test_federated_experts_are_signed_too(tmp_path: Path, hub: FolderHub) -> None:
    """Each of them, by whoever publishes."""
    for name in ("law", "code"):
        paper_expert(tmp_path / "federation" / "experts" / name)
    moehub("keys", "create")
    result = moehub("federate", "push", tmp_path / "federation", "acme", "--sign", "--hub", hub.root)
    assert result.exit_code == 0, result.output
    assert len(list(hub.root.glob(f"acme/*/commits/*/{SIGNATURE_FILE}"))) == 2


def test_a_moe_is_signed_with_a_file_of_its_own(tmp_path: Path, hub: FolderHub) -> None:
    """Beside the signatures of its experts."""
    moehub("keys", "create")
    moe = paper_moe(tmp_path / "moe")
    assert moehub("push", moe, "acme/moe", "--sign", "--hub", hub.root).exit_code == 0
    assert (moe / "moe.sig").is_file()
