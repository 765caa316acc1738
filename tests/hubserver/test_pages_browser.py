"""Pages in a real browser, whose scripts are switched off: large and small screens, light and dark."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hubserver import showcase
from tests.hubserver.chromium import BINARY, Chromium, chromium
from tests.hubserver.conftest import Served, served
from tests.hubserver.pushes import push

pytestmark = pytest.mark.skipif(BINARY is None, reason="there is no Chromium: `apt install chromium`")

PAGES = [
    "/",
    "/?kind=moe",
    "/acme/law",
    "/acme/both",
    "/acme/both/tree/main",
    "/acme/law/commit/main",
    "/acme/wide",
    "/login",
]
WIDE = "w" * 60


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A hub with something to show, and with an expert whose every word is long."""
    with served(tmp_path_factory.mktemp("hub") / "hub") as found:
        showcase.fill(found.store)
        readme = (
            f"---\nlicense: {WIDE}\nbase_model: {WIDE}/{WIDE}\ntags: [domain:{WIDE}]\n---\n# {WIDE * 3}\n`{WIDE * 3}`\n"
        )
        table = (
            f"|{'|'.join([WIDE] * 5)}|\n{'|-' * 5}|\n|{'|'.join([WIDE] * 5)}|\n\n    {WIDE * 5}\n\n> - 1. {WIDE * 4}\n"
        )
        push(found.store, "acme/wide", {"expert.json": b"{}", "README.md": (readme + table).encode(), WIDE * 4: b"1"})
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One browser for all tests."""
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_their_screen_and_ask_nobody_else(
    hub: Served, browser: Chromium, tmp_path: Path, width: int, dark: bool
) -> None:
    """There is no scrolling sideways, no complaint in the console, no request to another place, and a whole picture."""
    browser.show(width=width, dark=dark)
    for number, page in enumerate(PAGES):
        browser.open(hub.url + page)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width, page
        assert browser.complaints() == [], page
        assert [url for url in browser.requests() if not url.startswith(f"{hub.url}/")] == [], page
        assert len(browser.evaluate("[...document.styleSheets].map(sheet => sheet.cssRules.length)")) == 1
        picture = browser.screenshot(tmp_path / f"{number}.png", whole=False)
        assert struct.unpack(">II", picture[16:24]) == (width, 844)


_CONTRASTS = """
(() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const found = numbers(getComputedStyle(e).backgroundColor);
      if (found.length < 4 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !element.getClientRects().length) continue;
    const pair = [light(numbers(getComputedStyle(element).color)), light(ground(element))].sort((a, b) => b - a);
    const contrast = (pair[0] + .05) / (pair[1] + .05);
    if (contrast < 4.5) bad.push([element.outerHTML.slice(0, 80), contrast]);
  }
  return bad;
})()
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read(hub: Served, browser: Chromium, dark: bool) -> None:
    """All text stands out from its ground by 4.5 to 1 at least (WCAG 2, level AA)."""
    browser.show(width=1280, dark=dark)
    for page in PAGES:
        browser.open(hub.url + page)
        assert browser.evaluate(_CONTRASTS) == [], page


def test_light_and_dark_differ(hub: Served, browser: Chromium) -> None:
    """The ground is light for one and dark for the other."""
    grounds = []
    for dark in (False, True):
        browser.show(width=1280, dark=dark)
        browser.open(hub.url)
        grounds.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(251, 250, 247)", "rgb(20, 22, 26)"]


def test_bars_have_their_colours_and_lengths(hub: Served, browser: Chromium) -> None:
    """What was measured is as long on the screen as it should be, in the expert's colour."""
    browser.show(width=1280, dark=False)
    browser.open(f"{hub.url}/acme/both")
    row = "document.querySelectorAll('.evaluation tbody tr')[3]"
    assert browser.evaluate(f"{row}.querySelector('th').textContent") == "law"
    part = f"{row}.querySelectorAll('rect')[3]"
    assert browser.evaluate(f"getComputedStyle({part}).fill") == "rgb(0, 158, 115)"
    share = browser.evaluate(f"{part}.getBoundingClientRect().width / {row}.querySelector('svg').clientWidth")
    assert share == pytest.approx(0.87, abs=0.01)
    assert (
        browser.evaluate("getComputedStyle(document.querySelector('.legend .c2')).backgroundColor")
        == "rgb(0, 158, 115)"
    )


def test_forms_work_without_scripts(hub: Served, browser: Chromium) -> None:
    """Searching, logging in to see a private repo, and logging out are forms that a browser sends by itself."""
    browser.show(width=390, dark=False)
    browser.open(hub.url)
    browser.type_into("input[name=search]", "medicine")
    assert browser.evaluate("document.querySelectorAll('tbody tr').length") == 1
    browser.open(f"{hub.url}/login?next=/acme/secret")
    browser.type_into("input[name=token]", hub.reader)
    assert browser.evaluate("location.pathname") == "/acme/secret"
    assert browser.evaluate("document.querySelector('h1').textContent").startswith("secret")
    assert browser.complaints() == []
    browser.press_enter("form[action='/logout'] button")
    assert "secret" not in browser.evaluate("document.body.textContent")
