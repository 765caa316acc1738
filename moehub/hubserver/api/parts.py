"""Files that come in several parts, so that a broken connection costs one of them.

    incoming/part-17-ab12…-500-3     part 3 of a file of 500 bytes for repo 17

A part appears whole and is never written to again: a blob is made of copies, or a slow sender could change it later.
Parts that nobody came back for are removed with everything else that was abandoned on its way in.
"""

import re
from pathlib import Path

from moehub.hubserver.api.addresses import Slot
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.blobs import Blob, Incoming
from moehub.hubserver.store.store import Store

SIZE = 512 << 20
"""Bytes of a part; the last one may have fewer."""
_NUMBER = re.compile(r"[1-9][0-9]{0,4}")
_PIECE = 1 << 20


def numbers(size: int) -> range:
    """Return the numbers of the parts that a file of `size` bytes comes in; none where it comes in one piece."""
    return range(1, -(-size // SIZE) + 1) if size > 2 * SIZE else range(0)


def length(slot: Slot) -> int:
    """Return how many bytes the part that a slot is for has.

    Raises:
        RefusedError: the file has no such part.
    """
    if not _NUMBER.fullmatch(slot.piece) or int(slot.piece) not in numbers(slot.size):
        raise RefusedError(400, f"{slot.piece!r:.20} is no part of a file of {slot.size} bytes")
    return min(SIZE, slot.size - SIZE * (int(slot.piece) - 1))


def keep(store: Store, slot: Slot, incoming: Incoming) -> str:
    """Keep a part, and return what tells it from any other.

    Raises:
        RefusedError: it has fewer bytes than it should.
    """
    blob = incoming.finish()
    if blob.size != length(slot):
        raise RefusedError(422, f"part {slot.piece} has {blob.size} bytes, expected {length(slot)}: send it again")
    incoming.path.replace(_place(store, slot))
    return blob.sha256


def join(store: Store, slot: Slot) -> Blob:
    """Make a blob of all parts of a file, which are gone afterwards.

    Raises:
        RefusedError: a part is missing, or together they are something else than was announced.
    """
    places = [_place(store, slot.at(str(number))) for number in numbers(slot.size)]
    missing = [number for number, place in enumerate(places, 1) if not place.is_file()]
    if missing or not places:
        raise RefusedError(422, f"parts {', '.join(map(str, missing[:20]))} did not come: send the file again")
    with store.blobs.receiving() as incoming:
        for place in places:
            _append(place, incoming)
        try:
            return store.uploads.take(incoming, slot.number, Blob(slot.sha256, slot.size))
        finally:
            for place in places:
                place.unlink(missing_ok=True)


def _append(place: Path, incoming: Incoming) -> None:
    with place.open("rb") as file:
        while piece := file.read(_PIECE):
            incoming.write(piece)


def _place(store: Store, slot: Slot) -> Path:
    return store.blobs.incoming_folder / f"part-{slot.number}-{slot.sha256}-{slot.size}-{slot.piece}"
