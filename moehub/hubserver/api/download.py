"""The bytes of a file, whole or in part: while one MiB is on its way the next one is read."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from moehub.hubserver.refusals import RefusedError

_PIECE = 1 << 20
_PATIENCE = 120.0
"""Seconds that a client may take for one piece."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_HARMLESS = {
    # A browser that is led here saves the file, and does not show it.
    "Content-Type": "application/octet-stream",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Accept-Ranges": "bytes",
}


class Download(Response):
    """A file's bytes."""

    def __init__(self, path: Path, size: int, name: str, headers: Mapping[str, str]) -> None:
        """Keep where the file is, how many bytes it has, what it is called, and what else is said about it."""
        disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
        super().__init__(headers={**_HARMLESS, **headers, "Content-Disposition": disposition})
        del self.headers["content-length"]
        self.path, self.size = path, size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what was asked for.

        Raises:
            RefusedError: the bytes are not there; nothing was sent.
        """
        file = await run_in_threadpool(self._open)
        try:
            first, beyond = self._choose(Headers(scope=scope))
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] != "HEAD" and first < beyond:
                await _send_all(file, first, beyond, receive, send)
            await send({"type": "http.response.body", "body": b""})
        finally:
            os.close(file)

    def _open(self) -> int:
        try:
            file = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise self._lost() from error
        if os.fstat(file).st_size != self.size:
            os.close(file)
            raise self._lost()
        return file

    def _lost(self) -> RefusedError:
        return RefusedError(500, f"the hub lost the bytes of {self.path.name[:12]}: `moehub hub fsck` says what else")

    def _choose(self, asked: Headers) -> tuple[int, int]:
        """Return the first byte to send and the one after the last, and set status and headers to that."""
        etag = self.headers["etag"]
        if etag in _tags(asked.get("if-none-match", "")):
            self.status_code = 304
            return 0, 0
        first, beyond = 0, self.size
        chosen = _RANGE.fullmatch(asked.get("range", "").strip())
        if chosen and any(chosen.groups()) and asked.get("if-range", etag).strip() == etag:
            first, beyond = _between(chosen[1], chosen[2], self.size)
            if first >= beyond:
                self.status_code = 416
                self.headers["content-range"] = f"bytes */{self.size}"
                self.headers["content-length"] = "0"
                return 0, 0
            self.status_code = 206
            self.headers["content-range"] = f"bytes {first}-{beyond - 1}/{self.size}"
        self.headers["content-length"] = str(beyond - first)
        return first, beyond


def _tags(header: str) -> set[str]:
    return {each.strip().removeprefix("W/") for each in header.split(",")}


def _between(start: str, end: str, size: int) -> tuple[int, int]:
    if not start:
        return max(0, size - int(end)), size
    return int(start), min(size, int(end) + 1) if end else size


async def _send_all(file: int, first: int, beyond: int, receive: Receive, send: Send) -> None:
    gone = asyncio.create_task(_gone(receive))
    try:
        async for piece in _pieces(file, first, beyond):
            if gone.done():
                return
            async with asyncio.timeout(_PATIENCE):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
    finally:
        gone.cancel()


async def _pieces(file: int, first: int, beyond: int) -> AsyncIterator[bytes]:
    reading: asyncio.Task[bytes] | None = None
    try:
        while first < beyond or reading is not None:
            piece = await reading if reading is not None else b""
            reading = None
            if first < beyond:
                count = min(_PIECE, beyond - first)
                reading = asyncio.create_task(run_in_threadpool(_read, file, count, first))
                first += count
            if piece:
                yield piece
    finally:
        if reading is not None:
            await asyncio.wait([reading])  # the file is closed now


def _read(file: int, count: int, first: int) -> bytes:
    piece = os.pread(file, count, first)
    if len(piece) != count:
        raise OSError("a blob became shorter while it was sent")
    return piece


async def _gone(receive: Receive) -> None:
    """Return when the client has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass
