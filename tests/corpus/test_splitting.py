from pathlib import Path

import pytest

from moehub.corpus.splitting import Sides, split
from moehub.errors import ConfigError, DataError
from tests.corpus.texts import changed, documents, text


def texts(sides: Sides) -> list[set[str]]:
    return [{item.text for item in side} for side in (sides.train, sides.test, sides.valid)]


def test_the_order_does_not_matter(tmp_path: Path) -> None:
    """Nor which file a record stands in."""
    some = [text(seed, 20) for seed in range(200)]
    one = split([documents(tmp_path / "a.jsonl", some)], 0.1, valid=True)
    halves = [documents(tmp_path / f"{name}.jsonl", part) for name, part in (("b", some[:90:-1]), ("c", some[90::-1]))]
    assert texts(split(halves, 0.1, valid=True)) == texts(one)
    train, test, valid = texts(one)
    assert train | test | valid == set(some)
    assert len(train) + len(test) + len(valid) == 200
    assert (10 <= len(test) <= 30, 10 <= len(valid) <= 30) == (True, True)


def test_a_record_more_moves_no_other(tmp_path: Path) -> None:
    """Unless it is like it."""
    some = [text(seed, 20) for seed in range(120)]
    before = split([documents(tmp_path / "a.jsonl", some[:100])], 0.1)
    after = split([documents(tmp_path / "b.jsonl", some)], 0.1)
    assert texts(before)[1] == texts(after)[1] & set(some[:100])


def test_near_duplicates_stay_together(tmp_path: Path) -> None:
    """On the side that the group goes to; with `apart` off copies alone do."""
    some = [changed(text(seed, 50), changes, seed=seed) for seed in range(40) for changes in (0, 1, 2)]
    some += [one.upper() for one in some]
    sides = split([documents(tmp_path / "a.jsonl", some)], 0.2)
    assert (sides.groups, len(sides.test) % 6) == (40, 0)
    assert 0 < len(sides.test) < 120
    assert texts(split([documents(tmp_path / "b.jsonl", some[::-1])], 0.2)) == texts(sides)
    loose = split([documents(tmp_path / "a.jsonl", some)], 0.2, apart=False)
    assert (loose.groups, len(loose.test) % 2) == (120, 0)
    assert {one.upper() for one in texts(loose)[1]} == {
        one.upper() for one in texts(loose)[1] if one.upper() in texts(loose)[1]
    }


@pytest.mark.parametrize("valid", [False, True])
def test_no_side_is_empty(tmp_path: Path, valid: bool) -> None:
    """However few there are."""
    for count in (2 + valid, 5):
        sides = split([documents(tmp_path / "a.jsonl", [text(seed, 20) for seed in range(count)])], 0.01, valid=valid)
        assert (len(sides.test), len(sides.valid), len(sides.train)) == (1, valid, count - 1 - valid)
        sides = split([tmp_path / "a.jsonl"], 0.49, valid=valid)
        assert min(len(sides.train), len(sides.test), len(sides.valid) or not valid) >= 1


def test_too_few_to_part_are_refused(tmp_path: Path) -> None:
    """Copies are one."""
    source = documents(tmp_path / "a.jsonl", [text(1), text(1).upper(), changed(text(1), 1)])
    with pytest.raises(DataError, match=r"1 group\(s\) that have to stay together, expected more than 1"):
        split([source])


@pytest.mark.parametrize(("share", "valid"), [(0, False), (1, False), (0.5, True), (-1, False)])
def test_a_share_leaves_something_to_train_on(tmp_path: Path, share: float, valid: bool) -> None:
    """And is above 0."""
    source = documents(tmp_path / "a.jsonl", [text(1), text(2), text(3), text(4)])
    with pytest.raises(ConfigError, match=f"the share is {share:g} for"):
        split([source], share, valid=valid)
