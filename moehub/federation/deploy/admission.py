"""Who may speak to the SuperLink at all: nodes whose keys were registered, by the signature that Flower's nodes send.

The SuperLink checks the same again, but only once it has read a request to its end. Checked before, what strangers
send costs nothing.
"""

import base64
import binascii
import datetime as dt
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER

NOT_REGISTERED = "this key is not registered"
CLOCK = "the clock of this machine is wrong"
FORGED = "the signature is not of this key"


class Admission:
    """The registered keys: a folder of public keys, read again when it changes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stamp = -1
        self._keys: dict[bytes, ec.EllipticCurvePublicKey] = {}

    def refusal(self, headers: Mapping[str, str]) -> str:
        """Return why a request of a node is refused; nothing where its signature is of a registered key."""
        try:
            name = base64.b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True)
            signature = base64.b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER], validate=True)
            signed = headers[TIMESTAMP_HEADER]
            at = dt.datetime.fromisoformat(signed)
            age = (dt.datetime.now(dt.UTC) - at).total_seconds()
        except (KeyError, ValueError, TypeError, binascii.Error):
            return FORGED
        key = self._registered().get(name)
        if key is None:
            return NOT_REGISTERED
        if not -SYSTEM_TIME_TOLERANCE < age < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE:
            return CLOCK
        try:
            key.verify(signature, signed.encode(), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return FORGED
        return ""

    def _registered(self) -> dict[bytes, ec.EllipticCurvePublicKey]:
        """Return the registered keys under what Flower's nodes send as their names."""
        try:
            stamp = self.folder.stat().st_mtime_ns
        except FileNotFoundError:
            return {}
        if stamp != self._stamp:
            self._keys = {_sent(key): key for path in self.folder.glob("*.pub") if (key := _read(path)) is not None}
            self._stamp = stamp
        return self._keys


def _read(path: Path) -> ec.EllipticCurvePublicKey | None:
    try:
        key = serialization.load_ssh_public_key(path.read_bytes())
    except (OSError, ValueError):
        return None
    return key if isinstance(key, ec.EllipticCurvePublicKey) else None


def _sent(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
