"""What a person sees in a browser: pages made on the server, that need no JavaScript.

address                                 module
/, /NAMESPACE                           lists
/NAMESPACE/NAME                         repo
…/tree/REVISION/PATH, …/blob/…          folders
…/commits/REVISION, …/commit/REVISION   commits
/login, /logout                         session
/-/FILE                                 page: the style and the icon

`respond` finds the page, `page` fills its template in, and the text of strangers is escaped there or made harmless in
`markdown`. A page shows visitors what they may read, and nothing else: each begins at `Repos.get` or `Heads.find`.
"""

from starlette.requests import Request
from starlette.responses import Response

from moehub.hubserver.pages import commits, folders, lists, repo, session
from moehub.hubserver.pages.ask import Ask
from moehub.hubserver.pages.page import STATIC, page, static
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.store import Store
from moehub.hubserver.visitor import Visitor

_TITLES = {403: "Not for everybody", 404: "Not here", 500: "Something broke", 503: "Busy", 507: "Full"}


def respond(
    request: Request, segments: list[str], visitor: Visitor, store: Store, address: str, *, body: bytes = b""
) -> Response:
    """Return a page.

    Args:
        request: what was asked.
        segments: the parts of its path, decoded after they were split.
        visitor: who asks.
        store: the hub's.
        address: the hub's address as they know it.
        body: the form that was sent.

    Raises:
        RefusedError: there is no such page, or the visitor may not see it.
    """
    ask = Ask(request, visitor, store, address, body)
    if request.method == "POST":
        return _changed(ask, segments)
    match [segment for number, segment in enumerate(segments) if segment or number < len(segments) - 1]:
        case []:
            return lists.home(ask)
        case [folder, name] if folder == STATIC:
            return static(name)
        case ["login"]:
            return session.show(ask)
        case [namespace]:
            return lists.author(ask, namespace)
        case [namespace, name, *rest]:
            return _of_repo(ask, namespace, name, rest)
    raise _no_page()


def refusal(
    error: RefusedError, request: Request, visitor: Visitor, store: Store, address: str, *, title: str | None = None
) -> Response:
    """Return the page that says why there is no other."""
    ask = Ask(request, visitor, store, address)
    title = title or _TITLES.get(error.status, "Refused")
    return page(ask, "refusal.j2", status=error.status, title=title, sentence=_as_sentence(str(error)))


def _as_sentence(text: str) -> str:
    """Return a refusal as it stands on a page: errors begin small and end without a full stop."""
    first = text.partition(" ")[0]
    begun = text[:1].upper() + text[1:] if first.isalpha() else text
    return begun if begun.endswith((".", "\n")) else f"{begun}."


def _changed(ask: Ask, segments: list[str]) -> Response:
    match segments:
        case ["login"]:
            return session.log_in(ask)
        case ["logout"]:
            return session.log_out(ask)
    raise RefusedError(405, "this address takes no form, expected GET")


def _of_repo(ask: Ask, namespace: str, name: str, rest: list[str]) -> Response:
    found = ask.repo(namespace, name)
    match rest:
        case []:
            return repo.show(ask, found)
        case ["tree", revision, *inside]:
            return folders.tree(ask, found, revision, "/".join(inside))
        case ["blob", revision, *inside]:
            return folders.blob(ask, found, revision, "/".join(inside))
        case ["commits", revision]:
            return commits.commits(ask, found, revision)
        case ["commit", revision]:
            return commits.commit(ask, found, revision)
    raise _no_page()


def _no_page() -> RefusedError:
    return RefusedError(404, "there is no page at this address: check it, or begin at the first page")
