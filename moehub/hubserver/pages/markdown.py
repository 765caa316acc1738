"""A stranger's Markdown as HTML that can do no harm: without HTML of theirs, images, or links that run code."""

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from urllib.parse import quote, urljoin, urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape

from moehub.hub.model_card import FRONT_MATTER

LONGEST = 50_000
"""Characters that are rendered; what is longer can be downloaded."""
_SCHEMES = frozenset({"", "http", "https", "mailto"})
_REL = "nofollow noopener noreferrer"


@lru_cache(maxsize=256)
def render(text: str, folder: str) -> Markup:
    """Return Markdown as HTML, without its front matter; relative links lead below `folder`, which ends in a slash."""
    matter = FRONT_MATTER.match(text)
    tokens = _parser().parse(text[matter.end() :] if matter else text)
    for token in _all(tokens):
        if token.children:
            token.children = _without_links_in_links(token.children)
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 1, 6)}"  # the page itself has the one h1
        elif token.type == "link_open":
            _tame(token, folder)
        elif alignment := token.attrGet("style"):
            # Styles in the page are forbidden; ours has a class for each alignment of a column.
            token.attrs = {"class": str(alignment).removeprefix("text-align:")}
    return Markup(_parser().renderer.render(tokens, _parser().options, {}))  # noqa: S704 (made by us of escaped text)


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    parser.add_render_rule("image", _image)
    return parser


def _image(_renderer: RendererHTML, tokens: Sequence[Token], index: int, *_others: object) -> str:
    """Return the text that stands for an image: loading one would tell others who reads this."""
    text = tokens[index].content or "image"
    return str(Markup('<span class="image">{}</span>').format(escape(text)))


def _without_links_in_links(tokens: Sequence[Token]) -> list[Token]:
    """Return tokens without the links that begin inside another, as an address in angle brackets can."""
    kept, depth = [], 0
    for token in tokens:
        depth -= token.type == "link_close"
        if not token.type.startswith("link_") or depth == 0:
            kept.append(token)
        depth += token.type == "link_open"
    return kept


def _tame(token: Token, folder: str) -> None:
    address = str(token.attrGet("href") or "")
    token.attrs = {"href": _led(address, folder), "rel": _REL}


def _led(address: str, folder: str) -> str:
    try:
        scheme = urlsplit(address).scheme.lower()
    except ValueError:
        return "#"
    if scheme not in _SCHEMES:
        return "#"
    if scheme or address.startswith(("/", "#", "?")):
        return address
    return urljoin(folder, quote(address, safe="/#%?=&+,;:@()!*'~"))


def _all(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _all(token.children or ())
