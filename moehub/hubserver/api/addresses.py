"""Signed addresses that large files are sent to.

The client sends a file's bytes without a token, so its address says what it is for: one file of one repo, until a time.
"""

import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from urllib.parse import urlencode

from moehub.hubserver.api.call import Call
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.repos import Repo

LIFETIME = 12 * 3600
"""Seconds that an address is good for: the last part of a large file may come late."""
WHOLE, END = "whole", "end"
"""What an address takes besides the number of a part: a file in one piece, or the word that all parts were sent."""
SHA256 = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Slot:
    """What may be sent to one address."""

    repo: str
    """`namespace/name`."""
    number: int
    """The repo's number: another repo of the same name, made later, has another one."""
    sha256: str
    size: int
    """Bytes of the whole file."""
    piece: str = WHOLE
    """`whole`, `end`, or the number of a part, from 1."""

    def at(self, piece: str) -> "Slot":
        """Return the slot of another piece of the same file."""
        return Slot(self.repo, self.number, self.sha256, self.size, piece)


def address(call: Call, slot: Slot) -> str:
    """Return the signed address of a slot."""
    expires = int(time.time()) + LIFETIME
    query = {
        "number": slot.number,
        "size": slot.size,
        "piece": slot.piece,
        "expires": expires,
        "signature": _signature(call.store.secret, slot, expires),
    }
    return f"{call.address}/api/uploads/{slot.repo}/{slot.sha256}?{urlencode(query)}"


def slot_of(call: Call) -> tuple[Slot, Repo]:
    """Return what may be sent to the address of a call, and the repo that it belongs to.

    Raises:
        RefusedError: the hub did not sign the address, its time is over, or the repo was deleted.
    """
    numbers = [call.first(name) for name in ("number", "size", "expires")]
    if not all(_NUMBER.fullmatch(each) for each in numbers) or not SHA256.fullmatch(call.parts["sha256"]):
        raise _forged()
    number, size, expires = map(int, numbers)
    slot = Slot(call.repo_name, number, call.parts["sha256"], size, call.first("piece"))
    signature = call.first("signature").encode()
    if not hmac.compare_digest(signature, _signature(call.store.secret, slot, expires).encode()):
        raise _forged()
    if expires < time.time():
        raise RefusedError(403, "the time of this upload address is over: ask for a new one by uploading again")
    return slot, call.store.repos.numbered(slot.repo, slot.number)


def _signature(secret: bytes, slot: Slot, expires: int) -> str:
    signed = "\0".join(
        ["moehub upload", slot.repo, str(slot.number), slot.sha256, str(slot.size), slot.piece, str(expires)]
    )
    return hmac.new(secret, signed.encode(), hashlib.sha256).hexdigest()


def _forged() -> RefusedError:
    return RefusedError(403, "this upload address was not signed by this hub: upload again to get one")
