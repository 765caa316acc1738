"""The folder hub: a folder on this machine or on a shared disk that experts are published to.

    HUB/hub.json                          marks the folder as a hub, with the version of its format
    HUB/ORG/NAME/commits/DIGEST/…         the files of one commit; DIGEST is `files.tree_digest` of them
    HUB/ORG/NAME/messages/DIGEST          what the publisher said about it
    HUB/ORG/NAME/refs/main                the newest DIGEST; other files beside it are tags

A commit is named after its content: the same content is the same commit, and a commit that was changed
afterwards is noticed. Commits appear whole, and refs move in one step, so that any number of people can
push and pull at once; of two pushes to one repo, the later one is `main`.
"""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moehub import files
from moehub.card import CARD_FILE, README, read_card
from moehub.errors import ExpertError, HubError
from moehub.hub import PEEKED_BYTES, Listing, Published, arrival, check_repo, departure, parcel

_MARK = "hub.json"
_FORMAT = {"kind": "moehub folder hub", "format": 1}
_MAIN = "main"
_COMMIT = re.compile(r"[0-9a-f]{64}")
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class FolderHub:
    """A hub that is a folder."""

    root: Path
    """Where it is; the first push makes it."""

    @property
    def location(self) -> str:
        """The hub's address, as `open_hub` takes it."""
        return f"file:{self.root.absolute()}"

    def push(
        self, folder: Path, repo: str, *, message: str, private: bool = False, key: Path | None = None
    ) -> Published:
        """Publish an expert or a MoE as the newest commit of `repo`; nothing new makes no new commit.

        Raises:
            HubError: the folder may not travel, or this is no folder hub.
            SigningError: the key cannot sign.
        """
        home = self._home(repo)
        if private:
            raise HubError(
                f"{self.location} cannot keep {repo} private: whoever may read the folder may read its experts; "
                "push without --private and restrict the folder's permissions"
            )
        packed = departure.make_ready(self, folder, repo, key=key)
        self._found()
        commit = files.digest_of(packed.digests())
        snapshot = home / "commits" / commit
        if not (snapshot.is_dir() and files.tree_digest(snapshot) == commit):
            _store(packed, snapshot, commit)
            files.write_text(home / "messages" / commit, message + "\n")
        files.write_text(home / "refs" / _MAIN, commit + "\n")
        return Published(repo, commit, snapshot.as_uri())

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
            HubError: no such repo or revision, it is neither an expert nor a MoE, or a file was changed, or is too
                large; `destination` stays as it was.
        """
        return self._take(repo, revision, destination, lambda _: None)

    def _take(self, repo: str, revision: str | None, destination: Path, accept: Callable[[Path], None]) -> str:
        commit = self._resolve(repo, revision)
        snapshot = self._home(repo) / "commits" / commit
        names = [path.as_posix() for path in files.files_below(snapshot)]
        kind = parcel.kind_of(names, f"{repo} in {self.location}")
        parcel.check_sizes(
            kind, {name: (snapshot / name).lstat().st_size for name in names}, f"{repo} in {self.location}"
        )
        parcel.check_destination(destination)
        with files.new_folder(destination) as building:
            for name in names:
                if not parcel.travels(kind, name) or (snapshot / name).is_symlink():
                    raise HubError(f"{repo} in {self.location} holds {name!r}, which no publisher sent: {_ASK}")
                _copy(snapshot / name, building / name)
            if files.tree_digest(building) != commit:
                raise HubError(
                    f"commit {commit[:12]} of {repo} in {self.location} was changed after publication: {_ASK}"
                )
            accept(building)
        return commit

    def peek(self, repo: str, names: Sequence[str]) -> dict[str, bytes]:
        """Return those of these small files that the newest commit of `repo` holds; none where there is no such repo.

        Raises:
            HubError: this is no folder hub.
        """
        if not (self._home(repo) / "refs" / _MAIN).is_file():
            return {}
        snapshot = self._home(repo) / "commits" / self._resolve(repo, None)
        small = [path for name in names if (path := snapshot / name).is_file() and path.stat().st_size <= PEEKED_BYTES]
        return {path.name: path.read_bytes() for path in small}

    def tag(self, repo: str, name: str, revision: str | None = None) -> str:
        """Give a commit a name that `pull` takes as revision, and return the commit.

        Raises:
            HubError: no such repo or revision, or the name cannot be a tag or is taken by another commit.
        """
        commit = self._resolve(repo, revision)
        path = self._home(repo) / "refs" / name
        if not _REF.fullmatch(name) or _COMMIT.fullmatch(name) or name == _MAIN:
            raise HubError(f"{name!r} cannot be a tag, expected letters, digits, '.', '_' and '-', as in v1.0")
        if path.exists() and path.read_text(encoding="ascii").strip() != commit:
            raise HubError(f"the tag {name} of {repo} is taken by another commit: choose another name")
        files.write_text(path, commit + "\n")
        return commit

    def experts(self, base: str | None = None) -> list[Listing]:
        """Return the experts on offer, in the order of their repos; `base` keeps those of one base reference.

        Raises:
            HubError: there is no such hub.
        """
        self._check_mark()
        repos = sorted("/".join(ref.parts[-4:-2]) for ref in self.root.glob(f"*/*/refs/{_MAIN}"))
        listings = [listing for repo in repos if (listing := self._listing(repo))]
        return [listing for listing in listings if base in (None, listing.base.reference)]

    def check(self, timeout: float) -> str:  # noqa: ARG002 (a folder answers at once)
        """Return one sentence about the hub.

        Raises:
            HubError: there is no such hub.
        """
        return f"{self.location} holds {len(self.experts())} experts"

    def token_cure(self) -> str | None:
        """Return None: whoever may write to the folder may push."""
        return None

    def _listing(self, repo: str) -> Listing | None:
        """Return what a repo offers, or None where it is a MoE or damaged: `pull` says how."""
        try:
            commit = self._resolve(repo, None)
            snapshot = self._home(repo) / "commits" / commit
            card = read_card(snapshot) if (snapshot / CARD_FILE).is_file() else None
        except (HubError, ExpertError):
            return None
        if card is None:
            return None
        return Listing(repo, card.name, card.domain, card.base, card.license, commit, card.metrics)

    def _home(self, repo: str) -> Path:
        return self.root / check_repo(repo)

    def _resolve(self, repo: str, revision: str | None) -> str:
        self._check_mark()
        home = self._home(repo)
        if not (home / "refs" / _MAIN).is_file():
            raise HubError(f"there is no repo {repo} in {self.location}: `moehub list --hub {self.location}` shows all")
        name = revision or _MAIN
        commit = name
        if _REF.fullmatch(name) and (home / "refs" / name).is_file():
            commit = (home / "refs" / name).read_text(encoding="ascii", errors="replace").strip()
        if not _COMMIT.fullmatch(commit) or not (home / "commits" / commit).is_dir():
            tags = ", ".join(sorted(path.name for path in (home / "refs").iterdir() if not path.name.startswith(".")))
            raise HubError(f"{repo} in {self.location} has no revision {name!r}, expected one of {tags}, or a commit")
        return commit

    def _found(self) -> None:
        """Mark the folder as a hub, if it is new or empty."""
        if self.root.exists() and not self.root.is_dir():
            raise HubError(f"{self.root} is a file, expected a folder: choose another --hub")
        if self.root.is_dir() and any(not path.name.startswith(".") for path in self.root.iterdir()):
            self._check_mark()
        else:
            files.write_text(self.root / _MARK, files.to_json(_FORMAT))

    def _check_mark(self) -> None:
        path = self.root / _MARK
        try:
            mark = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise HubError(
                f"{self.root} is no folder hub (it has no {_MARK}): give --hub a hub's folder, an empty or new folder "
                "to push to, or a URL beginning with https://"
            ) from error
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise HubError(f"{path} is damaged ({error}): restore it as {files.to_json(_FORMAT).strip()}") from error
        if mark != _FORMAT:
            raise HubError(f"{path} says {mark!r}, this moehub reads {_FORMAT!r}: update moehub")


_ASK = "ask its publisher to push it again"


def _store(packed: parcel.Parcel, snapshot: Path, commit: str) -> None:
    try:
        with files.new_folder(snapshot) as building:
            for name in packed.files:
                _copy(packed.folder / name, building / name)
            (building / README).write_text(packed.readme, encoding="utf-8")
            if files.tree_digest(building) != commit:
                raise HubError(f"{packed.folder} changed while it was being pushed: push it again when it is finished")
    except OSError:
        # Somebody pushed the same content in this very moment: theirs is as good as ours.
        if not (snapshot.is_dir() and files.tree_digest(snapshot) == commit):
            raise


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
