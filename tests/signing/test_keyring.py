import json
from pathlib import Path

import pytest

from moehub import files
from moehub.errors import SigningError
from moehub.signing import keys
from moehub.signing.keyring import Keyring
from tests.signing.signed import Publisher, publisher


@pytest.fixture
def other(tmp_path: Path) -> Publisher:
    return publisher(tmp_path / "keys of another" / "key")


def test_a_pinned_key_holds_for_all_repos_of_its_publisher(keyring: Keyring, acme: Publisher) -> None:
    """And for nobody else's."""
    pin = keyring.pin("acme", acme.public)
    assert [keyring.for_repo(repo) for repo in ("acme/law", "acme/code", "acmes/law")] == [pin, pin, None]
    assert (pin.key, pin.fingerprint) == (acme.public, keys.fingerprint(acme.public))
    assert keyring.pins() == [pin]


def test_the_key_of_a_repo_goes_before_the_one_of_its_publisher(
    keyring: Keyring, acme: Publisher, other: Publisher
) -> None:
    """One repo may be signed by somebody else."""
    everything, law = keyring.pin("acme", acme.public), keyring.pin("acme/law", other.public)
    assert (keyring.for_repo("acme/law"), keyring.for_repo("acme/code")) == (law, everything)
    assert keyring.pins() == [everything, law]


@pytest.mark.parametrize("repo", ["ACME/law", "Acme/Law", "acme/LAW"])
def test_upper_and_lower_case_are_one(keyring: Keyring, acme: Publisher, repo: str) -> None:
    """A hub that takes Acme for acme does not get around the key."""
    keyring.pin("aCme", acme.public)
    pin = keyring.for_repo(repo)
    assert pin is not None
    assert pin.publisher == "acme"


def test_another_key_is_pinned_only_on_purpose(keyring: Keyring, acme: Publisher, other: Publisher) -> None:
    """The refusal shows both fingerprints; the same key again changes nothing."""
    before = keyring.pin("acme", acme.public)
    assert keyring.pin("acme", acme.public) == before
    with pytest.raises(SigningError, match=f"(?s){before.fingerprint}.*{keys.fingerprint(other.public)}.*--replace"):
        keyring.pin("acme", other.public)
    assert keyring.for_repo("acme/law") == before
    after = keyring.pin("acme", other.public, replace=True)
    assert (keyring.for_repo("acme/law"), after.key) == (after, other.public)


def test_a_key_can_be_forgotten(keyring: Keyring, acme: Publisher) -> None:
    """Of exactly that publisher."""
    pin = keyring.pin("acme", acme.public)
    with pytest.raises(SigningError, match="no key is pinned for acme/law"):
        keyring.unpin("acme/law")
    assert keyring.unpin("ACME") == pin
    assert (keyring.pins(), keyring.for_repo("acme/law")) == ([], None)


def test_a_keyring_that_is_not_there_holds_no_keys(keyring: Keyring) -> None:
    """Reading it makes nothing."""
    assert (keyring.pins(), keyring.for_repo("acme/law"), keyring.folder.exists()) == ([], None, False)


@pytest.mark.parametrize("name", ["", "..", "acme/..", "../acme", "a--b", "acme/law/x", "acme/", "/law", "*"])
def test_a_publisher_that_no_hub_could_have_is_refused(keyring: Keyring, acme: Publisher, name: str) -> None:
    """Its name becomes a file's."""
    with pytest.raises(SigningError, match="expected org or org/name"):
        keyring.pin(name, acme.public)
    assert not keyring.folder.exists()


@pytest.mark.parametrize(
    "change",
    [{"publisher": "acme2"}, {"key": "no key"}, {"format": 2}, {"since": 3}, {"comment": "hi"}],
)
def test_a_file_that_is_not_as_it_was_written_is_refused(
    keyring: Keyring, acme: Publisher, change: dict[str, object]
) -> None:
    """A damaged pin is never taken for no pin."""
    keyring.pin("acme", acme.public)
    path = keyring.folder / "trusted" / "acme.json"
    path.write_text(files.to_json({**json.loads(path.read_text()), **change}))
    with pytest.raises(SigningError, match=r"acme\.json"):
        keyring.for_repo("acme/law")
    with pytest.raises(SigningError, match=r"acme\.json"):
        keyring.pins()


def test_a_key_that_is_written_another_way_is_refused(keyring: Keyring, acme: Publisher) -> None:
    """One key has one fingerprint."""
    keyring.pin("acme", acme.public)
    path = keyring.folder / "trusted" / "acme.json"
    path.write_text(files.to_json({**json.loads(path.read_text()), "key": f"our key\n{acme.public}"}))
    with pytest.raises(SigningError, match="not as `moehub keys trust` wrote it"):
        keyring.for_repo("acme/law")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_file_that_is_no_json_is_refused(keyring: Keyring, acme: Publisher, content: bytes) -> None:
    """With its name and the cure."""
    keyring.pin("acme", acme.public)
    (keyring.folder / "trusted" / "acme.json").write_bytes(content)
    with pytest.raises(SigningError, match="remove it and pin the key again"):
        keyring.for_repo("acme/law")


def test_the_default_keyring_is_in_the_home_or_where_the_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MOEHUB_KEYS goes first."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MOEHUB_KEYS", str(tmp_path / "elsewhere"))
    assert Keyring.open_default() == Keyring(tmp_path / "elsewhere")
    monkeypatch.delenv("MOEHUB_KEYS")
    assert Keyring.open_default() == Keyring(tmp_path / ".config" / "moehub" / "keys")


def test_the_signing_key_is_ones_own_unless_another_is_named(keyring: Keyring, acme: Publisher) -> None:
    """And none that cannot sign."""
    with pytest.raises(SigningError, match="there is no private key"):
        keyring.signing_key(None)
    keys.create(keyring.own)
    assert (keyring.signing_key(None), keyring.signing_key(acme.key)) == (keyring.own, acme.key)
