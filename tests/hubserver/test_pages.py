"""What people see: content, links, paging and headers."""

import re
from pathlib import Path

import pytest

from moehub.hubserver.store.store import Store, open_store
from moehub.hubserver.visitor import EVERYBODY
from tests.hubserver import showcase
from tests.hubserver.looking import ADDRESS, Browser, client, look
from tests.hubserver.pushes import push

PUBLIC = ["acme/asked-for", "acme/chemistry", "acme/code", "acme/french", "acme/law", "acme/math", "acme/medicine"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A hub with something to show, for looking only."""
    store = open_store(tmp_path_factory.mktemp("shown") / "hub", create=True)
    showcase.fill(store)
    return store


@pytest.fixture
def browser(shown: Store) -> Browser:
    """Somebody who is not logged in."""
    return client(shown, shown.root)


PAGES = [
    "/",
    "/?kind=moe",
    "/?kind=other",
    "/?base=acme%2Fbase",
    "/?search=law&base=nothing",
    "/acme",
    "/acme/law",
    "/acme/both",
    "/acme/base",
    "/acme/law/tree/main",
    "/acme/both/tree/main/experts",
    "/acme/law/blob/main/expert.json",
    "/acme/law/blob/main/adapter_model.safetensors",
    "/acme/law/commits/main",
    "/acme/law/commit/main",
    "/login",
]


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_whole_and_loads_nothing_from_elsewhere(browser: Browser, path: str) -> None:
    """Elements are nested, there is no script and no inline style, and what is loaded or sent stays here."""
    page = look(browser, path)
    assert [tag for tag, _ in page.elements].count("h1") == 1
    assert {"html", "title", "main", "header", "footer"} <= {tag for tag, _ in page.elements}


@pytest.mark.parametrize("path", PAGES)
def test_every_link_leads_somewhere(browser: Browser, path: str) -> None:
    """Whatever a page links to on this hub is there; one gated repo is listed, and may not be read."""
    for address in set(look(browser, path).addresses("/")):
        assert browser.get(address).status_code in ((403,) if "asked-for" in address else (200, 307)), address


@pytest.mark.parametrize("path", [*PAGES, "/acme/nothing", "/acme/asked-for"])
def test_pages_can_load_and_run_nothing(browser: Browser, path: str) -> None:
    """The headers forbid scripts, frames, and everything from elsewhere, on refusals too."""
    headers = browser.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "style-src": "'self'",
        "img-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == "no-cache"
    assert "Cookie" in headers["vary"]


def test_style_and_icon_are_served_for_good(browser: Browser) -> None:
    """They are named after their content, so a browser may keep them; another name is not there."""
    style, icon = (load for load in look(browser, "/").loads[:2])
    for path, kind in ((icon, "text/css; charset=utf-8"), (style, "image/svg+xml")):
        answer = browser.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert "immutable" in answer.headers["cache-control"]
        assert "url(" not in answer.text
        assert "@import" not in answer.text
    assert browser.get("/-/style-0.css").status_code == 404


def test_the_first_page_lists_experts_with_what_matters(browser: Browser) -> None:
    """Domain, base, losses, gain, size, licence, day and the gate's word stand in each line, newest first."""
    text = look(browser, "/").text
    assert re.search(
        r"acme/ ?law law acme/base 2.913 → 2.204 24.3 % 2.0 MB apache-2.0 \d{4}-\d\d-\d\d checked", text
    ), text
    assert re.search(r"uni-lyon/ ?french-poems french acme/base .* cc-by-4.0 \S+ unchecked", text)
    assert text.index("law law") < text.index("math math") < text.index("medicine medicine")
    assert "Experts 8 MoEs 1 Others 1" in text


def test_experts_are_listed_for_a_base(tmp_path: Path) -> None:
    """Only those of the chosen base are shown, and the other bases are there to choose."""
    store = open_store(tmp_path / "hub", create=True)
    push(store, "acme/law", showcase.expert_files(showcase.card_of("law")))
    push(store, "acme/elsewhere", {"README.md": b"---\nbase_model: other/base\n---\n", "expert.json": b"{}"})
    browser = client(store, tmp_path)
    page = look(browser, "/?base=other%2Fbase")
    assert "elsewhere" in page.text
    assert "/acme/law" not in set(page.addresses())
    options = {given["value"]: "selected" in given for tag, given in page.elements if tag == "option"}
    assert options == {"": False, "acme/base": False, "other/base": True}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("search=medicine", {"/acme/medicine"}),
        ("search=MEDI", {"/acme/medicine"}),
        ("search=french+cc-by", {"/uni-lyon/french-poems"}),
        ("search=domain%3Alaw", {"/acme/law"}),
        ("search=french&base=acme%2Fbase", {"/acme/french", "/uni-lyon/french-poems"}),
        ("search=nowhere-to-be-found", set()),
        ("search=both&kind=moe", {"/acme/both"}),
        ("search=both", {"/acme/both"}),
    ],
)
def test_search_finds_by_every_word(browser: Browser, query: str, found: set[str]) -> None:
    """All words must occur, in any case; where no expert fits, the MoEs that do are shown."""
    page = look(browser, f"/?{query}")
    repos = {address for address in page.addresses("/") if re.fullmatch(r"/[\w-]+/[\w-]+", address)}
    assert repos == found
    assert ("Nothing here fits" in page.text) == (not found)


def test_lists_come_in_pages(tmp_path: Path) -> None:
    """Following the link to the next page shows every repo once, and the way back to the first."""
    store = open_store(tmp_path / "hub", create=True)
    for number in range(120):
        push(store, f"acme/e{number:03}", {"expert.json": b"{}"})
    browser, seen, path = client(store, tmp_path), list[str](), "/?kind=expert&search=acme"
    for count in (50, 100, 120):
        page = look(browser, path)
        seen += page.addresses("/acme/e")
        assert len(seen) == count
        following = [link["href"] for link in page.links if link.get("rel") == "next"]
        path = following[0] if following else ""
    assert seen == [f"/acme/e{number:03}" for number in reversed(range(120))]
    assert path == ""
    assert "/?kind=expert&search=acme" in set(page.addresses())


@pytest.mark.parametrize("after", ["x", "~", "2026~x", "2026~" + "9" * 40, "2026~²"])
def test_a_place_that_is_none_is_refused(browser: Browser, after: str) -> None:
    """A made-up place in a list gets a sentence, and never an error."""
    assert "begin at its first page" in look(browser, f"/?after={after}", 400).text


def test_an_author_has_a_page(browser: Browser) -> None:
    """Everything somebody published is listed, under their name as they write it; nobody has none."""
    page = look(browser, "/ACME")
    assert "acme Experts 7 MoEs 1 Others 1" in page.text
    repos = {address for address in page.addresses("/acme/") if address.count("/") == 2}
    assert repos == {f"/{repo}" for repo in PUBLIC}
    assert (
        "nobody called 'nobody' published anything here that you may see" in look(browser, "/nobody", 404).text.lower()
    )


def test_an_experts_page_says_what_it_is(browser: Browser) -> None:
    """Facts of its card, losses, verdict, files, commands, history and README are there."""
    text = look(browser, "/acme/law").text
    for part in (
        "2.913 → 2.204",
        "24.3 % gain on its domain, as its publisher measured it on 48,213 tokens",
        "rank, alpha 8, 16",
        "linears q_proj v_proj",
        "trained: sft 1,840,000 tokens of 9,600 examples in 1,200 steps",
        "published by ada",
        f"moehub pull acme/law law \\ --hub {ADDRESS}",
        "moehub merge --base acme/base \\ --expert acme/law",
        "adapter_model.safetensors 2.0 MB",
        "by 4 checks, 1 more could not be made here",
        "the base acme/base is not at hand",
        "Judgments of three courts",
    ):
        assert part in text, part


def test_an_experts_page_shows_where_its_tokens_went(browser: Browser) -> None:
    """Each MoE that holds it is there, with its share of every text as a number and a bar."""
    page = look(browser, "/acme/law")
    assert "acme/both chemistry 2.7 % code 2.7 % generic 1.5 % law 87.0 % medicine 2.7 %" in page.text
    bars = {given["width"] for tag, given in page.elements if tag == "rect" and given.get("class") == "one"}
    assert bars == {"2.67", "1.50", "87.00"}
    assert "No MoE on this hub that you may read holds it" in look(browser, "/acme/math").text


def test_a_moes_page_says_what_went_into_it(browser: Browser) -> None:
    """Experts with where they are published, the gate's settings, the evaluation and the lock are there."""
    page = look(browser, "/acme/both")
    for part in (
        "chemistry chemistry apache-2.0 acme/chemistry ababababab",
        "method evidence top_k 2 kappa 0.3",
        "law 2.244 2.913 23.0 % 9.431 20,480",
        "generic 3.012 3.008 −0.1 % 20.33 40,960",
        "null generic.txt, ffffffffff",
    ):
        assert part in page.text, part
    assert {"/acme/chemistry", "/acme/code", "/acme/law", "/acme/medicine"} <= set(page.addresses())
    labels = [given["aria-label"] for tag, given in page.elements if tag == "svg"]
    assert "chemistry 2.7 %, code 2.7 %, law 87.0 %, medicine 2.7 %, null 5.0 %" in labels


def test_bars_fill_their_width_and_no_more(browser: Browser) -> None:
    """The parts of a bar follow each other, from the left to at most its whole width."""
    page, end = look(browser, "/acme/both"), 0.0
    for tag, given in page.elements:
        if tag == "svg":
            end = 0.0
        elif tag == "rect" and given["class"] != "rest":
            assert float(given["x"]) == pytest.approx(end, abs=0.01)
            end += float(given["width"])
            assert end <= 100.01


def test_files_and_folders_can_be_walked(browser: Browser) -> None:
    """Folders lead to folders, files to their text and to their bytes; a folder's size is that of what is in it."""
    page = look(browser, "/acme/both/tree/main")
    assert "/acme/both/tree/main/experts" in set(page.addresses())
    assert re.search(r"experts/ 8.8 MB 20 files", page.text)
    inside = look(browser, "/acme/both/tree/main/experts/law")
    (download,) = (address for address in inside.addresses("/acme/both/resolve/") if address.endswith("/expert.json"))
    text = browser.get(download).text
    assert '"domain": "law"' in text
    assert " ".join(text.split()) in look(browser, "/acme/both/blob/main/experts/law/expert.json").text
    assert browser.get("/acme/law/tree/main/README.md").headers["location"] == "/acme/law/blob/main/README.md"


def test_binary_files_are_offered_and_not_shown(browser: Browser) -> None:
    """Weights have a size, a digest and a download, and no text."""
    page = look(browser, "/acme/law/blob/main/adapter_model.safetensors")
    assert "size 2.0 MB sha256" in page.text
    assert [tag for tag, _ in page.elements].count("pre") == 0


def test_history_shows_what_each_commit_did(tmp_path: Path) -> None:
    """Added, changed and deleted files are told apart, and long histories come in pages."""
    store = open_store(tmp_path / "hub", create=True)
    push(store, "acme/any", {"a": b"1", "b": b"2"})
    oid = push(store, "acme/any", {"a": b"123", "c": b"3"}, deleted=("b",))
    browser = client(store, tmp_path)
    text = look(browser, f"/acme/any/commit/{oid}").text
    assert "a changed 1 byte → 3 bytes b deleted 1 byte c added 1 byte" in text
    for number in range(60):
        push(store, "acme/any", {"a": str(number).encode()})
    first = look(browser, "/acme/any/commits/main")
    (following,) = (link["href"] for link in first.links if link.get("rel") == "next")
    commits = [*first.addresses("/acme/any/commit/"), *look(browser, following).addresses("/acme/any/commit/")]
    assert len(commits) == len(set(commits)) == 62


def test_branches_and_tags_have_pages(tmp_path: Path) -> None:
    """A branch with a slash in its name is one part of the address."""
    store = open_store(tmp_path / "hub", create=True)
    oid = push(store, "acme/any", {"dir/file.txt": b"on main"})
    repo = store.repos.get("acme/any", EVERYBODY)
    store.repos.name(repo, "exp/1", "branch", oid)
    push(store, "acme/any", {"dir/file.txt": b"on the branch"}, branch="exp/1")
    browser = client(store, tmp_path)
    assert "/acme/any/tree/exp%2F1" in set(look(browser, "/acme/any/tree/main").addresses())
    page = look(browser, "/acme/any/tree/exp%2F1")
    (folder,) = page.addresses("/acme/any/tree/exp%2F1/")
    (file,) = look(browser, folder).addresses("/acme/any/blob/")
    assert "on the branch" in look(browser, file).text


def test_a_repo_without_commits_says_how_to_fill_it(tmp_path: Path) -> None:
    """Its page shows the command to push, and its files and history are not there."""
    store = open_store(tmp_path / "hub", create=True)
    store.repos.create("acme/new", EVERYBODY)
    browser = client(store, tmp_path)
    assert f"moehub push FOLDER acme/new --hub {ADDRESS}" in look(browser, "/acme/new").text
    assert "has no revision 'main'" in look(browser, "/acme/new/tree/main", 404).text


def test_an_empty_hub_says_how_to_begin(tmp_path: Path) -> None:
    """Each list without anything shows the commands that would fill it."""
    browser = client(open_store(tmp_path / "hub", create=True), tmp_path)
    assert f"moehub push law acme/law --hub {ADDRESS}" in look(browser, "/").text
    assert "moehub push moe acme/both" in look(browser, "/?kind=moe").text


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/acme/nothing", "There is no repo acme/nothing here, or it is private"),
        ("/acme/law/tree/v9", "acme/law has no revision 'v9'"),
        ("/acme/law/tree/main/nowhere", "acme/law has no file 'nowhere' at this revision"),
        ("/acme/law/blob/main/", "acme/law has no file ''"),
        ("/acme/law/what/is/this", "There is no page at this address"),
        ("/acme/law/resolve/main/nowhere", "acme/law has no file 'nowhere'"),
    ],
)
def test_what_is_not_there_gets_a_page_with_a_sentence(browser: Browser, path: str, sentence: str) -> None:
    """A 404 in a browser says what is missing, and leads on."""
    page = look(browser, path, 404)
    assert sentence in page.text
    assert "/" in set(page.addresses())


def test_a_client_that_wants_no_page_gets_none(browser: Browser) -> None:
    """Without text/html in Accept, and for the API always, a refusal is JSON."""
    for path, accept in (("/acme/nothing", "*/*"), ("/api/models/acme/nothing", "text/html")):
        answer = browser.get(path, headers={"Accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")


def test_signed_experts_are_marked(tmp_path: Path) -> None:
    """A signature among the files is named on the page."""
    store = open_store(tmp_path / "hub", create=True)
    push(store, "acme/law", showcase.expert_files(showcase.card_of("law")))
    browser = client(store, tmp_path)
    assert "signed" not in look(browser, "/acme/law").text.split()
    push(store, "acme/law", {"expert.sig": b"{}"})
    assert "signed" in look(browser, "/acme/law").text.split()
