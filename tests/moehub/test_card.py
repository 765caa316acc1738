import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moehub import card as cards
from moehub import files
from moehub.card import BasePin, Card, Federated, Metrics, Stage
from moehub.errors import ExpertError

CARD = Card(
    name="law",
    domain="law",
    base=BasePin("org/base", "d" * 64, "t" * 64, "abc"),
    rank=8,
    alpha=16.0,
    targets=("q_proj", "v_proj"),
    license="mit",
    stages=(Stage("pretrain", 100, 2, 3, 0.5), Stage("sft", 50, 1, 2, 0.25)),
    metrics=Metrics(2.5, 2.0, 10),
    files={"adapter_config.json": "a" * 64, "adapter_model.safetensors": "b" * 64},
    version=3,
    packages={"torch": "2.13.0"},
)


def _values(**changes: Any) -> dict[str, Any]:
    return {**json.loads(CARD.to_json()), **changes}


@given(
    name=st.from_regex(cards.NAME, fullmatch=True).filter(lambda name: name != "null"),
    alpha=st.floats(0.1, 1e6),
    targets=st.lists(st.text(min_size=1, max_size=8), max_size=4).map(tuple),
    metrics=st.none() | st.builds(Metrics, st.floats(0, 99), st.floats(0, 99), st.integers(1, 10**9)),
    version=st.integers(1, 10**6),
    federation=st.none()
    | st.builds(
        Federated,
        st.integers(1, 1000),
        st.integers(1, 99),
        st.sampled_from(["ffa", "product"]),
        st.lists(st.text(max_size=8), max_size=3).map(tuple),
        st.none() | st.floats(0, 99),
    ),
)
def test_card_is_written_and_read_back(federation: Federated | None, **changes: Any) -> None:
    """JSON holds all of a card, with its kinds."""
    card = dataclasses.replace(CARD, federation=federation, **changes)
    assert cards.parse_card(json.loads(card.to_json()), source="here") == card


@pytest.mark.parametrize("name", ["a", "law", "c", "law.v2_old-1", "0", "x" * 64])
def test_plain_names_are_allowed(name: str) -> None:
    """Lower-case letters, digits, dots, dashes and underscores."""
    assert cards.check_name("name", name) == name


@pytest.mark.parametrize(
    "name", ["", "Law", "a b", "..", ".law", "law.", "-law", "a/b", "a\\b", "null", "ü", "a\n", "x" * 65, "law\0"]
)
def test_names_that_could_be_paths_or_markup_are_refused(name: str) -> None:
    """Names become folder names, tensor names and tags."""
    with pytest.raises(ExpertError, match="cannot be used: at most 64 lower-case"):
        cards.check_name("name", name)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 2}, "has format 2, this moehub reads format 1: update moehub"),
        ({"name": "../law"}, "name '../law' cannot be used"),
        ({"domain": "LAW"}, "domain 'LAW' cannot be used"),
        ({"code": "import os"}, "unknown key 'code'"),
        ({"rank": "8"}, "rank = '8', expected an integer"),
        ({"files": {"a": 3}}, "files = {'a': 3}, expected a mapping"),
        ({"base": {"reference": "x"}}, "missing key 'digest'"),
        ({"base": "org/base"}, "base = 'org/base', expected BasePin"),
        ({"federation": {"nodes": "ten"}}, "nodes = 'ten', expected an integer"),
        ({"stages": [{"kind": 1}]}, "kind = 1, expected a text"),
        ({"stages": [3]}, "holds 3, expected `key: value`"),
        ({"stages": ["x"]}, "holds 'x', expected `key: value`"),
        ({"stages": None}, "stages = None, expected a list of Stage"),
        ({"metrics": [1]}, "metrics = [1], expected Metrics or nothing"),
    ],
)
def test_faulty_card_is_refused(changes: dict[str, Any], sentence: str) -> None:
    """A stranger's card is read strictly, and whatever is wrong is an ExpertError."""
    with pytest.raises(ExpertError) as caught:
        cards.parse_card(_values(**changes), source="here")
    assert sentence in str(caught.value)


@pytest.mark.parametrize("values", [[], "card", 3, None])
def test_what_is_no_card_at_all_is_refused(values: Any) -> None:
    """Any JSON value may stand in the file."""
    with pytest.raises(ExpertError, match="expected a mapping"):
        cards.parse_card(values, source="here")


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b"1" * 5000, b""])
def test_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """Cut off, in another encoding, nested without end, a number without end, empty."""
    (tmp_path / "expert.json").write_bytes(content)
    with pytest.raises(ExpertError, match="is damaged"):
        cards.read_card(tmp_path)


def test_a_card_without_end_is_not_read(tmp_path: Path) -> None:
    """A file of more bytes than any card has is refused by its size."""
    with (tmp_path / "expert.json").open("wb") as file:
        file.truncate(cards.LARGEST_TEXT + 1)
    with pytest.raises(ExpertError, match="which no card has"):
        cards.read_card(tmp_path)


def test_folder_without_card_is_no_expert(tmp_path: Path) -> None:
    """The sentence says how one is made."""
    with pytest.raises(ExpertError, match=r"is no expert: it has no expert\.json"):
        cards.read_card(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose files are those that the card in it pins."""
    for name in ("adapter_config.json", "adapter_model.safetensors", "router_stats.safetensors"):
        (tmp_path / name).write_text(name)
    pinned = {path.name: files.sha256(path) for path in tmp_path.iterdir()}
    (tmp_path / "expert.json").write_text(dataclasses.replace(CARD, files=pinned).to_json())
    (tmp_path / "README.md").write_text("# law")
    return tmp_path


def test_folder_as_its_card_says_has_no_faults(folder: Path) -> None:
    """The README may be edited, and hidden files are the system's."""
    (folder / "README.md").write_text("my own words")
    (folder / ".DS_Store").touch()
    assert cards.folder_faults(folder, cards.read_card(folder)) == []


def _unpin(folder: Path, name: str) -> None:
    card = cards.read_card(folder)
    pinned = {key: value for key, value in card.files.items() if key != name}
    (folder / "expert.json").write_text(dataclasses.replace(card, files=pinned).to_json())


def _pin(folder: Path, name: str) -> None:
    card = cards.read_card(folder)
    (folder / "expert.json").write_text(dataclasses.replace(card, files={**card.files, name: "0" * 64}).to_json())


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "adapter_model.safetensors").write_text("other"), "was changed after publication"),
        (lambda folder: (folder / "router_stats.safetensors").unlink(), "router_stats.safetensors is missing"),
        (lambda folder: (folder / "training_args.bin").touch(), "training_args.bin does not belong"),
        (lambda folder: (folder / "sub").mkdir(), "sub does not belong"),
        (lambda folder: (folder / "extra").symlink_to("nowhere"), "extra is a link that leads nowhere"),
        (lambda folder: _unpin(folder, "adapter_config.json"), "does not pin adapter_config.json"),
        (lambda folder: _unpin(folder, "router_stats.safetensors"), "does not pin router_stats.safetensors"),
        (lambda folder: _pin(folder, "../secret"), "pins '../secret', which does not belong"),
    ],
)
def test_every_fault_of_a_folder_is_found(folder: Path, damage: Callable[[Path], Any], sentence: str) -> None:
    """Changed, missing, foreign and unpinned files, and cards that reach outside."""
    damage(folder)
    assert [fault for fault in cards.folder_faults(folder, cards.read_card(folder)) if sentence in fault]
