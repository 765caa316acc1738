"""Key pairs: KEY signs and stays with its owner, KEY.pub is what others pin. ECDSA on P-256, in PEM.

The fingerprint of a key is the sha256 of its public half in PEM: what a signature names its key by.
"""

import hashlib
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from moehub import files
from moehub.errors import SigningError

_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
"""That model-signing takes; it takes no Ed25519."""
_CURE = "make a pair with `moehub keys create`"


def public_file(key: Path) -> Path:
    """Return where the public half of a key lies."""
    return key.with_name(f"{key.name}.pub")


def fingerprint(public: str) -> str:
    """Return the sha256, in hex, of a public key in PEM."""
    return hashlib.sha256(public.encode("ascii")).hexdigest()


def create(key: Path) -> str:
    """Make a key pair at `key`, which its owner alone can read, and return the public half in PEM.

    Raises:
        SigningError: one of the two files is there already; no key is ever overwritten.
    """
    for path in (key, public_file(key)):
        if path.exists() or path.is_symlink():
            raise SigningError(f"{path} exists and is not overwritten: choose another file, or move it away yourself")
    pair = ec.generate_private_key(ec.SECP256R1())
    private = pair.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write_private(key, private)
    public = _written(pair.public_key())
    files.write_text(public_file(key), public)
    return public


def read_private(key: Path) -> str:
    """Return the public half, in PEM, of the private key at `key`, after checking that it can sign.

    Raises:
        SigningError: there is none, it is of another kind, it wants a password, or others can read it.
    """
    try:
        pair = serialization.load_pem_private_key(key.read_bytes(), None)
        mode = key.stat().st_mode
    except (FileNotFoundError, IsADirectoryError) as error:
        raise SigningError(f"there is no private key at {key}: {_CURE}, or name yours") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SigningError(f"{key} is no private key in PEM without a password ({error}): {_CURE}") from error
    if not isinstance(pair, ec.EllipticCurvePrivateKey) or not isinstance(pair.curve, _CURVES):
        raise SigningError(f"{key} is a key of a kind that cannot sign experts, expected ECDSA on P-256: {_CURE}")
    if mode & 0o077:
        raise SigningError(f"others can read the private key {key}: run `chmod 600 {key}`")
    return _written(pair.public_key())


def read_public(path: Path) -> str:
    """Return the public key in a file, in PEM as this module writes it.

    Raises:
        SigningError: it holds none that can verify experts, or the private half.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise SigningError(f"there is no public key at {path}: ask the publisher for theirs") from error
    if b"PRIVATE KEY" in content:
        raise SigningError(f"{path} is a private key, which nobody else may have: take {public_file(path)}")
    return parse_public(content, source=str(path))


def parse_public(content: bytes, *, source: str) -> str:
    """Return a public key in PEM as this module writes it; `source` names it in errors.

    Raises:
        SigningError: it is none that can verify experts.
    """
    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SigningError(f"{source} is no public key in PEM ({error}): ask the publisher for theirs") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise SigningError(
            f"{source} is a key of a kind that cannot sign experts, expected ECDSA on P-256: "
            "ask the publisher for one that `moehub keys create` made"
        )
    return _written(key)


def _write_private(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        files.write_private(path, content)
    except FileExistsError as error:
        raise SigningError(f"{path} appeared in this moment and is not overwritten: choose another file") from error


def _written(key: ec.EllipticCurvePublicKey) -> str:
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem.decode("ascii")
