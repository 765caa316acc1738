"""The hub as an ASGI application: who asks for what, and which room answers."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from inspect import iscoroutinefunction
from typing import cast
from urllib.parse import unquote_to_bytes

from anyio import CapacityLimiter
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from moehub.hubserver import guard, pages
from moehub.hubserver.access_log import Watched, log
from moehub.hubserver.api import answers, receiving, resolve
from moehub.hubserver.api.call import Call
from moehub.hubserver.api.routes import Endpoint, find
from moehub.hubserver.api.xet import TOKEN_PREFIX
from moehub.hubserver.refusals import RefusedError, disk_in_sentences
from moehub.hubserver.settings import ServerSettings
from moehub.hubserver.store.history import Admit
from moehub.hubserver.store.store import Store
from moehub.hubserver.visitor import EVERYBODY, STRANGER, Visitor

_LARGEST_BODY = 4 << 20
"""Bytes of a body that an endpoint gets whole."""
TOGETHER = 256
"""Requests that are answered at once."""
_COMMITS = 8
"""Commits that are made or checked at once; more wait."""
_BEARER = "bearer "
_PAGES_FORMS = (["login"], ["logout"])
_LARGEST_FORM = 16 << 10
_READING = ("GET", "HEAD")
_VISITOR = "moehub.visitor"
"""Where a request says who sent it, once that is known."""


@dataclass
class Application:
    """The hub's ASGI application."""

    store: Store
    settings: ServerSettings
    admit: Admit
    together: int = TOGETHER
    running: int = field(default=0, init=False)
    """Requests that are being answered."""
    gates: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_COMMITS), init=False)
    """Threads that may wait for the gate: those of everybody else are not among them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        watched = Watched(scope, _without_guessing(send))
        self.running += 1
        try:
            await self._answer(Request(scope, receive), watched)
        except ClientDisconnect:
            pass
        finally:
            self.running -= 1
            watched.write()

    async def _answer(self, request: Request, watched: Watched) -> None:
        try:
            with disk_in_sentences():
                response = await self._response(request, watched)
                await response(request.scope, request.receive, watched)
        except RefusedError as error:
            if watched.status is not None:
                raise
            await self._refuse(error, request, watched)
        except ClientDisconnect:
            raise
        except Exception:
            number = secrets.token_hex(4)
            log.exception("%s: %s %s", number, request.method, request.url.path)
            if watched.status is None:
                await self._refuse(_unexpected(number), request, watched)
            else:
                raise

    async def _refuse(self, error: RefusedError, request: Request, watched: Watched) -> None:
        response: Response = answers.refusal(error)
        visitor = request.scope.get(_VISITOR)
        if visitor is not None and _reads_pages(request):
            address = guard.address(request, self.settings)
            response = await run_in_threadpool(pages.refusal, error, request, visitor, self.store, address)
        await response(request.scope, request.receive, watched)

    async def _response(self, request: Request, watched: Watched) -> Response:
        """Return the answer to a request.

        Raises:
            RefusedError: it is refused.
        """
        if self.running > self.together:
            raise RefusedError(503, f"the hub is answering {self.together} requests already: try again in a moment")
        guard.check(request, self.settings)
        segments = _segments(request.scope["raw_path"])
        found = None if segments in _PAGES_FORMS else find(request.method, segments)
        by_cookie = request.method in _READING and (found is None or found[0] is resolve.resolve)
        visitor = await run_in_threadpool(self._visitor, request, by_cookie=by_cookie)
        watched.visitor = visitor.name
        request.scope[_VISITOR] = visitor
        address = guard.address(request, self.settings)
        if found is None:
            return await self._page(request, segments, visitor, address)
        endpoint, parts = found
        call = Call(request, self.store, self.settings, self.admit, self.gates, visitor, address, parts)
        return await _asked(endpoint, call)

    async def _page(self, request: Request, segments: list[str], visitor: Visitor, address: str) -> Response:
        if request.method not in _READING and (segments not in _PAGES_FORMS or request.method != "POST"):
            raise RefusedError(405, f"{request.method} is not what this address takes, expected GET")
        body = await receiving.whole(request, _LARGEST_FORM) if request.method == "POST" else b""
        return await run_in_threadpool(pages.respond, request, segments, visitor, self.store, address, body=body)

    def _visitor(self, request: Request, *, by_cookie: bool) -> Visitor:
        """Return who asks; `by_cookie` says whether being logged in with a browser counts.

        Raises:
            RefusedError: their token is nobody's.
        """
        header = request.headers.get("authorization")
        if header is None:
            if self.settings.open:
                return EVERYBODY
            return (by_cookie and pages.session.visitor(request, self.store)) or STRANGER
        secret = header[len(_BEARER) :].strip() if header.lower().startswith(_BEARER) else ""
        if secret.startswith(TOKEN_PREFIX):
            return STRANGER  # an upload through Xet, whose endpoints know what its token is good for
        found = self.store.tokens.visitor(secret)
        if self.settings.open:
            # Whatever token a client has for another hub: here it needs none.
            return EVERYBODY if found is None else replace(EVERYBODY, name=found.name, known=True)
        if found is None:
            raise RefusedError(
                401, "this hub does not know this token, or its time is over: `moehub hub token create` makes a new one"
            )
        return found


def application(store: Store, settings: ServerSettings, *, admit: Admit) -> Application:
    """Return the hub over a store; `admit` looks at what each commit would hold."""
    return Application(store, settings, admit)


def _without_guessing(send: Send) -> Send:
    """Return `send` with a header that forbids browsers to take an answer for something else than it says it is."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).setdefault("X-Content-Type-Options", "nosniff")
        await send(message)

    return sending


async def _asked(endpoint: Endpoint, call: Call) -> Response:
    if iscoroutinefunction(endpoint):
        response: Response = await endpoint(call)
        return response
    body = await receiving.whole(call.request, _LARGEST_BODY)
    answer = cast("Callable[[Call], Response]", endpoint)
    return await run_in_threadpool(answer, replace(call, body=body))


def _segments(path: bytes) -> list[str]:
    """Return the parts of a path, decoded after they were split.

    Raises:
        RefusedError: they are no text.
    """
    try:
        return [unquote_to_bytes(segment).decode() for segment in path.strip(b"/").split(b"/")]
    except UnicodeDecodeError as error:
        raise RefusedError(400, "the path is no text: expected UTF-8") from error


def _reads_pages(request: Request) -> bool:
    """Return whether a browser asks for something to be shown, and not a client for an answer of the API."""
    return "text/html" in request.headers.get("accept", "") and not request.scope["raw_path"].startswith(b"/api/")


def _unexpected(number: str) -> RefusedError:
    return RefusedError(500, f"the hub met what it did not expect: whoever runs it finds it in its log as {number}")
