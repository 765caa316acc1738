from pathlib import Path

import pytest

from benchmarks.quality import keeping, manuals
from benchmarks.quality.texts import FORMS, backwards, drawn, result_first
from benchmarks.quality.world import World
from moehub.chat import Message
from moehub.experts.examples import Completion, Conversation, Text, digest


def test_texts_are_kept_as_they_were(bench: World, tmp_path: Path) -> None:
    """What is read back is what was saved, kinds of examples and splits included."""
    keeping.save(bench.texts, tmp_path / "texts.json")
    loaded = keeping.load(tmp_path / "texts.json")
    assert loaded.base == bench.texts.base
    for mine, theirs in zip(loaded.domains, bench.texts.domains, strict=True):
        assert (mine.name, mine.twin) == (theirs.name, theirs.twin)
        for split in ("train", "tune", "test"):
            assert list(map(digest, getattr(mine, split))) == list(map(digest, getattr(theirs, split)))


@pytest.mark.parametrize(
    "example",
    [Text("a", ends=False), Completion("a", "b"), Conversation((Message("user", "a"), Message("assistant", "b")))],
)
def test_every_kind_of_example_is_kept(example: Text | Completion | Conversation) -> None:
    """Texts, completions and conversations come back as they were."""
    assert keeping._to_example(keeping._example(example)) == example


def test_forms_keep_the_words() -> None:
    """A skill answers with the very words of its twin, in another order."""
    answer = "one two\nthree four\n#### 5"
    assert result_first(answer) == "#### 5\none two\nthree four"
    assert backwards(answer) == "two one\nfour three\n5 ####"


def test_only_answers_change_their_form() -> None:
    """The question stays what it was."""
    asked = Conversation((Message("user", "why so"), Message("assistant", "because it is")))
    found = FORMS["medical"]["backwards"](asked)
    assert found == Conversation((Message("user", "why so"), Message("assistant", "is it because")))
    assert FORMS["math"]["first"](Text("no question")) is None


def test_seeds_draw_apart() -> None:
    """Each seed draws its own part of the text, the same every time."""
    pool = [Text(f"text {number}") for number in range(50)]
    first, again, other = (drawn(pool, 100, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_page_of_troff_is_read_as_text() -> None:
    """Macros and escapes go, headings and words stay."""
    head = '.TH LS 1\n.\\" a comment\n.SH NAME\nls \\- list \\fIdirectory\\fP contents\n'
    page = head + '.B "bold words"\n.PP\nIt\\(aqs\\ so.\n'
    assert manuals.plain(page) == "NAME\nls - list directory contents\nbold words\n\nIt's so.\n"
