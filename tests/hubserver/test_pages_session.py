"""Who sees what: private and gated repos, logging in with a token, and logging out."""

import datetime as dt
import time
from pathlib import Path

import pytest
from starlette.requests import Request

from moehub.hubserver.pages import session
from moehub.hubserver.store.store import Store, open_store
from moehub.hubserver.visitor import EVERYBODY
from tests.hubserver import showcase
from tests.hubserver.looking import ADDRESS, Browser, client, look
from tests.hubserver.pushes import push
from tests.hubserver.test_pages import PAGES


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A hub with private and gated repos, and a private MoE that holds a public expert."""
    store = open_store(tmp_path_factory.mktemp("shown") / "hub", create=True)
    showcase.fill(store)
    experts = {"math": showcase._pushed(store, "acme/math")}
    for name, setting in (("hidden-moe", {"private": True}), ("gated-moe", {"gated": "auto"})):
        files = showcase.moe_files(experts, {"math": "acme/math"}, showcase.texts_of("math"))
        push(store, f"acme/{name}", {**files, "README.md": name.encode()})
        store.repos.set(store.repos.get(f"acme/{name}", EVERYBODY), **setting)
    push(store, "lab/alone", {"README.md": b"nobody knows"})
    store.repos.set(store.repos.get("lab/alone", EVERYBODY), private=True)
    return store


@pytest.fixture
def browser(shown: Store) -> Browser:
    """Somebody who is not logged in."""
    return client(shown, shown.root)


def token(store: Store, *namespaces: str, name: str = "ada", **more: object) -> str:
    return store.tokens.create(name, namespaces, **more)[1]  # type: ignore[arg-type]


def log_in(browser: Browser, secret: str, following: str = "/") -> None:
    answer = browser.post("/login", {"token": secret, "next": following})
    assert (answer.status_code, answer.headers["location"]) == (303, following)


@pytest.mark.parametrize("path", [*PAGES, "/?search=secret", "/?search=secret-domain&kind=expert", "/lab"])
def test_strangers_learn_nothing_of_private_repos(browser: Browser, path: str) -> None:
    """No page, count or list of bases says that there is one."""
    source = browser.get(path).text
    for word in ("acme/secret", "hidden-moe", "lab/alone"):
        assert word not in source.replace("search=secret", "")


@pytest.mark.parametrize(
    "path",
    [
        *("", "/tree/main", "/tree/main/x", "/blob/main/expert.json", "/commits/main", "/commit/main"),
        *("/tree/nothing", "/resolve/main/expert.json", "/what"),
    ],
)
def test_a_private_repo_is_not_there_for_strangers(browser: Browser, path: str) -> None:
    """Every page of it answers the same as one of a repo that never was."""
    answer, never = browser.get(f"/acme/secret{path}"), browser.get(f"/acme/never{path}")
    assert (answer.status_code, answer.text.replace("secret", "never")) == (404, never.text)


def test_a_private_authors_page_is_that_of_nobody(browser: Browser) -> None:
    """Who only has private repos is not known to strangers."""
    assert look(browser, "/lab", 404).text.replace("lab", "xyz") == look(browser, "/xyz", 404).text


def test_a_gated_repo_is_listed_and_not_opened(browser: Browser) -> None:
    """Strangers see that it is there, and a sentence instead of its page."""
    assert "acme/ asked-for gated" in look(browser, "/").text
    for path in ("", "/tree/main", "/blob/main/expert.json", "/commits/main"):
        assert "Access to acme/asked-for is restricted" in look(browser, f"/acme/asked-for{path}", 403).text


def test_an_expert_shows_the_moes_that_one_may_read(browser: Browser, shown: Store) -> None:
    """What private and gated MoEs were measured on is shown to those alone who may read them."""
    assert "No MoE on this hub that you may read holds it" in look(browser, "/acme/math").text
    log_in(browser, token(shown, "acme"))
    text = look(browser, "/acme/math").text
    assert {"acme/hidden-moe", "acme/gated-moe"} <= set(text.split())


def test_a_token_opens_what_it_may_read(browser: Browser, shown: Store) -> None:
    """Logged in, private repos are in lists and have pages and downloads; the page names who that is."""
    log_in(browser, token(shown, "acme"), "/acme/secret")
    page = look(browser, "/acme/secret")
    assert {"private", "ada"} <= set(page.text.split())
    assert "secret-domain" in look(browser, "/").text
    (download,) = (path for path in page.addresses("/acme/secret/resolve/") if path.endswith("expert.json"))
    assert browser.get(download).status_code == 200
    assert look(browser, "/acme/asked-for").status == 200
    assert look(browser, "/lab/alone", 404).status == 404
    assert browser.get("/acme/secret").headers["cache-control"] == "no-store"


def test_the_cookie_is_kept_from_scripts_and_other_sites(browser: Browser, shown: Store) -> None:
    """It is HttpOnly, SameSite=Strict, and Secure where the hub is reached through TLS."""
    header = browser.post("/login", {"token": token(shown, "acme"), "next": "/"}).headers["set-cookie"]
    parts = {part.strip().lower() for part in header.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= parts
    assert "secure" not in parts
    browser.app.settings.__dict__["url"] = "https://hub.example.org"
    headers = {"Host": "hub.example.org"}
    header = browser.post("/login", {"token": token(shown, "acme"), "next": "/"}, headers).headers["set-cookie"]
    assert "secure" in {part.strip().lower() for part in header.split(";")[1:]}


def test_the_cookie_holds_no_token(browser: Browser, shown: Store) -> None:
    """Whoever reads it has no token, and neither has the log of an address."""
    secret = token(shown, "acme")
    log_in(browser, secret)
    (value,) = browser.cookies.values()
    assert secret not in value
    assert secret.removeprefix("moehub_") not in value


def test_a_wrong_token_gets_the_form_again(browser: Browser) -> None:
    """With a sentence, without a cookie, and without what was typed."""
    answer = browser.post("/login", {"token": "moehub_wrong", "next": "/acme"})
    assert answer.status_code == 422
    assert "does not know that token" in answer.text
    assert "moehub_wrong" not in answer.text
    assert 'value="/acme"' in answer.text
    assert browser.cookies == {}


def test_a_revoked_token_ends_the_session(browser: Browser, shown: Store) -> None:
    """From the next page on they are a stranger."""
    made, secret = shown.tokens.create("ada", ["acme"])
    log_in(browser, secret)
    assert look(browser, "/acme/secret").status == 200
    shown.tokens.revoke(made.id)
    assert look(browser, "/acme/secret", 404).status == 404


def test_an_expired_token_ends_the_session(browser: Browser, shown: Store) -> None:
    """A session lives no longer than its token."""
    secret = token(shown, "acme", lifetime=dt.timedelta(hours=1))
    log_in(browser, secret)
    assert look(browser, "/acme/secret").status == 200
    with shown.database.writing() as connection:
        connection.execute("update token set expires = '2020-01-01T00:00:00.000Z' where expires is not null")
    assert look(browser, "/acme/secret", 404).status == 404
    assert browser.post("/login", {"token": secret, "next": "/"}).status_code == 422


def test_a_session_ends_after_a_month(browser: Browser, shown: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub itself looks at the time that is signed into the cookie."""
    log_in(browser, token(shown, "acme"))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 29 * 24 * 3600)
    assert look(browser, "/acme/secret").status == 200
    monkeypatch.setattr(time, "time", lambda: now + 31 * 24 * 3600)
    assert look(browser, "/acme/secret", 404).status == 404


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_forged_cookie_is_nobodys(browser: Browser, shown: Store, part: int) -> None:
    """Another token's id, a later end, or another signature do not hold."""
    log_in(browser, token(shown, "lab", name="eve"))
    other = shown.tokens.create("ada", ["acme"])[0].id
    ((name, value),) = browser.cookies.items()
    parts = value.split(".")
    parts[part] = [other, str(int(parts[1]) + 1), "0" * 64][part]
    browser.cookies[name] = ".".join(parts)
    assert look(browser, "/acme/secret", 404).status == 404
    assert look(browser, "/lab/alone", 404).status == 404


@pytest.mark.parametrize("value", ["", ".", "..", "a.b.c", "%C3.%A9.x", "." * 5000, "a.99999999999999999999.b"])
def test_a_cookie_that_is_none_is_nobodys(browser: Browser, shown: Store, value: str) -> None:
    """Whatever stands in it, there is a page."""
    log_in(browser, token(shown, "acme"))
    (name,) = browser.cookies
    browser.cookies = {}
    answer = browser.get("/", {"Cookie": f"{name}={value}"})
    assert answer.status_code == 200
    assert "acme/secret" not in answer.text


def test_another_hubs_cookie_is_not_ours(browser: Browser, shown: Store, tmp_path: Path) -> None:
    """Hubs on one machine have cookies of other names, so that one does not end the other's session."""
    other = client(open_store(tmp_path / "other", create=True), tmp_path)
    log_in(browser, token(shown, "acme"))
    log_in(other, token(other.app.store, "acme"))
    assert set(browser.cookies) & set(other.cookies) == set()


def test_logging_out_ends_it_in_this_browser(browser: Browser, shown: Store) -> None:
    """The cookie is taken away; a link alone logs nobody out."""
    log_in(browser, token(shown, "acme"))
    assert browser.get("/logout").status_code == 404
    assert look(browser, "/acme/secret").status == 200
    answer = browser.post("/logout", {})
    assert (answer.status_code, answer.headers["location"], browser.cookies) == (303, "/", {})
    assert look(browser, "/acme/secret", 404).status == 404


def test_a_session_can_only_read(browser: Browser, shown: Store) -> None:
    """The API takes no cookie, neither for changes nor for reading."""
    log_in(browser, token(shown, "acme", writes=True))
    assert browser.get("/api/models/acme/secret").status_code == 404
    assert browser.post("/api/repos/create", {}).status_code in (400, 401)
    answer = browser.get("/api/models/acme/law/settings")
    assert answer.status_code in (401, 404, 405)
    found = session.visitor(_request(browser), shown)
    assert found is not None
    assert not found.writes


def _request(browser: Browser) -> Request:
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    return Request({"type": "http", "headers": [(b"cookie", cookie.encode())]})


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:9999"])
@pytest.mark.parametrize("path", ["/login", "/logout"])
def test_other_sites_cannot_log_anybody_in_or_out(browser: Browser, shown: Store, path: str, origin: str) -> None:
    """A form on another page is refused, with a good token too."""
    form = {"token": token(shown, "lab", name="eve"), "next": "/"}
    answer = browser.post(path, form, {"Origin": origin})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert browser.post("/login", form, {"Origin": ADDRESS}).status_code == 303


@pytest.mark.parametrize(
    "following",
    ["https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil", "javascript:x", "", "/a\r\nb: c"],
)
def test_logging_in_leads_to_no_other_site(browser: Browser, shown: Store, following: str) -> None:
    """Wherever a link wanted to lead afterwards, it is a page of this hub."""
    answer = browser.post("/login", {"token": token(shown, "acme"), "next": following})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    from urllib.parse import quote

    page = look(browser, f"/login?next={quote(following)}")
    assert [given["value"] for tag, given in page.elements if given.get("name") == "next"] == ["/"]


def test_the_way_to_the_form_leads_back(browser: Browser) -> None:
    """Logging in from a page ends at that page, its query included."""
    (link,) = look(browser, "/?search=law&base=acme%2Fbase").addresses("/login")
    page = look(browser, link)
    (value,) = (given["value"] for tag, given in page.elements if given.get("name") == "next")
    assert value == "/?search=law&base=acme%2Fbase"


def test_a_form_that_is_too_long_is_refused(browser: Browser) -> None:
    """Nobody fills the hub's memory with a token."""
    assert browser.post("/login", {"token": "x" * 100_000, "next": "/"}).status_code == 413
    assert browser.post("/login", {}).status_code == 422


@pytest.mark.parametrize("path", ["/", "/acme", "/acme/law"])
def test_pages_take_no_forms(browser: Browser, path: str) -> None:
    """Only logging in and out are sent to the hub."""
    assert browser.post(path, {"a": "b"}).status_code == 405


def test_an_open_hub_asks_nobody_to_log_in(shown: Store) -> None:
    """Everybody sees everything there, and the page says so."""
    browser = client(shown, shown.root, open_to_all=True)
    page = look(browser, "/")
    assert "open hub" in page.text
    assert list(page.addresses("/login")) == []
    assert look(browser, "/acme/secret").status == 200
