import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moehub.errors import HubError
from moehub.hub import seen

HUB = "https://hub.example.org"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of this test alone."""
    monkeypatch.setenv("MOEHUB_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_the_highest_version_is_remembered_for_each_hub_and_repo() -> None:
    """A lower one changes nothing."""
    for hub, repo, version in ((HUB, "acme/law", 2), (HUB, "acme/law", 3), (HUB, "acme/law", 1), ("other", "a/b", 9)):
        seen.remember(hub, repo, version)
    asked = ((HUB, "acme/law"), ("other", "a/b"), ("other", "acme/law"), (HUB, "acme/code"))
    assert [seen.highest(*one) for one in asked] == [3, 9, None, None]


def test_upper_and_lower_case_are_one() -> None:
    """A hub that takes Acme for acme does not get around it."""
    seen.remember(HUB, "Acme/law", 2)
    assert seen.highest(HUB, "acme/LAW") == 2


def test_asking_makes_nothing(state: Path) -> None:
    """Nobody who only reads gets a folder."""
    assert (seen.highest(HUB, "acme/law"), state.exists()) == (None, False)


def test_the_file_is_strict_json(state: Path) -> None:
    """As documented."""
    seen.remember(HUB, "acme/law", 2)
    values = json.loads((state / "versions.json").read_text())
    assert values == {"format": 1, "versions": {HUB: {"acme/law": 2}}}


def test_many_at_once_lose_nothing() -> None:
    """Each adds its own, and keeps those of others."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: seen.remember(HUB, f"acme/x{number}", number), range(1, 33)))
    assert [seen.highest(HUB, f"acme/x{number}") for number in range(1, 33)] == list(range(1, 33))


def test_nothing_new_is_not_written(state: Path) -> None:
    """A pull of what is known leaves the file alone."""
    seen.remember(HUB, "acme/law", 2)
    before = (state / "versions.json").stat()
    seen.remember(HUB, "acme/law", 2)
    seen.remember(HUB, "acme/law", 1)
    after = (state / "versions.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_higher_version_that_came_in_between_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else saw version 3 after we looked, and before it was our turn."""
    seen.remember(HUB, "acme/law", 3)
    read, before = seen._read, [dict[str, dict[str, int]]()]
    monkeypatch.setattr(seen, "_read", lambda path: before.pop() if before else read(path))
    seen.remember(HUB, "acme/law", 2)
    assert seen.highest(HUB, "acme/law") == 3


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"format": 2, "versions": {}}',
        '{"format": 1, "versions": []}',
        '{"format": 1, "versions": {"hub": []}}',
        '{"format": 1, "versions": {"hub": {"acme/law": "3"}}}',
        '{"format": 1, "versions": {"hub": {"acme/law": true}}}',
        '{"format": 1, "versions": {}, "more": 1}',
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_never_taken_for_nothing_seen(state: Path, content: str) -> None:
    """Whoever damages it would make a replay possible."""
    state.mkdir()
    (state / "versions.json").write_text(content)
    with pytest.raises(HubError, match=r"versions\.json is damaged"):
        seen.highest(HUB, "acme/law")
    with pytest.raises(HubError, match=r"versions\.json is damaged"):
        seen.remember(HUB, "acme/law", 1)


def test_what_cannot_be_remembered_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said once each time, with the variable that cures it."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MOEHUB_STATE", str(tmp_path / "file" / "state"))
    seen.remember(HUB, "acme/law", 1)
    assert "MOEHUB_STATE" in capsys.readouterr().err
    assert seen.highest(HUB, "acme/law") is None
    assert "MOEHUB_STATE" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_stops_nothing(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in a read-only home."""
    state.mkdir(mode=0o500)
    seen.remember(HUB, "acme/law", 1)
    assert "MOEHUB_STATE" in capsys.readouterr().err


def test_the_default_is_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the variable names nothing."""
    monkeypatch.delenv("MOEHUB_STATE")
    monkeypatch.setenv("HOME", str(tmp_path))
    seen.remember(HUB, "acme/law", 1)
    assert (tmp_path / ".local" / "state" / "moehub" / "versions.json").is_file()
