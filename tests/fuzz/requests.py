"""Targets that ask a hub: in `request` the request is the stranger's, in `stored` what the hub shows.

An input of `request` is one as it would be written down: `METHOD /path?query`, lines of headers, an empty line, the
body; COMMIT stands for the newest commit of the repo that is there. The hub is open, so that whatever is asked for is
tried, and begins anew from time to time. An input of `stored` is one file of an expert or a MoE, its first byte says
which, and the hub is asked for what shows it.
"""

import asyncio
import contextlib
import json
import shutil
from collections.abc import Mapping
from typing import Any

from moehub.hub.measured import MeasuredText
from moehub.hubserver.visitor import EVERYBODY
from tests.fuzz.target import Run, Target, workplace

_ANEW = 200
"""Requests after which the hub is an empty one again."""
_FINE, _BROKEN = 200, 500
_MEASURED = MeasuredText(2.5, 100, {"law": 0.75, "null": 0.25}, 3.0)
_HOST = (b"host", b"127.0.0.1")


class BrokenError(AssertionError):
    """The hub answered that it does not know what happened."""


def _request() -> Run:
    loop = asyncio.new_event_loop()
    hub = _Hub()

    def run(data: bytes) -> None:
        status = loop.run_until_complete(hub.answer(data))
        if status == _BROKEN:
            raise BrokenError(f"{data!r:.500} was answered with {status}")

    return run


class _Hub:
    """An application over a store that is made anew from time to time."""

    def __init__(self) -> None:
        self.place = workplace()
        self.answered = 0
        self.application = self._anew()

    def _anew(self) -> Any:
        from moehub.hubserver.application import application
        from moehub.hubserver.settings import ServerSettings
        from moehub.hubserver.store import trees
        from moehub.hubserver.store.history import Change
        from moehub.hubserver.store.store import open_store

        shutil.rmtree(self.place, ignore_errors=True)
        store = open_store(self.place / "hub", quota=1 << 20, create=True)
        repo = store.repos.create("a/b", EVERYBODY)
        blob = store.uploads.take_bytes(b"hello", repo.number)
        change = Change({"x.txt": trees.regular(b"hello", blob.sha256), "d/y": trees.large(blob.sha256, blob.size)})
        self.store, self.repo = store, repo
        self.commit = store.history.commit(repo, "main", change, title="First", author="a")
        return application(store, ServerSettings(self.place / "hub", open=True), admit=lambda *_: None)

    async def answer(self, data: bytes) -> int:
        """Return the status of the answer to a request; 0 where there was none."""
        self.answered += 1
        if self.answered % _ANEW == 0:
            self.application = self._anew()
        scope, body = _parsed(data.replace(b"COMMIT", self.commit.encode()))
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop(0)
            await asyncio.sleep(3600)
            return {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        async with asyncio.timeout(10):
            await self.application(scope, receive, send)
        return statuses[0] if statuses else 0


def _stored() -> Run:
    from moehub.hubserver.refusals import RefusedError
    from tests.hubserver.pushes import push
    from tests.hubserver.showcase import card_of, expert_files, moe_files

    loop, hub = asyncio.new_event_loop(), _Hub()
    expert = expert_files(card_of("law"))
    whole = {"expert": expert, "moe": moe_files({"law": expert}, {"law": "a/law"}, {"law": _MEASURED})}
    places = [(kind, name) for kind, files in whole.items() for name in sorted(files)]

    def run(data: bytes) -> None:
        kind, name = places[data[0] % len(places)] if data else places[0]
        hub.store.repos.delete(hub.repo)
        with contextlib.suppress(RefusedError):
            push(hub.store, "a/b", {**whole[kind], name: data[1:]})
        hub.repo = hub.store.repos.get("a/b", EVERYBODY)
        for address in (b"/", b"/a/b", b"/a/b/tree/main", b"/api/models/a/b", b"/api/models?full=1"):
            status = loop.run_until_complete(hub.answer(b"GET " + address))
            if status != _FINE:
                raise BrokenError(f"{name} of {data[1:]!r:.500} makes {address!r} answer {status}")

    return run


def _files() -> Mapping[str, bytes]:
    from tests.hubserver.showcase import card_of, expert_files, moe_files

    expert = expert_files(card_of("law"))
    moe = moe_files({"law": expert}, {"law": "a/law"}, {"law": _MEASURED})
    contents = [files[name] for files in (expert, moe) for name in sorted(files)]
    return {f"seed-{number}": bytes([number]) + content for number, content in enumerate(contents)}


def _parsed(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return a request's scope, as a server would make it, and its body."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, target = first.partition(b" ")
    path, _, query = target.partition(b"?")
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    headers += [_HOST, (b"content-length", str(len(body)).encode())]
    # What no server lets through, for no method or path in HTTP may hold it.
    raw = bytes(each for each in path if 32 < each < 127 and each not in b"?#")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "".join(chr(each) for each in method if 64 < each < 91) or "GET",
        "scheme": "http",
        "path": "/" + raw.decode().lstrip("/"),
        "raw_path": b"/" + raw.lstrip(b"/"),
        "query_string": bytes(each for each in query if 32 < each < 127),
        "headers": [(name, value) for name, value in headers if name.isalnum() or b"-" in name],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8731),
        "root_path": "",
    }
    with contextlib.suppress(UnicodeDecodeError):
        from urllib.parse import unquote

        scope["path"] = unquote(str(scope["path"]), errors="strict")
    return scope, body


_COMMIT = [
    {"key": "header", "value": {"summary": "Push", "description": "", "parentCommit": ""}},
    {"key": "file", "value": {"path": "README.md", "content": "aGVsbG8=", "encoding": "base64"}},
    {"key": "lfsFile", "value": {"path": "w", "algo": "sha256", "oid": "0" * 64, "size": 5}},
    {"key": "deletedFile", "value": {"path": "x.txt"}},
    {"key": "deletedFolder", "value": {"path": "d/"}},
]
_JSON_BODIES = {
    "POST /api/models/a/b/preupload/main": {"files": [{"path": "x", "sample": "aGk=", "size": 2}]},
    "POST /a/b.git/info/lfs/objects/batch": {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 5}]},
    "POST /api/repos/create": {"name": "c", "organization": "a", "type": "model", "private": False},
    "DELETE /api/repos/delete": {"name": "c", "organization": "a"},
    "POST /api/validate-yaml": {"content": "---\na: b\n---\n", "repoType": "model"},
    "PUT /api/models/a/b/settings": {"private": True, "gated": "auto"},
    "POST /api/models/a/b/tag/main": {"tag": "v1"},
    "POST /api/models/a/b/branch/exp%2F1": {"startingPoint": "main"},
}
_PLAIN = (
    "GET /api/models?search=a&filter=b&limit=2&full=1&cursor=x",
    "GET /api/models/a/b?blobs=1&expand=sha",
    "GET /api/models/a/b/tree/main/d?recursive=1&expand=1",
    "GET /api/models/a/b/refs",
    "GET /api/models/a/b/commits/main?p=0&limit=5",
    'GET /a/b/resolve/main/x.txt\nrange: bytes=1-3\nif-none-match: W/"x"',
    "HEAD /a/b/resolve/main/d/y",
    'GET /a/b/resolve/COMMIT/x.txt\nrange: bytes=1-3\nif-range: "x"',
    "PUT /api/uploads/a/b/" + "0" * 64 + "?number=1&size=5&piece=whole&expires=99999999999&signature=ab\n\nhello",
    "POST /api/models/a/b/paths-info/main\ncontent-type: application/x-www-form-urlencoded\n\npaths=x.txt&expand=true",
    "GET /api/models/a/b/xet-write-token/main",
    "GET /api/whoami-v2\nauthorization: Bearer moehub_x",
    "GET /?base=a&search=b",
    "GET /a/b/tree/main/d",
    "POST /login\ncontent-type: application/x-www-form-urlencoded\n\ntoken=x",
)


def _seeds() -> Mapping[str, bytes]:
    lines = b"\n".join(json.dumps(operation).encode() for operation in _COMMIT)
    found = [f"{line}\n\n{json.dumps(body)}".encode() for line, body in _JSON_BODIES.items()]
    found += [b"POST /api/models/a/b/commit/main\n\n" + lines, *(text.encode() for text in _PLAIN)]
    found += [b"POST /api/models/a/b/commit/main\n\n" + b"\n".join(lines.split(b"\n")[:2])]
    return {f"seed-{number}": each for number, each in enumerate(found)}


TARGETS = (
    Target(
        "request",
        _request,
        _seeds,
        ("%2F", "%2e%2e", "..", "%00", "%ff", "bytes=", "refs/heads/", "\n\n", '{"key": "file", "value": {', "1e999"),
    ),
    Target("stored", _stored, _files, ("---\n", "<script>", "](javascript:", "&#", "| a |\n|---|\n", "![")),
)
