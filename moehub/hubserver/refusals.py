"""What the hub answers when it does not do what it was asked for."""

import contextlib
import errno
import sqlite3
from collections.abc import Iterator

from moehub.errors import HubError


class RefusedError(HubError):
    """A request that the hub refuses; its text is a sentence for whoever sent it."""

    def __init__(self, status: int, sentence: str, code: str | None = None, *, commit: str | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        """The HTTP status."""
        self.code = code
        """What `X-Error-Code` says, for the client to make its own exception of; None: nothing."""
        self.commit = commit
        """The commit that lacks the entry that was asked for, if that is what is wrong."""


def no_repo(repo: str) -> RefusedError:
    """Return the answer about a repo that is not there, or that the visitor may not know of."""
    return RefusedError(404, f"there is no repo {repo} here, or it is private: check the name and the token", _REPO)


def no_revision(repo: str, revision: str) -> RefusedError:
    """Return the answer about a revision that a repo does not have."""
    sentence = f"{repo} has no revision {revision!r}: expected a branch, a tag or a commit of it"
    return RefusedError(404, sentence, "RevisionNotFound")


def no_entry(repo: str, path: str, commit: str | None = None) -> RefusedError:
    """Return the answer about a file that a commit does not have."""
    return RefusedError(404, f"{repo} has no file {path!r} at this revision", "EntryNotFound", commit=commit)


def gated(repo: str) -> RefusedError:
    """Return the answer to somebody who was not admitted to a gated repo."""
    return RefusedError(403, f"access to {repo} is restricted: ask its owner for a token that is admitted", "GatedRepo")


@contextlib.contextmanager
def disk_in_sentences() -> Iterator[None]:
    """Turn what the disk or the database refuses into an answer; other errors pass through.

    Raises:
        RefusedError: 507 where the disk is full; 503 where it cannot be written to, or other writers take too long.
    """
    try:
        yield
    except (OSError, sqlite3.DatabaseError) as error:
        status, sentence = _trouble(error)
        if not status:
            raise
        raise RefusedError(status, f"{sentence} ({error})") from error


def _trouble(error: OSError | sqlite3.DatabaseError) -> tuple[int, str]:
    if isinstance(error, OSError):
        return _OF_FILES.get(error.errno or 0, (0, ""))
    # The lower byte is the kind; what is above it says more about it.
    return _OF_SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, (0, ""))


_FULL = 507, "the hub's disk is full: free space on it, and send this again"
_FIXED = 503, "the hub cannot write to its disk: whoever runs it has to make it writable; reading goes on"
_BUSY = 503, "the hub is busy with other writers: send this again in a minute"
_BROKEN = 503, "the hub's database is damaged: whoever runs it has to restore it from a backup"
_OF_FILES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _FULL),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO), _FIXED),
}
_OF_SQLITE = {
    sqlite3.SQLITE_FULL: _FULL,
    **dict.fromkeys((sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR), _FIXED),
    **dict.fromkeys((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED), _BUSY),
    **dict.fromkeys((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB), _BROKEN),
}
_REPO = "RepoNotFound"
