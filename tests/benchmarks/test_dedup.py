import random
from pathlib import Path

import pytest

from benchmarks import dedup
from moehub.corpus.near import Seen
from tests.corpus.texts import text


@pytest.fixture(scope="module")
def originals() -> list[str]:
    return [text(seed, 120) for seed in range(60)]


@pytest.mark.parametrize(("miss", "least", "most"), [(False, 0.8, 1.0), (True, 0.6, 0.8)])
def test_copies_are_as_alike_as_they_are_said_to_be(
    originals: list[str], *, miss: bool, least: float, most: float
) -> None:
    """Near-duplicates from the threshold on, near misses below it."""
    draw = random.Random(3)  # noqa: S311
    for _ in range(60):
        copy = dedup._copy(originals, draw, miss=miss)
        one, other = dedup._shingles(copy.text), dedup._shingles(originals[copy.original])
        assert copy.similarity == len(one & other) / len(one | other)
        assert least <= copy.similarity <= most


def test_the_plain_twin_keeps_the_same(originals: list[str]) -> None:
    """The quick way is compared with one that does the same."""
    draw = random.Random(4)  # noqa: S311
    texts = originals[:20] + [dedup._copy(originals[:20], draw, miss=number % 2 == 0).text for number in range(20)]
    assert dedup._twin(texts) == [match is None for match in Seen().add_all(texts)]


def test_originals_resemble_none_before_them(tmp_path: Path, originals: list[str]) -> None:
    """Documents are cut at the ends of lines, and those that repeat another are passed over."""
    lines = "\n".join(line for number in range(4) for line in originals[number].replace(" ", "\n").split("\n"))
    (tmp_path / "a.txt").write_text(lines + "\n" + lines)
    found = list(dedup._originals([tmp_path / "a.txt"], 10))
    assert found == [one.replace(" ", "\n") for one in originals[:4]]
