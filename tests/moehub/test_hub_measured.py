import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moehub.errors import ConfigError, HubError
from moehub.hub.measured import Measured, MeasuredText, parse_measured

LAW = MeasuredText(2.5, 100, {"law": 0.75, "null": 0.25}, 3.0)


def values(**changes: Any) -> dict[str, Any]:
    """What a good file holds, with changes to its one text."""
    text = {"loss": 2.5, "tokens": 100, "routing": {"law": 0.75, "null": 0.25}, "base_loss": 3.0, **changes}
    return {"format": 1, "config": "c" * 64, "texts": {"law": text}}


@given(
    st.dictionaries(
        st.from_regex(r"[a-z ]{1,64}", fullmatch=True),
        st.builds(
            MeasuredText,
            st.floats(0, 1e6),
            st.integers(1, 10**9),
            st.dictionaries(st.text(max_size=8), st.floats(0, 0.1), max_size=9),
            st.none() | st.floats(0, 1e6),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_is_read(texts: dict[str, MeasuredText]) -> None:
    """The text of `evaluation.json` gives back what it was made of."""
    measured = Measured("c" * 64, texts)
    assert parse_measured(measured.to_json()) == measured


def test_the_format_is_what_the_docs_say() -> None:
    """A file of format 1 is read, and perplexity follows from the loss."""
    read = parse_measured(json.dumps(values()))
    assert read == Measured("c" * 64, {"law": LAW})
    assert read.texts["law"].perplexity == pytest.approx(12.18249396)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": float("nan")},
        {"loss": float("inf")},
        {"loss": -1.0},
        {"loss": "much"},
        {"loss": 10**400},
        {"base_loss": float("nan")},
        {"tokens": 0},
        {"tokens": 1.5},
        {"tokens": True},
        {"routing": {"law": 1.5}},
        {"routing": {"law": -0.1}},
        {"routing": {"law": "all"}},
        {"routing": {"law": True}},
        {"routing": {"law": 0.6, "code": 0.6}},
        {"routing": ["law"]},
        {"more": 1},
    ],
)
def test_figures_that_cannot_be_true_are_refused(changes: dict[str, Any]) -> None:
    """Numbers that are none, shares of more than everything, wrong types and unknown keys get a sentence."""
    with pytest.raises(HubError, match=r"(?s)evaluation.json cannot be used .*evaluate the MoE again with --keep"):
        parse_measured(json.dumps(values(**changes)))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", "{", "null", '{"texts": 3}', "[" * 100_000, '{"format": 2, "config": "c", "texts": {}}'],
)
def test_what_is_no_evaluation_is_refused(text: str) -> None:
    """Text that is no JSON, or another kind of it, is refused and never crashes."""
    with pytest.raises(HubError, match=r"evaluation.json cannot be used"):
        parse_measured(text)


@pytest.mark.parametrize("name", ["", "x" * 65, "two\nlines"])
def test_texts_have_names_that_can_be_shown(name: str) -> None:
    """A text's name has 1 to 64 characters on one line."""
    with pytest.raises(ConfigError, match="has no name of 1 to 64 characters"):
        Measured("c" * 64, {name: LAW})


def test_an_evaluation_has_texts() -> None:
    """None at all, or more than a page could show, are refused."""
    for texts in ({}, {str(number): LAW for number in range(101)}):
        with pytest.raises(ConfigError, match="expected 1 to 100"):
            Measured("c" * 64, texts)
