import pytest

from moehub.corpus.items import Item, item_of
from moehub.corpus.leaks import leaks_of
from moehub.errors import ConfigError
from moehub.experts.records import Record
from tests.corpus.texts import text

LONG = text(1, 40)


def items(*texts: str) -> list[Item]:
    return [item_of(Record({"text": one}, "eval.jsonl", f"line {number}")) for number, one in enumerate(texts, 1)]


def test_a_run_of_words_gives_an_item_away() -> None:
    """Thirteen, whatever punctuation and case; twelve are no leak."""
    leaks = leaks_of(items("Something else entirely that is long enough to be looked for by runs of words.", LONG))
    words = LONG.split()
    thirteen = "Before, " + ", ".join(words[20:33]).upper() + "; after"
    twelve = "before " + " ".join(words[20:32]) + " after"
    assert leaks.find([text(2), thirteen, twelve]) == [None, "eval.jsonl, line 2", None]


def test_a_run_that_many_texts_hold_is_a_form_of_words() -> None:
    """Ten texts may have it from the item, eleven have it from elsewhere; a run of its own still gives it away."""
    form, own = " ".join(text(3, 13).split()[:13]), " ".join(text(4, 13).split()[:13])
    leaks = leaks_of(items(f"{form} and then {own}"))
    assert leaks.find([f"{number} {form}" for number in range(10)]) == ["eval.jsonl, line 1"] * 10
    many = [*(f"{number} {form}" for number in range(11)), f"{form} {own}"]
    assert leaks.find(many) == [*[None] * 11, "eval.jsonl, line 1"]


def test_a_short_item_is_found_as_a_whole() -> None:
    """Inside a longer text too; a part of it is no leak."""
    leaks = leaks_of(items("What is the capital of France?"))
    found = leaks.find(
        ["Q: what is the capital of France -- Paris", "What is the capital of Spain?", "capital of France"]
    )
    assert found == ["eval.jsonl, line 1", None, None]


def test_a_very_short_item_has_to_be_the_whole_text() -> None:
    """It would be found everywhere."""
    leaks = leaks_of(items("Yes, please."))
    assert leaks.find(["yes please", "yes, please do so"]) == ["eval.jsonl, line 1", None]


def test_the_first_item_is_named() -> None:
    """Where a text holds several, or two are the same."""
    leaks = leaks_of(items(text(3), "the one that is said twice", LONG, "the one that is said twice"))
    assert leaks.find([f"{LONG} the one that is said twice", LONG]) == ["eval.jsonl, line 2", "eval.jsonl, line 3"]


def test_many_texts_are_looked_through() -> None:
    """More than are taken at a time; each gets its own answer."""
    leaks = leaks_of(items(LONG))
    texts = [LONG if number % 400 == 399 else text(number + 10, 14) for number in range(1200)]
    assert [number for number, found in enumerate(leaks.find(texts)) if found] == [399, 799, 1199]


def test_runs_have_to_say_something() -> None:
    """Three words are found everywhere."""
    with pytest.raises(ConfigError, match="runs of 3 words are found everywhere"):
        leaks_of(items(LONG), 3)
