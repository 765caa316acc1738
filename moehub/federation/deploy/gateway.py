"""The gateway: the one public door of a federation's server. Nodes come through it, nothing else does.

node ── TLS ──▶ gateway ── TLS, verified ──▶ SuperLink, on loopback alone

The SuperLink serves its operator on the same port as its nodes, and asks no operator for a password. Here only the
nodes' routes exist. A path is compared byte by byte before anything decodes it, and the request that goes on is made
anew from what matched, so there is nothing to smuggle. What a request carries is passed on as it comes.
"""

import argparse
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from moehub.federation.deploy.admission import Admission

LARGEST = 32 << 20
"""Bytes of one request. Flower sends arrays in pieces of 5 MiB."""
_NODES = re.compile(rb"/v1/fleet/[a-z]+(?:-[a-z]+)*")
_HEALTH = b"/health"
_ENTERING = b"/v1/fleet/activate-node", b"/v1/fleet/register-node"
_REFUSED = 2004
"""Flower's code for a node that may not come in: the node ends with the sentence that is beside it."""
_THERE = re.compile(r"(?:content-(?:type|length)|accept(?:-encoding)?|user-agent|flwr-[a-z-]+)")
_BACK = re.compile(r"(?:content-(?:type|length|encoding)|retry-after|flwr-[a-z-]+)")
"""Headers that go through in each direction; all others stay."""
_TOGETHER = 64
"""Requests that are at the SuperLink at once; more wait here."""
_SECONDS = httpx2.Timeout(10.0, read=120.0, write=60.0, pool=60.0)
_IDLE = 30.0


@dataclass(frozen=True)
class Gateway:
    """The ASGI application."""

    upstream: str
    """URL of the SuperLink, without a path."""
    client: httpx2.AsyncClient
    admission: Admission | None = None
    """Whose keys are let in; None: everybody, where there are no keys."""
    largest: int = LARGEST

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = self._refusal(request) or await self._passed_on(request)
        except ClientDisconnect:
            return
        with contextlib.suppress(httpx2.TransportError):  # the SuperLink is gone in the middle: so is the answer
            await response(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        """Return the answer to a request that goes no further, None where it may."""
        path = request.scope["raw_path"]
        if request.scope["query_string"]:
            return _said(403, "no query is taken here")
        if path == _HEALTH and request.method in ("GET", "HEAD"):
            return None
        if not _NODES.fullmatch(path) or request.method != "POST":
            return _said(403, "only nodes are served here")
        return self._unfit(request) or self._strange(request, entering=path in _ENTERING)

    def _unfit(self, request: Request) -> Response | None:
        if "content-length" in request.headers and "transfer-encoding" in request.headers:
            return _said(400, "a request has one length")
        if int(request.headers.get("content-length", 0)) > self.largest:
            return self._too_large()
        return None

    def _strange(self, request: Request, *, entering: bool) -> Response | None:
        reason = self.admission.refusal(request.headers) if self.admission is not None else ""
        if not reason:
            return None
        return _said(400, reason, code=_REFUSED) if entering else _said(401, reason)

    def _too_large(self) -> Response:
        return _said(413, f"a request may carry {self.largest:,} bytes")

    async def _passed_on(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode("ascii")
        headers = {name: value for name, value in request.headers.items() if _THERE.fullmatch(name)}
        body = self._limited(request) if request.method == "POST" else None
        made = self.client.build_request(request.method, self.upstream + path, headers=headers, content=body)
        try:
            answer = await self.client.send(made, stream=True)
        except _TooLargeError:
            return self._too_large()
        except httpx2.TransportError:
            return _said(502, "the SuperLink does not answer")
        return StreamingResponse(
            answer.aiter_raw(),
            answer.status_code,
            {name: value for name, value in answer.headers.items() if _BACK.fullmatch(name)},
            background=BackgroundTask(answer.aclose),
        )

    async def _limited(self, request: Request) -> AsyncIterator[bytes]:
        passed = 0
        async for piece in request.stream():
            passed += len(piece)
            if passed > self.largest:
                raise _TooLargeError
            if piece:
                yield piece


class _TooLargeError(Exception):
    """A request turned out to be too large on its way."""


def _said(status: int, detail: str, **more: Any) -> Response:
    return JSONResponse({"detail": detail, **more}, status, {"connection": "close"})


def serve(
    *,
    host: str,
    port: int,
    upstream: str,
    authority: Path | None,
    certificate: Path | None,
    key: Path | None,
    keys: Path | None,
) -> None:
    """Serve at `host` and `port` until the process is ended.

    Args:
        host: address to listen at.
        port: port to listen at.
        upstream: URL of the SuperLink.
        authority: what the SuperLink's certificate is verified against; None: it has none.
        certificate: what is shown to nodes; None: there is no TLS.
        key: of the certificate.
        keys: folder of the registered keys; None: everybody is let in.
    """
    verified = ssl.create_default_context(cafile=str(authority)) if authority is not None else True
    client = httpx2.AsyncClient(
        verify=verified, timeout=_SECONDS, limits=httpx2.Limits(max_connections=_TOGETHER), trust_env=False
    )
    uvicorn.run(
        Gateway(upstream, client, Admission(keys) if keys is not None else None),
        host=host,
        port=port,
        http="h11",  # the strictest parser there is; it hands the path on as it came
        ws="none",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=int(_IDLE),
        timeout_graceful_shutdown=3,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m moehub.federation.deploy.gateway", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--upstream", required=True)
    for name in ("authority", "certificate", "key", "keys"):
        parser.add_argument(f"--{name}", type=Path)
    serve(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
