"""A node's key pair, in the files that `ssh-keygen -t ecdsa -b 384` makes: KEY and KEY.pub.

The key is what a node is known by. The private half never leaves the contributor's machine.
"""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from moehub import files
from moehub.errors import FederationError

_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
"""That Flower takes."""
_CURE = "make one with `ssh-keygen -t ecdsa -b 384`, or let `moehub node` make it"


def public_file(key: Path) -> Path:
    """Return where the public half of a key lies."""
    return key.with_name(f"{key.name}.pub")


def ensure(key: Path) -> bool:
    """Make a key pair at `key` where there is none, and return whether one was made.

    Raises:
        FederationError: what stands there is no key that Flower takes.
    """
    if key.exists():
        pair, made = _private(key), False
    else:
        if public_file(key).exists():
            raise FederationError(
                f"{public_file(key)} is there without {key}: restore the private key, or remove the public one and "
                "have a new pair registered"
            )
        pair, made = ec.generate_private_key(ec.SECP384R1()), True
        content = pair.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        files.write_private(key, content, replace=True)
    if not public_file(key).exists():
        files.write_text(public_file(key), f"{_written(pair.public_key())}\n")
    return made


def public(path: Path) -> str:
    """Return the public key in a file, in OpenSSH's one line without a comment.

    Raises:
        FederationError: it holds none that Flower takes, or the private half.
    """
    try:
        content = path.read_bytes()
        if b"PRIVATE KEY" in content:
            raise FederationError(f"{path} is a private key, which nobody else may have: take {public_file(path)}")
        key = serialization.load_ssh_public_key(content)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise FederationError(f"{path} is no public key ({error}): {_CURE}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise FederationError(f"{path} is a key of a kind that Flower does not take, expected ECDSA: {_CURE}")
    return _written(key)


def _private(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FederationError(f"{path} is no private key without a passphrase ({error}): {_CURE}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, _CURVES):
        raise FederationError(f"{path} is a key of a kind that Flower does not take, expected ECDSA: {_CURE}")
    if path.stat().st_mode & 0o077:
        raise FederationError(f"others can read the private key {path}: run `chmod 600 {path}`")
    return key


def _written(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
