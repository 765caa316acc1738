"""What is cut off from a reply, and what is no text to learn from."""

import pytest

from moehub.corpus.synth.quality import answer_fault, cleaned, task_fault, text_fault

TASK = "Name three rivers that flow into the sea."


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Task: Name a river.", "Name a river."),
        ('"Name a river."', "Name a river."),
        ("1. Name a river.", "Name a river."),
        ("**New task:** Name a river.", "Name a river."),
        ("<think>which? Task: x</think>\n\n“Name a river.”", "Name a river."),
        ('"Yes" and "no" are words.', '"Yes" and "no" are words.'),
        ("Name 3. rivers", "Name 3. rivers"),
        ("", ""),
    ],
)
def test_labels_quotes_and_thoughts_are_cut_off(reply: str, expected: str) -> None:
    """What stands inside the text stays."""
    assert cleaned(reply) == expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Name the longest river of each continent.", None),
        ("Rivers", "too short"),
        ("word " * 500, "too long"),
        ("Say what is in the picture above.", "needs more than text"),
        ("I'm sorry, but I cannot write that task.", "refused"),
        ("As an AI I have no opinion on rivers.", "refused"),
        ("<task>\nName a river and say why.\n</task>", "echoes the request"),
        ("name three RIVERS that flow into the sea.", "unchanged"),
        ("and so on and so on " * 10, "repetitive"),
    ],
)
def test_a_task_is_looked_at(text: str, fault: str | None) -> None:
    """Each fault has its name."""
    assert task_fault(text, [TASK]) == fault


def test_what_the_source_has_a_task_may_have() -> None:
    """Tasks about pictures and about tags are made from such tasks."""
    assert task_fault("Explain how a photo is developed.", ["What is a photograph made of?"]) is None
    assert task_fault("Close the <text> tag of this page.", ["What does <text> mean in SVG?"]) is None


def test_a_text_is_looked_at() -> None:
    """It may be long, and about pictures."""
    assert text_fault("The picture shows a river. " + "It is long and winding, " * 3, ["A river is shown."]) is None
    assert text_fault("A river is  shown.", ["a river is shown."]) == "unchanged"


def test_an_answer_is_looked_at() -> None:
    """It may be short, but neither empty nor cut off."""
    assert answer_fault("Four.", "What is two and two?", cut=False) is None
    assert answer_fault(" ", "What?", cut=False) == "empty"
    assert answer_fault("It is", "What?", cut=True) == "cut off"
    assert answer_fault("Sorry, I will not.", "What?", cut=False) == "refused"
    assert answer_fault("What is  two?", "what is two?", cut=False) == "unchanged"
