import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from moehub.errors import SigningError
from moehub.signing import keys

PRIVATE = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)


def write_key(path: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> Path:
    path.write_bytes(key.private_bytes(*PRIVATE, serialization.NoEncryption()))
    path.chmod(0o600)
    return path


def test_a_new_pair_is_for_its_owner_alone(tmp_path: Path) -> None:
    """The private half can be read by nobody else; the public half lies beside it and is the same key."""
    public = keys.create(tmp_path / "mine" / "key")
    assert (tmp_path / "mine" / "key").stat().st_mode & 0o777 == 0o600
    assert keys.read_private(tmp_path / "mine" / "key") == public
    assert keys.read_public(tmp_path / "mine" / "key.pub") == public
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["key", "key.pub"]


def test_a_new_key_is_on_p_256(tmp_path: Path) -> None:
    """What model-signing verifies; it does not take Ed25519."""
    keys.create(tmp_path / "key")
    pair = serialization.load_pem_private_key((tmp_path / "key").read_bytes(), None)
    assert isinstance(pair, ec.EllipticCurvePrivateKey)
    assert pair.curve.name == "secp256r1"


@pytest.mark.parametrize("taken", ["key", "key.pub"])
def test_no_key_is_overwritten(tmp_path: Path, taken: str) -> None:
    """Neither half, and nothing is left behind."""
    (tmp_path / taken).write_text("precious")
    with pytest.raises(SigningError, match="is not overwritten"):
        keys.create(tmp_path / "key")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(taken, "precious")]


def test_a_key_that_appears_while_one_is_made_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that are made at once, one stays and the other is told."""
    generate = ec.generate_private_key

    def slowly(curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        (tmp_path / "key").write_text("precious")
        return generate(curve)

    monkeypatch.setattr(ec, "generate_private_key", slowly)
    with pytest.raises(SigningError, match="appeared in this moment"):
        keys.create(tmp_path / "key")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("key", "precious")]


def test_a_fingerprint_is_the_sha256_of_the_public_file(tmp_path: Path) -> None:
    """So that `sha256sum` shows it."""
    public = keys.create(tmp_path / "key")
    assert keys.fingerprint(public) == hashlib.sha256((tmp_path / "key.pub").read_bytes()).hexdigest()


def test_a_private_key_that_others_can_read_does_not_sign(tmp_path: Path) -> None:
    """The sentence says how to cure it."""
    keys.create(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(SigningError, match="chmod 600"):
        keys.read_private(tmp_path / "key")


def test_other_kinds_of_keys_are_refused(tmp_path: Path) -> None:
    """Ed25519, a curve that model-signing does not know, a password, no key at all."""
    other = write_key(tmp_path / "ed25519", ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(SigningError, match="of a kind that cannot sign experts"):
        keys.read_private(other)
    exotic = write_key(tmp_path / "secp256k1", ec.generate_private_key(ec.SECP256K1()))
    with pytest.raises(SigningError, match="of a kind that cannot sign experts"):
        keys.read_private(exotic)
    locked = tmp_path / "locked"
    locked.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(*PRIVATE, serialization.BestAvailableEncryption(b"x"))
    )
    with pytest.raises(SigningError, match="without a password"):
        keys.read_private(locked)
    (tmp_path / "text").write_text("no key")
    with pytest.raises(SigningError, match="is no private key in PEM"):
        keys.read_private(tmp_path / "text")
    with pytest.raises(SigningError, match="make a pair with `moehub keys create`"):
        keys.read_private(tmp_path / "nothing")


def test_a_private_key_is_not_taken_for_a_public_one(tmp_path: Path) -> None:
    """Whoever was sent one by mistake is told which file to ask for."""
    keys.create(tmp_path / "key")
    with pytest.raises(SigningError, match=r"which nobody else may have: take .*key\.pub"):
        keys.read_public(tmp_path / "key")


def test_a_public_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Before anything is pinned that could never verify."""
    pem = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "key.pub").write_bytes(ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(*pem))
    with pytest.raises(SigningError, match="expected ECDSA on P-256"):
        keys.read_public(tmp_path / "key.pub")
    (tmp_path / "key.pub").write_text("no key")
    with pytest.raises(SigningError, match="is no public key in PEM"):
        keys.read_public(tmp_path / "key.pub")
    with pytest.raises(SigningError, match="there is no public key at"):
        keys.read_public(tmp_path / "nothing")
