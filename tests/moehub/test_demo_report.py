"""The report: the numbers in their agreed form, and a page that stands alone."""

import dataclasses
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from moehub.demo import machine, report, terminal
from moehub.demo.place import Place
from moehub.demo.report import Losses, Report
from moehub.demo.road import Demonstration
from moehub.evaluation import Score, TracedToken

EXPERTS = ("arithmetic", "cpp", "json", "legal", "python")
DOMAINS = ("python", "cpp", "legal", "arithmetic", "json")
VOID = {"meta", "link", "br", "img", "input", "hr"}


def scored(loss: float, routing: dict[str, float] | None = None) -> Score:
    return Score(loss, 1000, routing)


@pytest.fixture
def made() -> Report:
    texts = (*DOMAINS, "generic", "switching")
    scores = {"base": {text: scored(5.0) for text in texts}}
    for name in EXPERTS:
        scores[name] = {text: scored(4.0 if text == name else 5.5) for text in texts}
    scores["moe"] = {
        text: scored(4.05 if text in DOMAINS else 5.02, {"python": 0.25, "cpp": 0.005, "null": 0.745}) for text in texts
    }
    return report.summarise(
        scores,
        domains=DOMAINS,
        seconds={"base": 90.0, "add": 0.3, "remove": 0.2},
        hash_restored=True,
        versions={"python": "3.11"},
        hardware={"cpu": "A processor", "cores": 2, "memory_gib": 8.0},
    )


PASSAGE = [
    TracedToken("def", "python", 0.9),
    TracedToken(" f", "python", 0.7),
    TracedToken(":\n", "null", 0.6),
    TracedToken("<script>alert('&')</script>", "cpp", 0.8),
]


class Page(HTMLParser):
    """Reads a page and keeps what its tests ask for."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.met: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.met.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def test_the_numbers_are_in_the_agreed_form(made: Report) -> None:
    """`report.json` holds these keys and no others."""
    read = json.loads(made.to_json())
    assert set(read) == {
        "losses",
        "gain_kept",
        "generic_harm",
        "routing",
        "add_seconds",
        "remove_seconds",
        "hash_restored",
        "seconds",
        "versions",
        "hardware",
    }
    assert read["losses"]["python"] == {
        "base": 5.0,
        "moe": 4.05,
        "experts": {name: 4.0 if name == "python" else 5.5 for name in EXPERTS},
    }
    assert read["routing"]["generic"] == {"python": 0.25, "cpp": 0.005, "null": 0.745}
    assert (read["add_seconds"], read["remove_seconds"], read["hash_restored"]) == (0.3, 0.2, True)


def test_gain_kept_is_the_share_of_the_own_experts_gain(made: Report) -> None:
    """100 · (base - moe) / (base - own expert), for the domains alone."""
    assert made.gain_kept == pytest.approx(dict.fromkeys(DOMAINS, 95.0))


def test_an_expert_without_a_gain_leaves_none_to_keep() -> None:
    """Where the own expert is no better than the base, the share is 0 and not an infinity."""
    assert report.gain_kept(Losses(base=5.0, moe=4.9, experts={"law": 5.0}), "law") == 0.0


def test_harm_is_positive_where_the_mixture_is_worse(made: Report) -> None:
    """In percent of the base's loss; an improvement is negative."""
    assert made.generic_harm == pytest.approx(0.4)
    assert report.generic_harm(Losses(base=5.0, moe=4.9, experts={})) == pytest.approx(-2.0)


def test_the_page_is_well_formed(made: Report) -> None:
    """Every tag is closed where it was opened."""
    page = Page(report.render(made, PASSAGE))
    assert (page.faults, page.open) == ([], [])


def test_the_page_stands_alone(made: Report) -> None:
    """No script, no picture, no sheet and no font is fetched from anywhere."""
    html = report.render(made, PASSAGE)
    page = Page(html)
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in page.met}
    assert not [attributes for _, attributes in page.met if {"src", "href"} & set(attributes)]
    assert "http" not in html
    assert "url(" not in html
    assert "@import" not in html


def test_the_page_is_for_light_and_dark_and_for_telephones(made: Report) -> None:
    """It follows the reader's preference and the width of the screen."""
    html = report.render(made, PASSAGE)
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html


def test_text_is_escaped(made: Report) -> None:
    """The passage is somebody's text: tags in it are shown, not obeyed."""
    html = report.render(made, PASSAGE)
    assert "<script>" not in html
    assert "<script>alert('&')</script>" in Page(html).text


def test_hardware_is_escaped(made: Report) -> None:
    """So are the names that the machine gives itself."""
    odd = dataclasses.replace(made, hardware={"cpu": "<b>Fast & Co"})
    assert "<b>Fast & Co" in Page(report.render(odd, PASSAGE)).text


def test_tokens_of_the_null_expert_have_no_colour(made: Report) -> None:
    """Neighbouring tokens of one expert are one mark; null's are plain text."""
    marks = [attributes for tag, attributes in Page(report.render(made, PASSAGE)).met if tag == "mark"]
    assert [mark["title"] for mark in marks] == ["python, mean weight 0.80", "cpp, mean weight 0.80"]


def test_the_page_says_when_the_goals_are_missed(made: Report) -> None:
    """A mixture that keeps too little, harms, or is not restored is shown as such."""
    missed = dataclasses.replace(made, generic_harm=3.0, hash_restored=False, gain_kept={"json": 60.0})
    assert Page(report.render(missed, PASSAGE)).text.count("different") == 1
    assert sum("bad" in (attributes.get("class") or "") for _, attributes in Page(report.render(missed, [])).met) == 4


def test_the_numbers_are_written_last(made: Report, tmp_path: Path) -> None:
    """Whoever finds `report.json` finds the page too."""
    with pytest.raises(OSError, match="null"):
        report.write(made, PASSAGE, html=Path("/dev/null/page"), json=tmp_path / "report.json")
    assert not (tmp_path / "report.json").exists()


def test_the_terminal_shows_everything_within_eighty_columns(made: Report, tmp_path: Path) -> None:
    """Both tables, the verdicts and the passage fit an old terminal."""
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    terminal.show(Demonstration(Place(tmp_path), made, PASSAGE), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, shown.split("\nEverything is in")[0].splitlines())) <= 80
    assert "…" not in shown
    for word in (*EXPERTS, "generic", "switching", "null", "95 %", "+0.40 %", "def f:", "<script>", "report.html"):
        assert word in shown


def test_the_terminal_colours_tokens_by_expert(made: Report, tmp_path: Path) -> None:
    """A token of an expert has its colour, one of null has none."""
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="truecolor", no_color=False)
    console.print(terminal.passage(Demonstration(Place(tmp_path), made, PASSAGE)))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[38;2;" in shown.partition("def f")[0][-30:]
    assert shown.partition("def f")[2].startswith("\x1b[0m:")


def test_the_machine_is_described_without_naming_it() -> None:
    """Processor, cores and memory are in the report; the name of the host is not."""
    import platform

    described = machine.hardware()
    assert described["cpu"]
    assert int(described["cores"]) >= 1
    assert float(described["memory_gib"]) > 0
    assert platform.node() not in json.dumps(described) or not platform.node()
    assert {"python", "moehub", "torch", "transformers", "peft"} <= set(machine.versions())
