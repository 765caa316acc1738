"""The bytes of large files, sent to signed addresses."""

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from moehub.hubserver.api import addresses, parts, receiving
from moehub.hubserver.api.addresses import Slot
from moehub.hubserver.api.call import Call
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.blobs import Blob
from moehub.hubserver.store.repos import Repo


async def receive(call: Call) -> Response:
    """Take a large file, or one part of it.

    Raises:
        RefusedError: the address is not good for it, it is not what was announced, or there is no room for it.
        ClientDisconnect: the connection broke; nothing is kept.
    """
    slot, repo = await run_in_threadpool(_slot, call)
    largest = slot.size if slot.piece == addresses.WHOLE else parts.length(slot)
    with call.store.blobs.receiving() as incoming:
        await receiving.pass_on(call.request, largest, incoming.write)
        if slot.piece == addresses.WHOLE:
            blob = await run_in_threadpool(call.store.uploads.take, incoming, repo.number, Blob(slot.sha256, slot.size))
            return Response(headers={"ETag": f'"{blob.sha256}"'})
        etag = await run_in_threadpool(parts.keep, call.store, slot, incoming)
    return Response(headers={"ETag": f'"{etag}"'})


def end(call: Call) -> JSONResponse:
    """Make a large file of its parts; asked again, it says again that the file is there.

    Raises:
        RefusedError: the address is not good for it, parts are missing, or they are not what was announced.
    """
    slot, repo = addresses.slot_of(call)
    if slot.piece != addresses.END:
        raise RefusedError(400, "this address takes a part of a file, and not the word that all were sent")
    if not call.store.uploads.holds(repo.number, slot.sha256, slot.size):
        parts.join(call.store, slot)
    return JSONResponse({"success": True})


def _slot(call: Call) -> tuple[Slot, Repo]:
    slot, repo = addresses.slot_of(call)
    if slot.piece == addresses.END:
        raise RefusedError(400, "this address takes the word that all parts were sent, and no bytes")
    if not call.store.uploads.holds(repo.number, slot.sha256, slot.size):
        call.store.uploads.require_room(repo.number, slot.size)
    return slot, repo
