"""Bytes on their way in: never more than a few MiB of them in memory, and nobody may take for ever.

What has arrived is worked on in a thread while the next bytes come.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from moehub.hubserver.refusals import RefusedError

_PIECE = 1 << 20
_SILENCE = 60.0
"""Seconds without a byte after which a sender is given up."""


async def whole(request: Request, most: int) -> bytes:
    """Return a body of at most `most` bytes.

    Raises:
        RefusedError: it is larger, or stopped coming.
        ClientDisconnect: the connection broke.
    """
    return b"".join([piece async for piece in pieces(request, most)])


async def pass_on(request: Request, most: int, write: Callable[[bytes], None]) -> None:
    """Call `write` in a thread with every MiB of a body of at most `most` bytes, one after the other.

    Raises:
        RefusedError: the body is larger, or stopped coming, or whatever `write` raises.
        ClientDisconnect: the connection broke.
    """
    gathered: list[bytes] = []
    working: asyncio.Task[None] | None = None
    try:
        async for piece in pieces(request, most):
            gathered.append(piece)
            if sum(map(len, gathered)) >= _PIECE:
                if working is not None:
                    await working
                working = asyncio.create_task(run_in_threadpool(_each, gathered, write))
                gathered = []
        if working is not None:
            await working
        await run_in_threadpool(_each, gathered, write)
    finally:
        # Whoever called closes the file now: nothing may write to it any more.
        if working is not None:
            await asyncio.wait([working])


def _each(gathered: list[bytes], write: Callable[[bytes], None]) -> None:
    # In one piece: a thread waits for the interpreter after each write, and there are 16 times as many pieces as MiB.
    write(b"".join(gathered))


async def lines(request: Request, most: int, longest: int) -> AsyncIterator[list[bytes]]:
    """Yield the lines of a body of at most `most` bytes as they come, some at a time.

    Raises:
        RefusedError: the body is larger, a line is longer than `longest`, or they stopped coming.
        ClientDisconnect: the connection broke.
    """
    rest = bytearray()
    async for piece in pieces(request, most):
        rest += piece
        if b"\n" in piece:
            *found, end = bytes(rest).split(b"\n")
            rest = bytearray(end)
            yield [line for line in found if line.strip()]
        if len(rest) > longest:
            raise RefusedError(413, f"a line of the body is longer than {longest} bytes: send large files on their own")
    if rest.strip():
        yield [bytes(rest)]


async def pieces(request: Request, most: int) -> AsyncIterator[bytes]:
    """Yield a body of at most `most` bytes as it comes.

    Raises:
        RefusedError: it is larger, or stopped coming.
        ClientDisconnect: the connection broke.
    """
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced[:20]) > most:
        raise _too_large(most)
    came, stream = 0, request.stream()
    while True:
        try:
            async with asyncio.timeout(_SILENCE):
                piece = await anext(stream, None)
        except TimeoutError as error:
            raise RefusedError(408, f"nothing came for {_SILENCE:.0f} seconds: send it again") from error
        if piece is None:
            return
        came += len(piece)
        if came > most:
            raise _too_large(most)
        if piece:
            yield piece


def _too_large(most: int) -> RefusedError:
    return RefusedError(413, f"the body is larger than the {most} bytes that are taken here: send less at once")
