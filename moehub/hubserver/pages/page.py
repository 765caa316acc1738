"""One page: a template, filled in, under headers that let it load nothing but the hub's own style and icon."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse, Response

from moehub import palette
from moehub.hubserver.pages import figures
from moehub.hubserver.pages.ask import Ask
from moehub.hubserver.refusals import RefusedError

_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "Authorization, Cookie",
}
STATIC = "-"
"""The folder of style and icon: no namespace may be called so."""


def page(ask: Ask, template: str, *, status: int = 200, **values: Any) -> Response:
    """Return a page made of a template; what strangers wrote is escaped in it."""
    text = _templates().get_template(template).render(ask=ask, static=_names(), **values)
    # What somebody saw who was logged in is not kept for whoever uses the browser next.
    cache_control = "no-store" if ask.visitor.known else "no-cache"
    return HTMLResponse(text, status, {**HEADERS, "Cache-Control": cache_control})


def static(name: str) -> Response:
    """Return the style or the icon under the name that pages give it.

    Raises:
        RefusedError: there is nothing of that name.
    """
    for content, media_type, known in _statics().values():
        if name == known:
            headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
            return Response(content, media_type=media_type, headers=headers)
    raise RefusedError(404, f"there is no file {name!r:.80} here: load the page again")


def path(*parts: str) -> str:
    """Return an address below the hub's of parts that are encoded one by one."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def below(folder: str, inside: str) -> str:
    """Return the address of a file or folder whose slashes are part of the address."""
    return f"{folder}/{quote(inside)}" if inside else folder


def with_query(address: str, **query: str | None) -> str:
    """Return an address with those parts of a query that have a value."""
    encoded = urlencode({name: value for name, value in query.items() if value})
    return f"{address}?{encoded}" if encoded else address


@cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("moehub.hubserver.pages"),
        autoescape=select_autoescape(enabled_extensions=("j2",), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for each in (
        figures.number,
        figures.size,
        figures.loss,
        figures.percent,
        figures.day,
        figures.minute,
        figures.short,
        figures.clip,
    ):
        found.filters[each.__name__] = each
    found.globals |= {"path": path, "below": below, "with_query": with_query, "gain_of": figures.gain_of}
    return found


@cache
def _statics() -> dict[str, tuple[str, str, str]]:
    """Return content, type and name of each file that pages load; the name changes with the content."""
    folder = files("moehub.hubserver.pages")
    colours = "".join(f".c{number} {{ --c: {colour}; }}\n" for number, colour in enumerate(palette.COLOURS))
    found = {}
    for name, media_type, more in (("style.css", "text/css", colours), ("icon.svg", "image/svg+xml", "")):
        content = folder.joinpath(name).read_text(encoding="utf-8") + more
        stem, _, ending = name.partition(".")
        digest = hashlib.sha256(content.encode()).hexdigest()[:12]
        found[stem] = content, media_type, f"{stem}-{digest}.{ending}"
    return found


def _names() -> dict[str, str]:
    return {stem: f"/{STATIC}/{name}" for stem, (_, _, name) in _statics().items()}
