"""Hubs that speak the Hugging Face Hub API: huggingface.co, and every server like it.

With `refusals`, the only module that knows huggingface_hub. What its client leaves open is closed here:

* a file that arrives is checked against the hub's hash and the expert's card (the client checks neither)
* every download names a commit, and each hub has a cache of its own
* the token of one hub is never sent to another
* a push whose answer got lost looks whether the commit was made before it makes another
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from moehub import __version__, console, files
from moehub.card import README
from moehub.errors import HubError, listed
from moehub.hub import PEEKED_BYTES, Listing, Published, arrival, check_repo, departure, model_card, parcel
from moehub.hub.refusals import TOKEN_VARIABLE, how_to_log_in, in_sentences

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo, RepoFile

_HUGGING_FACE = "https://huggingface.co"
_MAIN = "main"
_SECONDS = 20.0
_ATTEMPTS = 3
_CONNECTIONS = 4
_PARENT_IS_STALE = 412


@dataclass(frozen=True)
class RemoteHub:
    """A hub server."""

    named: str | None = None
    """Its URL; None for the one that huggingface_hub is set to."""
    token: str | None = field(default=None, repr=False)
    """A token for it; None: the one in the environment."""

    @property
    def location(self) -> str:
        """The hub's URL."""
        from huggingface_hub import constants

        return (self.named or constants.ENDPOINT).rstrip("/")

    def push(
        self, folder: Path, repo: str, *, message: str, private: bool = False, key: Path | None = None
    ) -> Published:
        """Publish an expert or a MoE as the newest commit of `repo`; nothing new makes no new commit.

        Raises:
            HubError: the folder may not travel, or the hub cannot be reached or refuses.
            SigningError: the key cannot sign.
        """
        check_repo(repo)
        packed = departure.make_ready(self, folder, repo, key=key)
        with in_sentences(self.location, repo), _plain_http(self.location), _bars_on_terminals():
            api = self._api()
            _found(api, repo, private=private)
            commit = _publish(api, packed, repo, message)
        return Published(repo, commit, f"{self.location}/{repo}/tree/{commit}")

    def pull(self, repo: str, revision: str | None, destination: Path) -> str:
        """Fetch a commit (`main` where `revision` is None), check every file, and return the commit.

        Raises:
            HubError: no such repo or revision, or a file is not what was published; `destination` stays as it was.
        """

        def accept(folder: Path) -> None:
            arrival.accept(folder, hub=self.location, repo=repo, revision=revision)

        return self._take(repo, revision, destination, accept)

    def fetch(self, repo: str, revision: str | None, destination: Path) -> str:
        """Fetch a commit and believe nothing of it: for the admission gate, which opens the files first.

        Raises:
            HubError: no such repo or revision, it is neither an expert nor a MoE, or a file is not the one that the hub
                says it is, or too large; `destination` stays as it was.
        """
        return self._take(repo, revision, destination, lambda _: None)

    def _take(self, repo: str, revision: str | None, destination: Path, accept: Callable[[Path], None]) -> str:
        check_repo(repo)
        parcel.check_destination(destination)
        with in_sentences(self.location, repo, revision), _plain_http(self.location):
            api = self._api()
            commit = _head(api.model_info(repo, revision=revision or _MAIN, timeout=_SECONDS))
            tree = _tree(api, repo, commit)
        kind = parcel.kind_of(tree, f"{repo} on {self.location}")
        wanted = [file for name, file in tree.items() if parcel.travels(kind, name)]
        parcel.check_sizes(kind, {file.path: file.size for file in wanted}, f"{repo} on {self.location}")
        with files.new_folder(destination) as building:
            with in_sentences(self.location, repo, revision), _plain_http(self.location):
                self._download(repo, commit, wanted, building)
            accept(building)
        return commit

    def peek(self, repo: str, names: Sequence[str]) -> dict[str, bytes]:
        """Return those of these small files that the newest commit of `repo` holds; none where there is no such repo.

        Raises:
            HubError: the hub cannot be reached or refuses, or a file is not the one that the hub says it is.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        with in_sentences(self.location, repo):
            api = self._api()
            try:
                commit = _head(api.model_info(repo, timeout=_SECONDS))
            except RepositoryNotFoundError:
                return {}
            tree = _tree(api, repo, commit)
            wanted = [tree[name] for name in names if name in tree and tree[name].size <= PEEKED_BYTES]
            with tempfile.TemporaryDirectory() as place, _no_bars():
                for file in wanted:
                    self._fetch(repo, commit, file, Path(place))
                _check_arrived(wanted, Path(place), f"{repo} did not arrive whole from {self.location}:")
                return {file.path: Path(place, file.path).read_bytes() for file in wanted}

    def experts(self, base: str | None = None) -> list[Listing]:
        """Return the experts on offer, in the order of their repos; `base` keeps those of one base reference.

        A repo that is tagged as an expert but whose model card was not written by moehub is left out.

        Raises:
            HubError: the hub cannot be reached.
        """
        self.check(_SECONDS)  # The client retries a dead hub for half a minute; this fails at once.
        with in_sentences(self.location):
            found = list(self._api().list_models(filter=model_card.EXPERT_TAG, full=True, cardData=True))
        listings = [listing for model in found if (listing := _listing(model))]
        return sorted((each for each in listings if base in (None, each.base.reference)), key=lambda each: each.repo)

    def check(self, timeout: float) -> str:
        """Return one sentence about the hub and who we are to it, within `timeout` seconds.

        Raises:
            HubError: it cannot be reached, or does not know our token.
        """
        from huggingface_hub.utils import get_session, hf_raise_for_status  # type: ignore[attr-defined]

        token = self._token()
        with in_sentences(self.location):
            if token:
                headers = {"authorization": f"Bearer {token}"}
                answer = get_session().get(f"{self.location}/api/whoami-v2", headers=headers, timeout=timeout)
                hf_raise_for_status(answer)
                return f"{self.location} knows us as {answer.json()['name']}"
            answer = get_session().get(f"{self.location}/api/models", params={"limit": 1}, timeout=timeout)
            hf_raise_for_status(answer)
            answer.json()
        return f"{self.location} answers; without a token we can pull, but not push"

    def token_cure(self) -> str | None:
        """Return how to give us a token for this hub, or None where we have one."""
        return None if self._token() else how_to_log_in(self.location)

    def _api(self) -> "HfApi":
        from huggingface_hub import HfApi

        # False, not None: None would send the token of huggingface.co.
        return HfApi(self.location, token=self._token(), library_name="moehub", library_version=__version__)

    def _token(self) -> str | Literal[False]:
        """Return this hub's own token: what huggingface_hub knows is meant for the hub that it is set to."""
        from huggingface_hub import constants, get_token

        own = self.token or os.environ.get(TOKEN_VARIABLE)
        if self.named is None or self.location == constants.ENDPOINT.rstrip("/"):
            own = own or get_token()
        return own or False

    def _download(self, repo: str, commit: str, wanted: list["RepoFile"], building: Path) -> None:
        """Fetch files into `building` and compare each with the hub's own hash.

        Raises:
            HubError: a file is not the one that the hub says it is.
        """

        def fetch(file: "RepoFile") -> "RepoFile":
            self._fetch(repo, commit, file, building)
            return file

        total = sum(file.size for file in wanted)
        with (
            _no_bars(),
            console.progress(f"pulling {repo}", total, in_bytes=True) as advance,
            ThreadPoolExecutor(_CONNECTIONS) as pool,
        ):
            for file in pool.map(fetch, wanted):
                advance(file.size)
        _remove_bookkeeping(building)
        _check_arrived(wanted, building, f"{repo} did not arrive whole from {self.location}:")

    def _fetch(self, repo: str, commit: str, file: "RepoFile", place: Path) -> None:
        """Fetch one file into a folder; nothing is checked."""
        from huggingface_hub import hf_hub_download

        hf_hub_download(
            repo,
            file.path,
            revision=commit,
            endpoint=self.location,
            token=self._token(),
            cache_dir=_cache(self.location),
            local_dir=place,
        )


def _check_arrived(wanted: list["RepoFile"], place: Path, summary: str) -> None:
    broken = [file.path for file in wanted if not _same(file, place / file.path)]
    if broken:
        raise HubError(listed(summary, [f"{name} is not the file that was published: pull again" for name in broken]))


def _found(api: "HfApi", repo: str, *, private: bool) -> None:
    """Make the repo, if there is none."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.model_info(repo, timeout=_SECONDS)
    except RepositoryNotFoundError:
        # None leaves it to the hub and the organisation; only --private insists.
        api.create_repo(repo, private=True if private else None, exist_ok=True)
        return
    if private and not info.private:
        raise HubError(f"{repo} on {api.endpoint} is public already: push without --private, or to another repo")


def _publish(api: "HfApi", packed: parcel.Parcel, repo: str, message: str) -> str:
    """Make the repo hold exactly the parcel and return its head; a broken connection makes no second commit.

    Raises:
        HubError: the connection broke, or others pushed, at every attempt.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    console.console.print(f"pushing {repo}: {packed.size} bytes", markup=False)
    failure: Exception | None = None
    for _ in range(_ATTEMPTS):
        head = _head(api.model_info(repo, timeout=_SECONDS))
        operations = _operations(packed, _tree(api, repo, head))
        if not operations:
            return head
        try:
            return api.create_commit(repo, operations, commit_message=message, parent_commit=head or None).oid
        except httpx2.TransportError as error:
            failure = error  # Only the answer may be lost: the next look at the head tells.
        except HfHubHTTPError as error:
            if error.response.status_code != _PARENT_IS_STALE and not error.response.is_server_error:
                raise
            failure = error
        except RuntimeError as error:
            if not isinstance(error.__cause__, httpx2.TransportError):
                raise
            failure = error.__cause__  # The client gave up on a file; the next attempt sends only what is missing.
    raise HubError(f"{repo} on {api.endpoint} could not be pushed in {_ATTEMPTS} attempts: {failure}") from failure


def _operations(packed: parcel.Parcel, tree: dict[str, "RepoFile"]) -> list[Any]:
    """Return what turns a repo's tree into the parcel, file by file; what moehub never published is left alone."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    readme = packed.readme.encode()
    changed: list[Any] = [
        CommitOperationAdd(name, packed.folder / name)
        for name in packed.files
        if name not in tree or not _same(tree[name], packed.folder / name)
    ]
    if README not in tree or not _same_bytes(tree[README], readme):
        changed.append(CommitOperationAdd(README, readme))
    ours = [name for name in tree if parcel.travels("expert", name) or parcel.travels("moe", name)]
    return changed + [CommitOperationDelete(name) for name in ours if name not in {README, *packed.files}]


def _head(info: "ModelInfo") -> str:
    """Return the commit of a repo's information; an empty repo has none."""
    return info.sha or ""


def _tree(api: "HfApi", repo: str, commit: str) -> dict[str, "RepoFile"]:
    """Return the files of a commit by name."""
    from huggingface_hub.hf_api import RepoFile

    if not commit:
        return {}
    items = api.list_repo_tree(repo, recursive=True, revision=commit)
    return {item.path: item for item in items if isinstance(item, RepoFile)}


def _same(file: "RepoFile", path: Path) -> bool:
    """Return whether a file on disk is the one on the hub."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return files.sha256(path) == file.lfs.sha256 if file.lfs else _same_bytes(file, path.read_bytes())


def _same_bytes(file: "RepoFile", content: bytes) -> bool:
    if file.lfs:
        return hashlib.sha256(content).hexdigest() == file.lfs.sha256
    # What is no large file is named as git names it.
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == file.blob_id


def _listing(model: "ModelInfo") -> Listing | None:
    summary = model_card.read_summary(model.card_data.get("moehub")) if model.card_data else None
    if summary is None:
        return None
    return Listing(model.id, summary.name, summary.domain, summary.base, summary.license, _head(model), summary.metrics)


def _cache(location: str) -> Path | None:
    """Return this hub's own cache: the client's would serve one hub's files as another's."""
    from huggingface_hub import constants

    if location == _HUGGING_FACE:
        return None
    return Path(constants.HF_HOME) / "moehub" / "hubs" / hashlib.sha256(location.encode()).hexdigest()[:16]


def _remove_bookkeeping(folder: Path) -> None:
    """Remove what the client leaves beside the files it fetched."""
    shutil.rmtree(folder / ".cache", ignore_errors=True)


@contextlib.contextmanager
def _plain_http(location: str) -> Iterator[None]:
    """Let the client upload over plain HTTP, except to huggingface.co.

    Few other hubs understand Xet. moehub's does, for clients that insist; but a plain upload to a hub nearby is several
    times as fast, takes half of its disk while it lasts, and what a hub has not got is all that a push sends anyway.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = before or location != _HUGGING_FACE
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    before = are_progress_bars_disabled()
    if not before:
        disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def _bars_on_terminals() -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if console.console.is_terminal else _no_bars()
