from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moehub import config
from moehub.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """One field of every kind."""

    count: int
    rate: float = 0.5
    name: str = "a"
    flag: bool = False
    kind: Literal["x", "y"] = "x"
    limit: int | None = None
    names: tuple[str, ...] = ()
    either: str | tuple[str, ...] = "all"
    rates: list[float] = field(default_factory=list)
    table: dict[str, int] = field(default_factory=dict)
    place: Path = Path()
    anything: Any = None


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        ({"rate": 1}, "rate", 1.0),
        ({"rate": "1e-4"}, "rate", 1e-4),
        ({"limit": 3}, "limit", 3),
        ({"limit": None}, "limit", None),
        ({"names": ["a", "b"]}, "names", ("a", "b")),
        ({"either": "all"}, "either", "all"),
        ({"either": ["a"]}, "either", ("a",)),
        ({"rates": [1, "2e-1"]}, "rates", [1.0, 0.2]),
        ({"table": {"a": 1}}, "table", {"a": 1}),
        ({"place": "x/y"}, "place", Path("x/y")),
        ({"anything": {"a": [1]}}, "anything", {"a": [1]}),
    ],
)
def test_values_become_what_the_annotation_says(values: dict[str, Any], name: str, expected: object) -> None:
    """Numbers, tuples and paths are converted; what fits is kept."""
    value = getattr(config.from_mapping(Settings, {"count": 1, **values}, source="here"), name)
    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"count": 1.5}, "count = 1.5, expected an integer"),
        ({"count": True}, "count = True, expected an integer"),
        ({"count": "1"}, "count = '1', expected an integer"),
        ({"rate": "quick"}, "rate = 'quick', expected a number"),
        ({"rate": True}, "rate = True, expected a number"),
        ({"flag": 1}, "flag = 1, expected true or false"),
        ({"name": 1}, "name = 1, expected a text"),
        ({"kind": "z"}, "kind = 'z', expected one of 'x', 'y'"),
        ({"limit": "3"}, "limit = '3', expected an integer or nothing"),
        ({"names": "a"}, "names = 'a', expected a list of a text"),
        ({"names": [1]}, "names = [1], expected a list of a text"),
        ({"table": {"a": "1"}}, "expected a mapping"),
        ({"place": 3}, "place = 3, expected Path"),
        ({"coutn": 1}, "unknown key 'coutn'; known keys are anything, count, either"),
    ],
)
def test_wrong_values_are_named_with_what_was_expected(values: dict[str, Any], fault: str) -> None:
    """The value, the key and the kind are in the sentence."""
    with pytest.raises(ConfigError) as caught:
        config.from_mapping(Settings, {"count": 1, **values}, source="here")
    assert fault in str(caught.value)


def test_all_faults_are_reported_at_once() -> None:
    """Unknown, mistyped and missing keys are in one error, which says where they stood."""
    with pytest.raises(ConfigError) as caught:
        config.from_mapping(Settings, {"rate": "x", "b": 1}, source="train.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "train.yaml does not fit Settings:"
    assert [line.split()[1] for line in lines[1:]] == ["unknown", "rate", "missing"]


@pytest.mark.parametrize("values", [["count"], "count", 3, None])
def test_what_is_no_mapping_is_refused(values: Any) -> None:
    """A stranger's file may hold anything."""
    with pytest.raises(ConfigError, match=r"here holds .*, expected `key: value`"):
        config.from_mapping(Settings, values, source="here")


def test_command_line_goes_before_the_file(tmp_path: Path) -> None:
    """The file goes before the defaults, and `--set` before the file; its values are YAML."""
    file = tmp_path / "train.yaml"
    file.write_text("count: 1\nrate: 1e-3\n")
    loaded = config.load(Settings, file, ["count=2", "names=[a, b]", "flag=true", "name=a=b", "limit=null"])
    assert loaded == Settings(2, rate=1e-3, names=("a", "b"), flag=True, name="a=b")


def test_empty_file_sets_nothing(tmp_path: Path) -> None:
    """Comments alone are no settings."""
    file = tmp_path / "train.yaml"
    file.write_text("# nothing\n")
    assert config.load(Settings, file, ["count=1"]) == Settings(1)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"count: [", "cannot read the settings in"),
        (b"\xff\xfe", "cannot read the settings in"),
        (b"- count", "holds a list, expected `key: value` lines"),
        (b"count: !!python/object/apply:os.system ['true']", "cannot read the settings in"),
    ],
)
def test_unreadable_file_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    """Broken YAML, another encoding, a list, and YAML that wants to run something."""
    file = tmp_path / "train.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        config.load(Settings, file)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """The sentence names it."""
    with pytest.raises(ConfigError, match=r"cannot read the settings in .*nowhere\.yaml"):
        config.load(Settings, tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("assignment", ["count", "=1", "count=[", "count={a"])
def test_faulty_assignment_is_refused(assignment: str) -> None:
    """The sentence shows the assignment as it was written."""
    with pytest.raises(ConfigError) as caught:
        config.load(Settings, assignments=[assignment])
    assert repr(assignment) in str(caught.value)


@given(
    count=st.integers(),
    rate=st.floats(allow_nan=False, allow_infinity=False),
    name=st.text(),
    names=st.lists(st.text(max_size=5)).map(tuple),
    limit=st.none() | st.integers(),
)
def test_settings_survive_being_written_and_read(
    count: int, rate: float, name: str, names: tuple[str, ...], limit: int | None
) -> None:
    """The fields of a dataclass make that dataclass again."""
    settings = Settings(count, rate, name, names=names, limit=limit)
    assert config.from_mapping(Settings, vars(settings), source="here") == settings
