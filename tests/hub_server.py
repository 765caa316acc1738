"""A hub on this machine's loopback: as much of the Hugging Face Hub API as the unmodified client needs.

Everything is in memory. Faults are made by hand: `Hub.flip` damages a stored file, `Hub.lose_answers` makes
the next commits without telling the client.
"""

import base64
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

TOKEN = "hf_alice"  # noqa: S105 (a hub of this test alone)
_BIG = ".safetensors"


@dataclass(frozen=True)
class File:
    content: bytes
    big: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """The name git gives it; a large file is named after its pointer."""
        content = self.content
        if self.big:
            content = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(content)}\n".encode()
            )
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        lfs = {"lfs": {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}} if self.big else {}
        return {"type": "file", "path": path, "oid": self.oid, "size": len(self.content), **lfs}


@dataclass
class Repo:
    private: bool
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def add(self, tree: dict[str, File]) -> str:
        content = json.dumps([len(self.commits), sorted((path, file.oid) for path, file in tree.items())])
        oid = hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest()
        self.commits[oid], self.refs["main"] = tree, oid
        return oid

    def matter(self) -> dict[str, Any]:
        readme = self.commits[self.refs["main"]].get("README.md")
        parts = readme.content.decode().split("---\n") if readme else []
        return yaml.safe_load(parts[1]) if len(parts) > 2 else {}

    def tags(self) -> list[str]:
        return [*self.matter().get("tags", [])]


class Refusal(Exception):  # noqa: N818 (an answer, not a mistake)
    """An answer that is no success."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.answer = JSONResponse({"error": message}, status, headers)


@dataclass
class Hub:
    """The state behind the server, and the knobs of the tests."""

    repos: dict[str, Repo] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    lose_answers: int = 0
    """How many of the next commits are made without an answer."""
    refuse_uploads: bool = False
    """Whether large files are turned away."""
    tokens_seen: set[str | None] = field(default_factory=set)
    url: str = ""

    def flip(self, repo: str, path: str) -> None:
        """Damage a file of the newest commit, while its hash stays what was promised."""
        tree = self.repos[repo].commits[self.repos[repo].refs["main"]]
        before = tree[path]
        content = bytes([before.content[0] ^ 1]) + before.content[1:]
        damaged = File(content, before.big)
        entry = before.entry(path)
        object.__setattr__(damaged, "entry", lambda _path: entry)
        tree[path] = damaged

    def app(self) -> Starlette:
        repo = "/api/models/{org}/{name}"
        return Starlette(
            routes=[
                Route("/api/whoami-v2", self._answer(self.whoami)),
                Route("/api/repos/create", self._answer(self.create), methods=["POST"]),
                Route("/api/validate-yaml", self._answer(self.validate), methods=["POST"]),
                Route("/api/models", self._answer(self.models)),
                Route(repo, self._answer(self.info)),
                Route(repo + "/revision/{revision}", self._answer(self.info)),
                Route(repo + "/tree/{revision}", self._answer(self.tree)),
                Route(repo + "/preupload/{revision}", self._answer(self.preupload), methods=["POST"]),
                Route(repo + "/commit/{revision}", self._answer(self.commit), methods=["POST"]),
                Route("/{org}/{name}.git/info/lfs/objects/batch", self._answer(self.batch), methods=["POST"]),
                Route("/lfs/{sha}", self._answer(self.store), methods=["PUT"]),
                Route("/{org}/{name}/resolve/{revision}/{path:path}", self._answer(self.resolve)),
            ]
        )

    def _answer(self, endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            self.tokens_seen.add(request.headers.get("authorization"))
            try:
                body = endpoint(request)
                if hasattr(body, "__await__"):
                    body = await body
            except Refusal as refusal:
                return refusal.answer
            return body if isinstance(body, Response) else JSONResponse(body)

        return answer

    # Who asks, and for what.

    def _admit(self, request: Request, *, write: bool = False) -> None:
        token = request.headers.get("authorization")
        if token not in (None, f"Bearer {TOKEN}"):
            raise Refusal(401, "Invalid credentials in Authorization header")
        if write and (token is None or request.path_params.get("org") == "foreign"):
            raise Refusal(403 if token else 401, "You have no write access")

    def _repo(self, request: Request, *, write: bool = False) -> Repo:
        self._admit(request, write=write)
        found = self.repos.get(f"{request.path_params['org']}/{request.path_params['name']}")
        if found is None or (found.private and "authorization" not in request.headers):
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return found

    def _commit_of(self, request: Request, repo: Repo) -> str:
        revision = request.path_params.get("revision", "main")
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # The endpoints.

    def whoami(self, request: Request) -> dict[str, Any]:
        self._admit(request, write=True)
        return {"type": "user", "name": "alice", "orgs": []}

    async def create(self, request: Request) -> Any:
        body = await request.json()
        request.path_params["org"] = body["organization"]
        self._admit(request, write=True)
        name = f"{body['organization']}/{body['name']}"
        if name in self.repos:
            return JSONResponse({"error": "exists", "url": f"{self.url}/{name}"}, 409)
        self.repos[name] = Repo(private=body.get("visibility") == "private" or bool(body.get("private")))
        self.repos[name].add({".gitattributes": File(b"*.safetensors filter=lfs\n", big=False)})
        return {"url": f"{self.url}/{name}", "name": name, "id": name}

    async def validate(self, request: Request) -> Any:
        yaml.safe_load((await request.json())["content"].split("---\n")[1])
        return {"errors": [], "warnings": []}

    def models(self, request: Request) -> list[dict[str, Any]]:
        self._admit(request)
        wanted = set(request.query_params.getlist("filter"))
        return [self._describe(name, repo) for name, repo in self.repos.items() if wanted <= set(repo.tags())]

    def info(self, request: Request) -> dict[str, Any]:
        repo = self._repo(request)
        name = f"{request.path_params['org']}/{request.path_params['name']}"
        return {**self._describe(name, repo), "sha": self._commit_of(request, repo)}

    def _describe(self, name: str, repo: Repo) -> dict[str, Any]:
        head = repo.refs["main"]
        return {
            "id": name,
            "sha": head,
            "private": repo.private,
            "tags": repo.tags(),
            "cardData": repo.matter(),
            "siblings": [{"rfilename": path} for path in repo.commits[head]],
        }

    def tree(self, request: Request) -> list[dict[str, Any]]:
        repo = self._repo(request)
        tree = repo.commits[self._commit_of(request, repo)]
        folders = {path.rpartition("/")[0] for path in tree} - {""}
        entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        return [*entries, *(file.entry(path) for path, file in sorted(tree.items()))]

    async def preupload(self, request: Request) -> dict[str, Any]:
        self._repo(request, write=True)
        names = [file["path"] for file in (await request.json())["files"]]
        modes = {name: "lfs" if name.endswith(_BIG) else "regular" for name in names}
        return {"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]}

    async def batch(self, request: Request) -> dict[str, Any]:
        self._repo(request, write=True)
        objects = [{"oid": each["oid"], "size": each["size"]} for each in (await request.json())["objects"]]
        for each in objects:
            if each["oid"] not in self.blobs:
                each["actions"] = {"upload": {"href": f"{self.url}/lfs/{each['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    async def store(self, request: Request) -> Response:
        content = await request.body()
        if self.refuse_uploads:
            raise Refusal(422, "quota exceeded")
        if hashlib.sha256(content).hexdigest() != request.path_params["sha"]:
            raise Refusal(422, "sha256 mismatch")
        self.blobs[request.path_params["sha"]] = content
        return Response()

    async def commit(self, request: Request) -> Any:
        repo = self._repo(request, write=True)
        head = self._commit_of(request, repo)
        tree = dict(repo.commits[head])
        for line in (await request.body()).splitlines():
            operation = json.loads(line)
            value = operation["value"]
            match operation["key"]:
                case "header" if value.get("parentCommit", head) != head:
                    raise Refusal(412, "A commit has happened since")
                case "file":
                    tree[value["path"]] = File(base64.b64decode(value["content"]), big=False)
                case "lfsFile":
                    tree[value["path"]] = File(self.blobs[value["oid"]], big=True)
                case "deletedFile":
                    del tree[value["path"]]
        oid = repo.add(tree)
        if self.lose_answers:
            self.lose_answers -= 1
            return Response(b"{", headers={"Content-Length": "1000"})  # The connection breaks in the middle.
        name = f"{request.path_params['org']}/{request.path_params['name']}"
        return {"commitOid": oid, "commitUrl": f"{self.url}/{name}/commit/{oid}", "success": True}

    def resolve(self, request: Request) -> Response:
        repo = self._repo(request)
        commit = self._commit_of(request, repo)
        path = request.path_params["path"]
        if path not in repo.commits[commit]:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        file = repo.commits[commit][path]
        entry = file.entry(path)
        etag = entry["lfs"]["oid"] if file.big else entry["oid"]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Content-Length": str(len(file.content))}
        if file.big:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(file.content))}
        return Response(b"" if request.method == "HEAD" else file.content, headers=headers)


@contextlib.contextmanager
def running() -> Iterator[Hub]:
    """Yield a hub that listens on a free port of 127.0.0.1 until the block ends."""
    hub = Hub()
    server = uvicorn.Server(uvicorn.Config(hub.app(), host="127.0.0.1", port=0, log_level="critical", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            raise RuntimeError("the test hub did not start")
        time.sleep(0.01)
    hub.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield hub
    finally:
        server.should_exit = True
        thread.join(timeout=20)
