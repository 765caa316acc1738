import random

import pytest

from moehub.chat import Message
from moehub.experts.examples import Completion, Conversation, Example, Text, digest, split


def _texts(count: int) -> list[Example]:
    return [Text(f"document {number}") for number in range(count)]


def test_digest_is_of_what_an_example_says_and_not_of_where_it_came_from() -> None:
    """Copies from two files have one digest; other words, roles, kinds or prompts have others."""
    examples: list[Example] = [
        Text("a"),
        Text("a", ends=False),
        Completion("a", "b"),
        Completion("b", "a"),
        Conversation((Message("user", "a"), Message("assistant", "b"))),
        Conversation((Message("assistant", "a"), Message("user", "b"))),
    ]
    assert digest(Text("a", origin="one.txt")) == digest(Text("a", origin="two.txt"))
    assert len({digest(example) for example in examples}) == len(examples)


def test_split_does_not_depend_on_the_order() -> None:
    """The same examples are held out in whatever order they come."""
    examples = _texts(500)
    shuffled = random.Random(0).sample(examples, len(examples))  # noqa: S311 (no secret)
    _, held = split(examples, 0.1)
    _, held_shuffled = split(shuffled, 0.1)
    assert set(map(digest, held)) == set(map(digest, held_shuffled))


def test_split_holds_out_about_the_fraction_and_loses_nothing() -> None:
    """Both parts together are the whole, and their sizes are about as asked."""
    examples = _texts(2000)
    training, held = split(examples, 0.1)
    assert sorted(map(digest, training + held)) == sorted(map(digest, examples))
    assert 150 < len(held) < 250


def test_split_keeps_copies_on_one_side() -> None:
    """A copy of a held-out example is never trained on."""
    training, held = split(_texts(300) * 2, 0.1)
    assert not set(map(digest, training)) & set(map(digest, held))


@pytest.mark.parametrize("fraction", [0.01, 0.5])
def test_split_of_two_conversations_trains_on_one_and_holds_out_the_other(fraction: float) -> None:
    """However small or large the fraction, neither part is empty."""
    examples: list[Example] = [Completion("a", "b"), Completion("c", "d")]
    training, held = split(examples, fraction)
    assert (len(training), len(held)) == (1, 1)


def test_split_of_one_conversation_holds_out_nothing() -> None:
    """What is there is learned."""
    example = Completion("a", "b")
    assert split([example], 0.05) == ([example], [])


def test_split_of_one_long_text_holds_out_its_end() -> None:
    """A single document is cut after a paragraph; only the last part ends where the document ends."""
    text = "".join(f"Paragraph {number}, of some words.\n\n" for number in range(100))
    training, held = split([Text(text)], 0.1)
    (head,), (tail,) = training, held
    assert isinstance(head, Text)
    assert isinstance(tail, Text)
    assert head.text + tail.text == text
    assert head.text.endswith("\n\n")
    assert (head.ends, tail.ends) == (False, True)
    assert 0.05 < len(tail.text) / len(text) < 0.15


def test_split_does_not_cut_short_texts() -> None:
    """A text of a sentence or two stays whole and is learned."""
    short: list[Example] = [Text("A sentence.")]
    assert split(short, 0.05) == (short, [])


def test_split_of_text_without_any_break_cuts_between_characters() -> None:
    """Even a text without blanks has an end that can be held out."""
    training, held = split([Text("x" * 1000)], 0.1)
    assert [example.text for example in (*training, *held) if isinstance(example, Text)] == ["x" * 900, "x" * 100]


@pytest.mark.parametrize("count", [1, 2, 5, 19, 20, 60])
def test_split_of_each_alone_moves_nobody_else(count: int) -> None:
    """One example more or less changes its own side and no other's, however few there are: privacy counts by that."""
    examples = _texts(count)
    training, held = split(examples, 0.05, alone=True)
    for gone in examples:
        fewer_training, fewer_held = split([one for one in examples if one is not gone], 0.05, alone=True)
        assert fewer_training == [one for one in training if one is not gone]
        assert fewer_held == [one for one in held if one is not gone]


def test_split_with_fraction_zero_trains_on_everything() -> None:
    """Whoever holds nothing out gets all examples."""
    examples = _texts(50)
    assert split(examples, 0) == (examples, [])
