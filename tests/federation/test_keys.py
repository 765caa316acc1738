import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from moehub.errors import FederationError
from moehub.federation.deploy import keys

KEYGEN = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen to ask")


def keygen(*arguments: str | Path) -> str:
    command = [shutil.which("ssh-keygen") or "", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_key_is_made_once(tmp_path: Path) -> None:
    """It is what the node is known by."""
    assert keys.ensure(tmp_path / "key")
    before = (tmp_path / "key").read_bytes(), (tmp_path / "key.pub").read_bytes()
    assert not keys.ensure(tmp_path / "key")
    assert ((tmp_path / "key").read_bytes(), (tmp_path / "key.pub").read_bytes()) == before


def test_the_private_half_is_its_owners_alone(tmp_path: Path) -> None:
    """And the public half says nothing about its machine."""
    keys.ensure(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert len((tmp_path / "key.pub").read_text().split()) == 2


@KEYGEN
def test_ssh_keygen_reads_what_was_made(tmp_path: Path) -> None:
    """P-384, and the public half is that of the private one."""
    keys.ensure(tmp_path / "key")
    assert keygen("-l", "-f", tmp_path / "key").startswith("384 ")
    assert keygen("-y", "-f", tmp_path / "key").split()[:2] == keys.public(tmp_path / "key.pub").split()


@KEYGEN
def test_what_ssh_keygen_makes_is_taken(tmp_path: Path) -> None:
    """Its comment left aside."""
    keygen("-t", "ecdsa", "-b", "384", "-N", "", "-C", "me@home", "-f", tmp_path / "key")
    assert not keys.ensure(tmp_path / "key")
    assert keys.public(tmp_path / "key.pub").split() == (tmp_path / "key.pub").read_text().split()[:2]


def test_flower_reads_what_was_made(tmp_path: Path) -> None:
    """With the functions that its SuperNode and its register command use."""
    from flwr.supercore.primitives.asymmetric import uses_nist_ec_curve

    keys.ensure(tmp_path / "key")
    private = serialization.load_ssh_private_key((tmp_path / "key").read_bytes(), None)
    public = serialization.load_ssh_public_key((tmp_path / "key.pub").read_bytes())
    assert uses_nist_ec_curve(public)
    assert private.public_key() == public


def test_a_lost_public_half_is_made_again(tmp_path: Path) -> None:
    """The private one holds it."""
    keys.ensure(tmp_path / "key")
    before = (tmp_path / "key.pub").read_text()
    (tmp_path / "key.pub").unlink()
    assert not keys.ensure(tmp_path / "key")
    assert (tmp_path / "key.pub").read_text() == before


def test_a_lost_private_half_is_not_replaced_silently(tmp_path: Path) -> None:
    """The registered key would be another one."""
    keys.ensure(tmp_path / "key")
    (tmp_path / "key").unlink()
    with pytest.raises(FederationError, match="is there without"):
        keys.ensure(tmp_path / "key")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """With the command that cures it."""
    keys.ensure(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(FederationError, match=f"run `chmod 600 {tmp_path / 'key'}`"):
        keys.ensure(tmp_path / "key")


def test_a_private_key_is_never_registered(tmp_path: Path) -> None:
    """People mix the two up."""
    keys.ensure(tmp_path / "key")
    with pytest.raises(FederationError, match=r"is a private key, which nobody else may have: take .*key\.pub"):
        keys.public(tmp_path / "key")


def test_keys_that_flower_does_not_take_are_refused(tmp_path: Path) -> None:
    """Both halves of them."""
    other = ed25519.Ed25519PrivateKey.generate()
    encoding, none = serialization.Encoding, serialization.NoEncryption()
    (tmp_path / "key").write_bytes(other.private_bytes(encoding.PEM, serialization.PrivateFormat.OpenSSH, none))
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "key.pub").write_bytes(
        other.public_key().public_bytes(encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    )
    with pytest.raises(FederationError, match="of a kind that Flower does not take"):
        keys.ensure(tmp_path / "key")
    with pytest.raises(FederationError, match="of a kind that Flower does not take"):
        keys.public(tmp_path / "key.pub")


def test_what_is_no_key_is_a_sentence(tmp_path: Path) -> None:
    """And so is a key with a passphrase, which nobody could type for a service."""
    (tmp_path / "key").write_text("hello")
    with pytest.raises(FederationError, match="is no private key without a passphrase"):
        keys.ensure(tmp_path / "key")
    with pytest.raises(FederationError, match="is no public key"):
        keys.public(tmp_path / "key")
