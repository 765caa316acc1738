import pytest

from moehub.corpus.words import bare, canonical, fingerprint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The  Lessee\n\tshall PAY.", ["the", "lessee", "shall", "pay."]),
        ("Straße\u00a0und\u3000Weg", ["strasse", "und", "weg"]),
        ("日本語 text", ["日", "本", "語", "text"]),
        ("ﬁne\u2028line", ["fine", "line"]),
        ("", []),
    ],
)
def test_words_are_what_white_space_parts(text: str, words: list[str]) -> None:
    """In lower case and compatibility form; scripts without spaces have one word a character."""
    assert canonical(text).split() == words


def test_white_space_of_words_is_that_of_ascii() -> None:
    """The bytes of the text are parted by the same characters as the text."""
    assert canonical("a\u2003b\u0085c").encode().split() == [b"a", b"b", b"c"]


def test_fingerprints_ignore_case_and_white_space() -> None:
    """And nothing else: a sign more is another text."""
    assert fingerprint("What is 3 + 4?") == fingerprint(" what is\n3 + 4?")
    assert fingerprint("What is 3 + 4?") != fingerprint("What is 3 - 4?")


def test_bare_words_have_no_punctuation() -> None:
    """So an evaluation item is found whatever marks stand around its words."""
    assert bare("“Well”, she said: it's_over!") == "well she said it s over"
