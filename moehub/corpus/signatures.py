"""Signatures of a contributor's texts, for others who may not see the texts: a safetensors file, `signatures` [N, P].

Equal places of two signatures estimate how alike two texts are. So whoever has a text can find out whether one like it
is among the signed ones. With a shared secret each place is enciphered, AES(key, place ‖ value) cut to 32 bits: equal
places stay equal, and whoever lacks the secret can neither make signatures to compare with nor read anything but how
alike the signed texts are among themselves. The rows are sorted, so the order of the texts does not show.

The one metadata entry `moehub` is JSON: format, how the signatures were made, and what tells one secret from another.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray
from rensa import RMinHash
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from moehub.corpus.near import band_keys, rows_of_a_band
from moehub.corpus.sketches import PLACES, SEED, WORDS
from moehub.errors import DataError

Rows = NDArray[np.uint32]
_NAME = "signatures"
_METADATA = "moehub"
_RECIPE = {"format": 1, "places": PLACES, "words": WORDS, "seed": SEED, "minhash": RMinHash.ALGORITHM_VERSION}
_SHORTEST_SECRET = 16
"""Bytes."""


@dataclass(frozen=True)
class Secret:
    """What contributors share so that nobody else can test texts."""

    key: bytes
    """Of AES, 32 bytes."""
    name: str
    """Tells one secret from another, and does not give it away."""


OPEN = Secret(b"", "")
"""No secret: everybody can compare."""


@dataclass(frozen=True)
class Signatures:
    """What one contributor's file holds."""

    rows: Rows
    """[N, P], enciphered where there is a secret, ascending."""
    secret: str
    """Name of the secret, empty without."""

    def to_bytes(self) -> bytes:
        """Return the file; equal for equal sets of texts, whatever their order."""
        metadata = {_METADATA: json.dumps({**_RECIPE, "secret": self.secret}, sort_keys=True)}
        return save({_NAME: self.rows}, metadata=metadata)

    @property
    def digest(self) -> str:
        """The sha256 of the file, in hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def read_secret(path: Path) -> Secret:
    """Return the secret that a file holds.

    Raises:
        DataError: it cannot be read or is too short to be one.
    """
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}), expected a file with a secret") from error
    if len(content) < _SHORTEST_SECRET:
        raise DataError(
            f"{path} holds {len(content)} bytes, expected a secret of at least {_SHORTEST_SECRET} that nobody can "
            f"guess: make one with `openssl rand -hex 32 > {path.name}`"
        )
    derived = hashlib.scrypt(content, salt=b"moehub signatures", n=1 << 14, r=8, p=1, dklen=48)
    return Secret(derived[:32], derived[32:].hex())


def sign(rows: Rows, secret: Secret = OPEN) -> Signatures:
    """Return the signatures of texts as they leave the machine; `rows` are MinHash signatures [N, P]."""
    hidden = enciphered(rows, secret)
    order = np.argsort(hidden.astype(">u4").view(f"V{4 * PLACES}").ravel(), kind="stable")
    return Signatures(np.ascontiguousarray(hidden[order]), secret.name)


def enciphered(rows: Rows, secret: Secret) -> Rows:
    """Return signatures [N, P] whose places can be compared with others of the same secret, in the same order."""
    if not secret.key:
        return rows
    blocks = np.zeros((*rows.shape, 4), dtype="<u4")
    blocks[..., 0] = rows
    blocks[..., 1] = np.arange(rows.shape[1], dtype=np.uint32)
    cipher = Cipher(algorithms.AES(secret.key), modes.ECB()).encryptor()  # noqa: S305 (each block by itself, as a PRF)
    hidden = np.frombuffer(cipher.update(blocks.tobytes()) + cipher.finalize(), dtype="<u4")
    return hidden.reshape(*rows.shape, 4)[..., 0].astype(np.uint32)


def read(path: Path, secret: Secret = OPEN) -> Signatures:
    """Return what a contributor's file holds.

    Raises:
        DataError: it is no such file, it was made by another recipe, or with another secret.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
            rows = file.get_tensor(_NAME)
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(
            f"{path} is no file of signatures ({error}): make one with `moehub data dedup --signatures`"
        ) from error
    made = {name: metadata.get(name) for name in _RECIPE} if isinstance(metadata, dict) else {}
    if made != _RECIPE or rows.ndim != 2 or rows.shape[1] != PLACES or rows.dtype != np.uint32:
        raise DataError(
            f"{path} holds signatures made by {made}, expected {_RECIPE}: its owner makes it again with this moehub"
        )
    if metadata.get("secret", "") != secret.name:
        raise DataError(f"{path} was made {_said(str(metadata.get('secret', '')), secret)}")
    return Signatures(rows, secret.name)


def _said(theirs: str, secret: Secret) -> str:
    if theirs and secret.name:
        return "with another secret than --salt-file holds: all contributors use the same file"
    if theirs:
        return "with a secret: name the file that you share with --salt-file"
    return "without a secret, and you have one: leave --salt-file out, or ask for signatures that were made with it"


def alike(mine: Rows, theirs: Rows, threshold: float) -> NDArray[np.bool_]:
    """Return which of mine [N, P] are estimated to be at least as alike one of theirs as the threshold [N].

    Raises:
        ConfigError: the threshold is not above 0 and at most 1.
    """
    rows = rows_of_a_band(threshold)
    found = np.zeros(len(mine), dtype=bool)
    theirs = np.unique(theirs, axis=0)
    for band, other in zip(band_keys(mine, rows).T, band_keys(theirs, rows).T, strict=True):
        order = np.argsort(other, kind="stable")
        begin, end = (np.searchsorted(other[order], band, side=side) for side in ("left", "right"))
        while len(undecided := np.flatnonzero(~found & (begin < end))):
            found[undecided] = (mine[undecided] == theirs[order[begin[undecided]]]).mean(axis=1) >= threshold
            begin[undecided] += 1
    return found


def not_mine(mine: Signatures, rows: Rows, others: Sequence[Signatures], threshold: float) -> NDArray[np.bool_]:
    """Return which of my texts another contributor keeps, all following one rule without talking [N].

    `rows` are my signatures in the order of my texts. Of all contributors, the one whose file's sha256 is the smallest
    keeps everything, the next what is like nothing that the first keeps, and so on. If all compare the same files at
    the same threshold, a text that several have is kept by one. My own file may be among the others.
    """
    kept = np.empty((0, PLACES), dtype=np.uint32)
    for file in sorted({one.digest: one for one in others}.items()):
        if file[0] >= mine.digest:
            break
        kept = np.concatenate([kept, file[1].rows[~alike(file[1].rows, kept, threshold)]])
    return alike(rows, kept, threshold)
