import re
from pathlib import Path

from moehub.admission.registry import registered

DOCS = (Path(__file__).parents[2] / "docs" / "admission.md").read_text(encoding="utf-8")
ROW = re.compile(r"\| (\d) \| `([a-z0-9-]+)` \| (.+) \| (.+) \|")


def test_every_check_is_documented() -> None:
    """The table in docs/admission.md has a row for each check, in order, with what it asks for and a cure."""
    rows = [found.groups() for line in DOCS.splitlines() if (found := ROW.fullmatch(line))]
    documented = [(int(step), code, summary) for step, code, summary, _ in rows]
    assert [(check.step, check.code, check.summary) for check in registered()] == documented
    assert all(cure[0].isupper() and cure.endswith(".") for *_, cure in rows)


def test_every_check_says_what_an_admitted_expert_has() -> None:
    """A check's first line is a sentence."""
    for check in registered():
        assert check.summary[0].isupper()
        assert check.summary.endswith(".")
