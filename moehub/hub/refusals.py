"""What went wrong between us and a hub server, in sentences for a person."""

import contextlib
import re
from collections.abc import Iterator

from moehub.errors import HubError

TOKEN_VARIABLE = "MOEHUB_TOKEN"  # noqa: S105 (the name of a variable)
_REFUSED_FILE = re.compile(r"LFS batch API returned errors:\n.*?: `?(.*?)`?$", re.MULTILINE)
"""How the client says that the hub does not want a large file, and why."""


@contextlib.contextmanager
def in_sentences(hub: str, repo: str | None = None, revision: str | None = None) -> Iterator[None]:
    """Turn every failure of huggingface_hub into a HubError that names the hub, the repo and the cure.

    Raises:
        HubError: the hub at URL `hub` cannot be reached, refuses, or is no hub.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise HubError(f"HF_HUB_OFFLINE is set, so {hub} is not asked: unset it") from error
    except HfHubHTTPError as error:
        raise HubError(_refusal(error, hub, repo, revision)) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        said = str(error) or type(error).__name__
        raise HubError(f"the hub {hub} cannot be reached ({said}): check the address and your connection") from error
    except OSError as error:
        # The client's own complaints are OSErrors without a number; a full disk has one.
        if error.errno is not None:
            raise
        raise HubError(f"{hub} did not deliver {repo}: {_first_line(error)}") from error
    except RuntimeError as error:
        # An upload that broke off, with the true reason as its cause.
        raise HubError(f"{repo} did not reach {hub} ({_said(error.__cause__ or error)}): push again") from error
    except HFValidationError as error:
        raise HubError(f"{repo!r} is no name that {hub} can know: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if refused := _REFUSED_FILE.search(str(error)):
            raise HubError(f"{hub} refused a file of {repo}: {refused[1]}") from error
        raise HubError(
            f"{hub} answered something that is not the Hugging Face Hub API "
            f"({type(error).__name__}: {_first_line(error)}): check the address"
        ) from error


def _refusal(error: Exception, hub: str, repo: str | None, revision: str | None) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status = error.response.status_code  # type: ignore[attr-defined]
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} on {hub} has no revision {revision or 'main'!r}: expected a branch, a tag or a commit of it"
    if isinstance(error, GatedRepoError):
        return f"{repo} on {hub} is open only to those its owner admits: ask for access at {hub}/{repo}"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"there is no repo {repo} on {hub}, or it is private: check the name with `moehub list`, "
            f"or give a token that may see it ({how_to_log_in(hub)})"
        )
    if status == 401:
        return f"{hub} does not accept our token, or wants one: give a valid one ({how_to_log_in(hub)})"
    if status == 403:
        return f"{hub} does not let this token do that with {repo}: give one with write access ({how_to_log_in(hub)})"
    return f"{hub} refused ({status}): {_said(error)}"


def how_to_log_in(hub: str) -> str:
    """Return the ways of giving us a token for the hub at URL `hub`."""
    from huggingface_hub import constants

    if hub == constants.ENDPOINT.rstrip("/"):
        return f"`hf auth login`, or the variable HF_TOKEN or {TOKEN_VARIABLE}"
    return f"the variable {TOKEN_VARIABLE}"


def _said(error: BaseException) -> str:
    """Return the server's own words where it gave any."""
    return getattr(error, "server_message", None) or _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
