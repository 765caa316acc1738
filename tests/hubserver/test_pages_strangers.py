"""What strangers write into names, cards and commits is shown, and does nothing."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moehub.hub.measured import MEASURED_FILE
from moehub.hubserver.pages import markdown
from moehub.hubserver.store import trees
from moehub.hubserver.store.history import Change
from moehub.hubserver.store.store import Store, open_store
from moehub.hubserver.visitor import EVERYBODY
from tests.hubserver import showcase
from tests.hubserver.looking import Page, client, look
from tests.hubserver.pushes import push, repo_of, upload

ATTACKS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)' x='",
    "</title></textarea></style><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% for x in y %}",
    "<!--",
    "&lt;script&gt;&#60;script>",
    "javascript:alert(1)",
    "\u202egnp.exe",
    "<a href='https://evil.example'>free</a>",
    "x" * 5000,
]


def front(**values: Any) -> str:
    return f"---\n{json.dumps(values)}\n---\n"


@pytest.mark.parametrize("attack", ATTACKS)
def test_text_in_a_card_stays_text(tmp_path: Path, attack: str) -> None:
    """In domain, licence, base, tags and README of an expert nothing becomes an element, on any page."""
    store = open_store(tmp_path / "hub", create=True)
    summary = {
        "name": attack,
        "domain": attack,
        "license": attack,
        "base": {"reference": attack, "digest": attack, "tokenizer": attack},
    }
    readme = front(base_model=attack, license=attack, tags=[attack, f"domain:{attack}"], moehub=summary) + attack
    push(store, "acme/bad", {"expert.json": json.dumps({"name": attack}).encode(), "README.md": readme.encode()})
    browser = client(store, tmp_path)
    for path in ("/", "/acme", "/acme/bad", "/acme/bad/tree/main", "/acme/bad/blob/main/README.md"):
        page = look(browser, path)
        assert [given for tag, given in page.elements if tag in ("img", "svg", "iframe")][1:] == []
        assert len(page.source) < 60_000
    assert attack[:30] in look(browser, "/").text


@pytest.mark.parametrize("attack", ATTACKS)
def test_text_in_a_commit_stays_text(tmp_path: Path, attack: str) -> None:
    """Title, message and author of a commit, and a search for it, are shown as they are."""
    store = open_store(tmp_path / "hub", create=True)
    repo = repo_of(store, "acme/bad")
    change = Change({"file": upload(store, repo, "file", attack.encode())})
    oid = store.history.commit(repo, "main", change, title=attack, message=attack, author=attack)
    browser = client(store, tmp_path)
    for path in ("/acme/bad", "/acme/bad/commits/main", f"/acme/bad/commit/{oid}", "/acme/bad/blob/main/file"):
        look(browser, path)
    assert attack[:100] in look(browser, f"/acme/bad/commit/{oid}").text
    from urllib.parse import quote

    page = look(browser, f"/?search={quote(attack)}&base={quote(attack)}")
    assert [given["value"] for tag, given in page.elements if given.get("name") == "search"] == [attack[:200]]


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if "x" * 50 not in attack])
def test_text_in_a_moe_stays_text(tmp_path: Path, attack: str) -> None:
    """Names and settings in a MoE's configuration and lock do nothing on its page, or on its experts'."""
    store = open_store(tmp_path / "hub", create=True)
    expert = showcase.expert_files(showcase.card_of("law"))
    push(store, "acme/law", expert)
    files = showcase.moe_files({"law": expert}, {"law": "acme/law"})
    config = json.loads(files["config.json"])
    config["router"] = {attack: attack, "method": attack}
    config["base"] = {"reference": attack, "revision": attack, attack: attack}
    config["experts"][0] |= {"domain": attack, "license": attack}
    lock = json.loads(files["merge.lock"])
    lock["experts"][0] |= {"source": attack, "commit": attack}
    lock["null"] = {"source": attack, "sha256": attack}
    files |= {"config.json": json.dumps(config).encode(), "merge.lock": json.dumps(lock).encode()}
    push(store, "acme/moe", files)
    browser = client(store, tmp_path)
    assert attack[:40] in look(browser, "/acme/moe").text
    look(browser, "/?kind=moe")
    assert "acme/moe" in look(browser, "/acme/law").text


def test_commands_to_copy_hold_nothing_that_a_shell_obeys(tmp_path: Path) -> None:
    """A base that is no org/name is not put into a command."""
    store = open_store(tmp_path / "hub", create=True)
    push(store, "acme/bad", {"expert.json": b"{}", "README.md": front(base_model="a/b; rm -rf ~").encode()})
    text = look(client(store, tmp_path), "/acme/bad").text
    assert "moehub merge --base BASE \\" in text
    assert "--base a/b" not in text


@pytest.mark.parametrize("name", ["config.json", "merge.lock", MEASURED_FILE, "expert.json", "README.md"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"7",
        b"null",
        b"{",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"experts": 7, "texts": [], "base": [], "router": "x", "null": true}',
        b'{"experts": [{"name": "law", "domain": {}}, {"name": 7}, null, {"name": "../../x"}]}',
        b'{"experts": [{"name": "law"}], "router": {"a": 1e999, "b": NaN, "c": ' + b"9" * 400 + b"}}",
        b'{"texts": {"law": {"loss": ' + b"9" * 400 + b', "tokens": 1, "routing": {}}}}',
        b"---\nmoehub: {metrics: {base_loss: "
        + b"9" * 400
        + b", expert_loss: nan, tokens: "
        + b"9" * 400
        + b"}}\n---\n",
        b'{"name": "\\ud800", "experts": [{"name": "\\ud800"}]}',
    ],
)
def test_files_that_are_not_what_they_seem_break_no_page(tmp_path: Path, name: str, content: bytes) -> None:
    """Whatever a MoE's or an expert's files hold, its page, the lists, and those of what it holds are there."""
    store = open_store(tmp_path / "hub", create=True)
    expert = showcase.expert_files(showcase.card_of("law"))
    push(store, "acme/law", expert)
    texts = {"law": showcase.texts_of("law")["law"]}
    files = showcase.moe_files({"law": expert}, {"law": "acme/law"}, texts)
    push(
        store,
        "acme/moe",
        {**files, "experts/law/expert.json": content} if name == "expert.json" else {**files, name: content},
    )
    push(store, "acme/expert", {**expert, name: content})
    browser = client(store, tmp_path)
    for path in ("/", "/?kind=moe", "/acme", "/acme/law", "/acme/moe", "/acme/expert"):
        look(browser, path)


def test_a_card_of_numbers_beyond_counting_breaks_no_page(store: Store, tmp_path: Path) -> None:
    """A hub without a gate may hold a card that fits its format and no float."""
    card = json.loads(showcase.expert_files(showcase.card_of("law"))["expert.json"])
    huge = 10**400
    for changes in ({"alpha": huge}, {"rank": huge, "version": huge}, {"metrics": {**card["metrics"], "tokens": huge}}):
        files = {"expert.json": json.dumps({**card, **changes}).encode()}
        push(store, "acme/huge", files)
        page = look(client(store, tmp_path), "/acme/huge")
        assert max(map(len, page.text.split())) < 80


@pytest.mark.parametrize("losses", [(float("nan"), 1.0), (1e308, 1e-308), (0.0, 0.0), (-1.0, 2.0), (1.0, float("inf"))])
def test_losses_that_say_nothing_are_not_shown(tmp_path: Path, losses: tuple[float, float]) -> None:
    """NaN, infinite, zero and negative losses give no gain, and no figure longer than a column."""
    store = open_store(tmp_path / "hub", create=True)
    metrics = {"base_loss": losses[0], "expert_loss": losses[1], "tokens": 10**30}
    summary = {
        "name": "law",
        "domain": "law",
        "license": "mit",
        "base": {"reference": "a/b", "digest": "d", "tokenizer": "t"},
        "metrics": {key: str(value) if isinstance(value, float) else value for key, value in metrics.items()},
    }
    push(store, "acme/law", {"expert.json": b"{}", "README.md": front(moehub=summary).encode()})
    for path in ("/", "/acme/law"):
        text = look(client(store, tmp_path), path).text
        assert "nan" not in text.lower().split()
        assert "inf" not in text.lower().split()
        assert "%" not in text.replace("100.0 %", "")
        assert max(map(len, text.split())) < 60


MARKDOWN = [
    ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"),
    ("![x](https://evil.example/pixel.png)", '<p><span class="image">x</span></p>'),
    ("[![x](https://evil.example/p.png)](https://evil.example)", 'rel="nofollow noopener noreferrer"'),
    ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"),
    ("[x](JaVaScRiPt&#58;alert(1))", "[x]("),
    ("[x](data:text/html;base64,PHNjcmlwdD4=)", "<p>[x]("),
    ("[x](ftp://evil.example)", 'href="#"'),
    ("<https://example.org>", 'href="https://example.org" rel="nofollow noopener noreferrer"'),
    ("[x](docs/more.md)", 'href="/a/b/blob/c0/docs/more.md"'),
    ("[x](../up.md)", 'href="/a/b/blob/up.md"'),
    ("[x](//evil.example)", 'href="//evil.example" rel="nofollow noopener noreferrer"'),
    ("[<https://example.org>\\[x](ftp://evil.example)", "<a "),
    ("# big", "<h2>big</h2>"),
    ("|a|\n|-:|\n|1|", '<th class="right">a</th>'),
    ("---\nsecret: front matter\n---\nbody", "<p>body</p>"),
    ('```"><b>\ncode\n```', "<pre><code"),
]


@pytest.mark.parametrize(("text", "expected"), MARKDOWN)
def test_markdown_becomes_harmless_html(text: str, expected: str) -> None:
    """No HTML of theirs, no image, no link that runs code, and every link says that we vouch for nothing."""
    html = str(markdown.render(text, "/a/b/blob/c0/"))
    assert expected in html
    assert Page(html).faults == []


def harmless(html: str) -> None:
    page = Page(html)
    assert page.faults == []
    assert page.loads == []
    assert {tag for tag, _ in page.elements} <= {
        *("p", "h2", "h3", "h4", "h5", "h6", "a", "em", "strong", "s", "code", "pre", "span", "br", "hr", "blockquote"),
        *("ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td"),
    }
    for link in page.links:
        assert link["rel"] == "nofollow noopener noreferrer"
        assert not link["href"].lower().startswith(("javascript", "data", "vbscript", "file"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.sampled_from([*ATTACKS[:-1], *(text for text, _ in MARKDOWN), *"[]()<>!`*_~|#&;:\n\t\\\"' a"]), max_size=40
    )
)
def test_no_markdown_becomes_anything_else(pieces: list[str]) -> None:
    """Whatever is put together, only plain elements come out, and links to plain addresses."""
    harmless(str(markdown.render("".join(pieces), "/a/b/blob/c0/")))


@pytest.mark.parametrize(
    "piece",
    ["[", "![", "`a", "*a_", "> ", "- ", "<", "[a](", "|a", "\\", "&#", "~~a", "[a]: b\n", "a\n\n", "*", "``` \n"],
)
def test_no_markdown_takes_long(piece: str) -> None:
    """A README of the greatest length that is rendered keeps a page waiting for a few seconds at most."""
    text = (piece * markdown.LONGEST)[: markdown.LONGEST]
    began = time.process_time()
    markdown.render(text, "/a/b/blob/c0/")
    assert time.process_time() - began < 4


def test_a_long_readme_is_offered_and_not_rendered(store: Store, tmp_path: Path) -> None:
    """Beyond the greatest length the page leads to the file."""
    push(store, "acme/long", {"README.md": b"a" * (markdown.LONGEST + 1)})
    page = look(client(store, tmp_path), "/acme/long")
    assert "too long to be shown here" in page.text
    assert len(page.source) < 20_000


def test_file_names_lead_to_their_files(store: Store, tmp_path: Path) -> None:
    """Names with spaces, percent signs, hashes and accents are links that work."""
    names = ["a b.txt", "100%25.txt", "no#1.txt", "größe/ß & co;.txt", "a'b.txt", "+x=y,z.txt"]
    push(store, "acme/names", {name: name.encode() for name in names})
    browser = client(store, tmp_path)
    root = look(browser, "/acme/names/tree/main")
    (folder,) = root.addresses("/acme/names/tree/main/")
    links = [*root.addresses("/acme/names/resolve/"), *look(browser, folder).addresses("/acme/names/resolve/")]
    assert sorted(browser.get(link).text for link in links) == sorted(names)


def test_a_hub_of_many_files_stays_a_page(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders and commits of thousands of files are cut off, and say so."""
    monkeypatch.setattr(trees, "check_path", _believed)
    repo = repo_of(store, "acme/many")
    entry = upload(store, repo, "x", b"x")
    change = Change({f"f{number:05}": entry for number in range(3000)})
    oid = store.history.commit(repo, "main", change, title="many", author="ada")
    browser = client(store, tmp_path)
    for path, shown, sentence in (
        ("/acme/many/tree/main", 2000, "And 1,000 more."),
        (f"/acme/many/commit/{oid}", 1000, "And 2,000 more."),
        ("/acme/many", 12, "All 3,000 files"),
    ):
        page = look(browser, path)
        assert sentence in page.text
        assert len(list(page.addresses("/acme/many/blob/"))) == shown


_believed: Callable[..., str] = lambda path, **_: path  # noqa: E731 (a stand-in)


def test_search_words_have_no_meaning_of_their_own(store: Store, tmp_path: Path) -> None:
    """Quotes, wildcards and SQL are words like any other."""
    push(store, "acme/law", {"README.md": b"hello"})
    browser = client(store, tmp_path)
    for words in ("%25", "_", "'%20or%201=1%20--", '"', "*", "%00"):
        assert "Nothing here fits" in look(browser, f"/?search={words}").text
    assert EVERYBODY.may_see(store.repos.get("acme/law", EVERYBODY))
