"""Looking at pages without a browser: whether they are whole, what they load, and what they say."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import httpx2

from moehub.hubserver.application import Application
from moehub.hubserver.settings import ServerSettings
from moehub.hubserver.store.store import Store

ADDRESS = "http://127.0.0.1:8731"
_VOID = frozenset({"meta", "link", "img", "input", "br", "hr", "rect"})
_LOADING = {"link": "href", "img": "src", "script": "src", "form": "action", "iframe": "src", "use": "href"}
_NOT_IN_P = frozenset({"p", "div", "section", "ul", "ol", "dl", "table", "pre", "h1", "h2", "h3", "form", "details"})


@dataclass
class Browser:
    """A browser's requests to a hub in this process; it keeps cookies, and follows no redirects."""

    app: Application
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        return self._send("GET", path, headers)

    def post(self, path: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None) -> httpx2.Response:
        return self._send("POST", path, headers, form)

    def _send(
        self, method: str, path: str, headers: Mapping[str, str] | None, form: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        sent = {"Accept": "text/html", **(headers or {})}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())

        async def exchange() -> httpx2.Response:
            transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx2.AsyncClient(transport=transport) as client:
                return await client.request(method, ADDRESS + path, headers=sent, data=form)

        answer = asyncio.run(exchange())
        for header in answer.headers.get_list("set-cookie"):
            name, _, value = header.partition(";")[0].partition("=")
            self.cookies = {**self.cookies, name: value}
            if "max-age=0" in header.lower():
                del self.cookies[name]
        return answer


def client(store: Store, root: Path, *, open_to_all: bool = False) -> Browser:
    """Somebody's browser at a hub over a store; they are not logged in."""
    return Browser(Application(store, ServerSettings(root, open=open_to_all), lambda _repo, _tree: None))


@dataclass
class Page(HTMLParser):
    """One page, read strictly."""

    source: str
    status: int = 200
    faults: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    links: list[dict[str, str]] = field(default_factory=list)
    """The attributes of every `a`."""
    loads: list[str] = field(default_factory=list)
    """What a browser would load, or send a form to."""
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)
    _ids: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.source)
        self.close()
        self.faults += [f"<{tag}> stays open" for tag in self._open]

    @property
    def text(self) -> str:
        """Everything that is shown, on one line."""
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.faults += [f"<{tag}> has two {name}" for name in given if sum(name == each for each, _ in attrs) > 1]
        self.faults += [f"<{tag}> has {name}" for name in given if name.startswith("on") or name == "style"]
        if tag == "script":
            self.faults.append("there is a script")
        if "p" in self._open and tag in _NOT_IN_P:
            self.faults.append(f"<{tag}> in <p>")
        if tag == "a" and "a" in self._open:
            self.faults.append("a link in a link")
        if (id_ := given.get("id")) is not None:
            self.faults += [f"two elements are {id_!r}"] if id_ in self._ids else []
            self._ids.add(id_)
        if tag == "a":
            self.links.append(given)
        if tag in _LOADING:
            self.loads.append(given.get(_LOADING[tag], ""))
        self.elements.append((tag, given))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        if not self._open or self._open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self._open[-1:]}")
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def addresses(self, beginning: str = "") -> Iterator[str]:
        """Yield the addresses of links, those with this beginning."""
        return (link["href"] for link in self.links if link.get("href", "").startswith(beginning))


def look(browser: Browser, path: str, status: int = 200, **headers: str) -> Page:
    """Return a page, after checking that it is whole and loads nothing from elsewhere."""
    answer = browser.get(path, headers=headers)
    assert answer.status_code == status, (path, answer.status_code)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Page(answer.text, answer.status_code)
    assert page.faults == [], page.faults
    assert [load for load in page.loads if not load.startswith("/") or load.startswith("//")] == []
    return page
