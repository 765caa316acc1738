"""What the hub answers when it does not do what it was asked for."""

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


_REPO = "RepoNotFound"
