"""Who is logged in: a cookie that names a token by its id, signed by the hub; a revoked token ends it.

The cookie lets its browser read what the token may read, and nothing else: whatever changes something takes the token.
"""

import hashlib
import hmac
import time
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from moehub.hubserver.pages.ask import Ask
from moehub.hubserver.pages.page import page
from moehub.hubserver.store.store import Store
from moehub.hubserver.visitor import Visitor

_LIFETIME = 30 * 24 * 3600
"""Seconds after which somebody has to log in again."""


def visitor(request: Request, store: Store) -> Visitor | None:
    """Return who is logged in with the browser that sent a request, as somebody who may only read; None: nobody."""
    id_, _, rest = request.cookies.get(_name(store), "").partition(".")
    ends, _, signature = rest.partition(".")
    if not hmac.compare_digest(_signature(store, id_, ends).encode(), signature.encode()) or int(ends) < time.time():
        return None
    found = store.tokens.visitor_of(id_)
    return replace(found, writes=False) if found else None


def show(ask: Ask) -> Response:
    """Return the form that takes a token."""
    return page(ask, "login.j2", next=_inside(ask.first("next")), fault=None)


def log_in(ask: Ask) -> Response:
    """Return the answer to a token in a form: where the visitor wanted to go, with a cookie; else the form again."""
    secret, following = ask.form.get("token", [""])[0].strip(), _inside(ask.form.get("next", [""])[0])
    id_ = ask.store.tokens.id_of(secret)
    if id_ is None:
        fault = "This hub does not know that token, or its time is over."
        return page(ask, "login.j2", status=422, next=following, fault=fault)
    ends = str(int(time.time()) + _LIFETIME)
    answer = RedirectResponse(following, 303)
    value = f"{id_}.{ends}.{_signature(ask.store, id_, ends)}"
    _set(ask, answer, value, _LIFETIME)
    return answer


def log_out(ask: Ask) -> Response:
    """Return to the first page as a stranger."""
    answer = RedirectResponse("/", 303)
    _set(ask, answer, "", 0)
    return answer


def _set(ask: Ask, answer: Response, value: str, lifetime: int) -> None:
    secure = ask.address.startswith("https:")
    answer.set_cookie(_name(ask.store), value, max_age=lifetime, httponly=True, samesite="strict", secure=secure)
    answer.headers["Cache-Control"] = "no-store"


def _name(store: Store) -> str:
    """Return the cookie's name: browsers send the cookies of all ports of a machine to each."""
    return f"moehub_{_hmac(store, 'cookie')[:12]}"


def _signature(store: Store, id_: str, ends: str) -> str:
    return _hmac(store, f"session\0{id_}\0{ends}")


def _hmac(store: Store, text: str) -> str:
    return hmac.new(store.secret, text.encode(errors="replace"), hashlib.sha256).hexdigest()


def _inside(path: str) -> str:
    """Return a path of this hub, whatever was asked for: `//elsewhere` and the like would lead to other sites."""
    plain = path.isascii() and path.isprintable() and not set(path) & set("\\ ")
    return path if plain and path.startswith("/") and not path.startswith("//") else "/"
