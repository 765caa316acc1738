"""Commits: one operation a line, read as they come."""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field

from anyio import to_thread
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from moehub.hubserver.api import receiving, values
from moehub.hubserver.api.addresses import SHA256
from moehub.hubserver.api.call import Call
from moehub.hubserver.api.preupload import LARGEST_REGULAR
from moehub.hubserver.api.values import Values
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store import trees
from moehub.hubserver.store.history import Change
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.trees import Entry

_LARGEST = 256 << 20
"""Bytes of a whole commit; large files come beforehand."""
_LONGEST_LINE = LARGEST_REGULAR * 4 // 3 + (64 << 10)
_MOST_OPERATIONS = 25_000
_LONGEST_TEXT = 64 << 10


@dataclass
class Draft:
    """What the lines of a commit have said so far."""

    call: Call
    repo: Repo
    title: str = ""
    message: str = ""
    parent: str | None = None
    files: dict[str, Entry] = field(default_factory=dict)
    deleted_files: list[str] = field(default_factory=list)
    deleted_folders: list[str] = field(default_factory=list)
    waiting: dict[str, bytes] = field(default_factory=dict)
    """Small files that have come and are not on disk yet."""
    operations: int = 0

    def add(self, lines: list[bytes]) -> None:
        """Take some lines in; the files in them are on disk afterwards.

        Raises:
            RefusedError: a line is no operation, or a file may not be committed.
        """
        for line in lines:
            self.operations += 1
            if self.operations > _MOST_OPERATIONS:
                raise RefusedError(413, f"a commit may have {_MOST_OPERATIONS} operations: make several")
            operation = values.read(line)
            key = operation.text("key")
            if key not in _OPERATIONS:
                raise RefusedError(400, f"{key!r:.40} is no operation, expected one of {', '.join(_OPERATIONS)}")
            _OPERATIONS[key](self, operation.object("value"))
        self._keep()

    def commit(self) -> str:
        """Make the commit and return its name.

        Raises:
            RefusedError: it has no title, or may not be made.
        """
        if not self.title:
            raise RefusedError(400, "the commit has no header with a summary: say what it does")
        return self.call.store.history.commit(
            self.repo,
            self.call.parts["branch"].removeprefix("refs/heads/"),
            Change(self.files, tuple(self.deleted_files), tuple(self.deleted_folders)),
            title=self.title,
            message=self.message,
            author=self.call.visitor.name,
            parent=self.parent,
            admit=self.call.admit,
        )

    def header(self, value: Values) -> None:
        """Take in what the commit is called."""
        self.title, self.message = value.text("summary"), value.text("description", "")
        if len(self.title) + len(self.message) > _LONGEST_TEXT:
            raise RefusedError(400, f"the commit's message is longer than {_LONGEST_TEXT} characters: shorten it")
        self.parent = value.text("parentCommit", "") or None

    def file(self, value: Values) -> None:
        """Take in a small file; it is kept with the others of its lines."""
        path = self._path(value)
        try:
            content = base64.b64decode(value.text("content"), validate=True)
        except (binascii.Error, ValueError) as error:
            raise RefusedError(400, f"the content of {path!r} is no base64 ({error})") from error
        if len(content) > LARGEST_REGULAR:
            raise RefusedError(
                413, f"{path!r} has {len(content)} bytes: what has over {LARGEST_REGULAR} goes through LFS"
            )
        self.waiting[path] = content

    def large_file(self, value: Values) -> None:
        """Take in a large file that was sent before."""
        path, sha256 = self._path(value), value.text("oid")
        if not SHA256.fullmatch(sha256):
            raise RefusedError(400, f"oid is {sha256!r:.80}, expected a sha256 in hex")
        size = self.call.store.uploads.size(self.repo.number, sha256)
        if size is None or (value.values.get("size") is not None and value.size("size") != size):
            raise RefusedError(
                422, f"the bytes of {path!r} ({sha256[:12]}) were not uploaded to {self.repo.id}: send them"
            )
        self.waiting.pop(path, None)
        self.files[path] = trees.large(sha256, size)

    def deleted_file(self, value: Values) -> None:
        """Take in that a file is to go."""
        self.deleted_files.append(value.text("path"))

    def deleted_folder(self, value: Values) -> None:
        """Take in that everything in a folder is to go."""
        self.deleted_folders.append(value.text("path").rstrip("/"))

    def _keep(self) -> None:
        """Put the small files that have come on disk."""
        blobs = self.call.store.uploads.take_all(list(self.waiting.values()), self.repo.number)
        for (path, content), blob in zip(self.waiting.items(), blobs, strict=True):
            self.files[path] = trees.regular(content, blob.sha256)
        self.waiting.clear()

    def _path(self, value: Values) -> str:
        return trees.check_path(value.text("path"), pickles=self.call.settings.pickles)


_OPERATIONS: dict[str, Callable[[Draft, Values], None]] = {
    "header": Draft.header,
    "file": Draft.file,
    "lfsFile": Draft.large_file,
    "deletedFile": Draft.deleted_file,
    "deletedFolder": Draft.deleted_folder,
}


async def commit(call: Call) -> JSONResponse:
    """Make a commit of the operations in the body.

    Raises:
        RefusedError: the visitor may not write, a line cannot be read, or the commit may not be made.
        ClientDisconnect: the connection broke; no commit is made.
    """
    if call.asks("create_pr"):
        raise RefusedError(400, "this hub has no pull requests: commit to a branch")
    draft = Draft(call, await run_in_threadpool(lambda: call.repo(write=True)))
    async for some in receiving.lines(call.request, _LARGEST, _LONGEST_LINE):
        await run_in_threadpool(draft.add, some)
    oid = await to_thread.run_sync(draft.commit, limiter=call.gates)
    return JSONResponse(
        {
            "success": True,
            "commitOid": oid,
            "commitUrl": f"{call.address}/{draft.repo.id}/commit/{oid}",
            "hookOutput": "",
            "pullRequestUrl": None,
        }
    )
