"""Xet: how newer clients upload large files, in pieces that they may have sent before.

The hub takes the pieces, makes an ordinary file of them, and never offers Xet for downloads. Whatever else the client
asks for below the address it is given is not there, and it does without.
"""

import hashlib
import hmac
import re
import time

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from moehub.hubserver.api import receiving
from moehub.hubserver.api.call import Call
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.chunks import LARGEST_XORB
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.shards import LARGEST_SHARD

LIFETIME = 3600
"""Seconds that a token is good for; the client gets itself another one in time."""
_XORB = re.compile(r"[0-9a-f]{64}")
TOKEN_PREFIX = "xet_"  # noqa: S105 (what tokens begin with)
"""What a token begins with that is good for uploads to one repo, and for nothing else."""
_TOKEN = re.compile(f"Bearer {TOKEN_PREFIX}([0-9]{{1,12}})_([0-9a-f]{{64}})")


def token(call: Call) -> JSONResponse:
    """Answer where the files of a repo are sent to, and the token for it, which is good for nothing else.

    Raises:
        RefusedError: there is no repo that the visitor may write to.
    """
    repo = call.repo(write=True)
    epoch, expires = call.store.xorbs.epoch(), int(time.time()) + LIFETIME
    made = f"{TOKEN_PREFIX}{expires}_{_signature(call.store.secret, repo.id, repo.number, expires)}"
    address = f"{call.address}/api/xet/{epoch}/{repo.id}/{repo.number}"
    headers = {
        "X-Xet-Cas-Url": address,
        "X-Xet-Access-Token": made,
        "X-Xet-Token-Expiration": str(expires),
        "Cache-Control": "no-store",
    }
    return JSONResponse({"accessToken": made, "exp": expires, "casUrl": address}, headers=headers)


async def xorb(call: Call) -> JSONResponse:
    """Take a xorb.

    Raises:
        RefusedError: the token is not for this repo, or the xorb is none, or another one.
    """
    repo = await run_in_threadpool(_repo, call)
    name = call.parts["xorb"]
    if not _XORB.fullmatch(name):
        raise RefusedError(400, f"{name!r:.80} names no xorb, expected 64 hexadecimal digits")
    place = call.store.xorbs.place(call.parts["epoch"], repo)
    with call.store.blobs.receiving() as incoming:
        await receiving.pass_on(call.request, LARGEST_XORB, incoming.write)
        new = await run_in_threadpool(call.store.xorbs.take, incoming, place, name, repo)
    return JSONResponse({"was_inserted": new})


async def shard(call: Call) -> JSONResponse:
    """Make the files that a shard describes.

    Raises:
        RefusedError: the token is not for this repo, or a file cannot be made of the xorbs that are there.
    """
    repo = await run_in_threadpool(_repo, call)
    place = call.store.xorbs.place(call.parts["epoch"], repo)
    largest = call.settings.largest_file
    with call.store.blobs.receiving() as incoming:
        await receiving.pass_on(call.request, LARGEST_SHARD, incoming.write)
        with incoming.path.open("rb") as file:
            await run_in_threadpool(call.store.xorbs.rebuild, file, place, repo, largest=largest)
    return JSONResponse({"result": 1})


def _repo(call: Call) -> Repo:
    """Return the repo that the path names, if the token is for it.

    Raises:
        RefusedError: it is not, or its time is over.
    """
    found, number = _TOKEN.fullmatch(call.request.headers.get("authorization", "")), call.parts["number"]
    if found is None or not re.fullmatch(r"[0-9]{1,18}", number):
        raise _no_token()
    expires = int(found[1])
    signature = _signature(call.store.secret, call.repo_name, int(number), expires)
    if not hmac.compare_digest(found[2], signature) or expires < time.time():
        raise _no_token()
    return call.store.repos.numbered(call.repo_name, int(number))


def _signature(secret: bytes, repo: str, number: int, expires: int) -> str:
    signed = "\0".join(["moehub xet", repo, str(number), str(expires)])
    return hmac.new(secret, signed.encode(), hashlib.sha256).hexdigest()


def _no_token() -> RefusedError:
    return RefusedError(401, "this upload through Xet has no valid token: start it again")
