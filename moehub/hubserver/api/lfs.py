"""Where the client should send large files (the batch API of git-lfs)."""

from typing import Any

from starlette.responses import JSONResponse

from moehub.hubserver.api import addresses, parts
from moehub.hubserver.api.addresses import SHA256, Slot
from moehub.hubserver.api.call import Call
from moehub.hubserver.api.preupload import check_size
from moehub.hubserver.api.values import Values
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.blobs import Blob
from moehub.hubserver.store.repos import Repo

_MOST_OBJECTS = 1000
_JSON = "application/vnd.git-lfs+json"


def batch(call: Call) -> JSONResponse:
    """Answer an address for each file that this repo was not sent yet.

    That another repo has a file counts for nothing: whoever says its sha256 need not have its bytes.

    Raises:
        RefusedError: there is no such repo, or the visitor may not write to it.
    """
    repo, values = call.repo(write=True), call.values()
    if values.text("operation") != "upload":
        raise RefusedError(
            400, f"operation is {values.text('operation')!r:.40}, expected upload: files come by /resolve"
        )
    objects = [_object(call, repo, each) for each in values.objects("objects", _MOST_OBJECTS)]
    return JSONResponse({"transfer": "basic", "objects": objects}, media_type=_JSON)


def _object(call: Call, repo: Repo, asked: Values) -> dict[str, Any]:
    slot = Slot(repo.id, repo.number, asked.text("oid"), asked.size("size"))
    if not SHA256.fullmatch(slot.sha256):
        raise RefusedError(422, f"oid is {slot.sha256!r:.80}, expected a sha256 in hex")
    answer: dict[str, Any] = {"oid": slot.sha256, "size": slot.size, "authenticated": True}
    if call.store.uploads.touch(repo.number, Blob(slot.sha256, slot.size)):
        return answer
    try:
        check_size(call, slot.sha256[:12], slot.size)
        call.store.uploads.require_room(repo.number, slot.size)
    except RefusedError as error:
        return {**answer, "error": {"code": error.status, "message": str(error)}}
    return {**answer, "actions": {"upload": _upload(call, slot)}}


def _upload(call: Call, slot: Slot) -> dict[str, Any]:
    numbers = parts.numbers(slot.size)
    if not numbers:
        return {"href": addresses.address(call, slot)}
    where = {str(number): addresses.address(call, slot.at(str(number))) for number in numbers}
    return {
        "href": addresses.address(call, slot.at(addresses.END)),
        "header": {"chunk_size": str(parts.SIZE), **where},
    }
