"""The YAML files that people write, and the flat keys that Flower carries."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from moehub.errors import ConfigError
from moehub.experts.settings import TrainConfig
from moehub.federation.settings import (
    FROZEN_A,
    FederationConfig,
    NodeConfig,
    flatten,
    read_federation,
    read_gathering,
    unflatten,
)

WHOLE = """
base: org/tiny
rounds: 5
aggregation: product
domains: [law, code]
train:
  rank: 4
  learning_rate: 1e-4
nodes:
  - domain: law
    data: law.txt
    name: berlin
    credit: true
  - domain: code
    data: [code.txt, /absolute.txt]
    rank: 2
"""


def written(folder: Path, text: str) -> Path:
    """Write a nodes.yaml and the files that it names."""
    for name in ("law.txt", "code.txt"):
        (folder / name).write_text("text")
    file = folder / "nodes.yaml"
    file.write_text(text.replace("/absolute.txt", str(folder / "law.txt")))
    return file


def test_a_gathering_is_read_whole(tmp_path: Path) -> None:
    """Settings and nodes, with data relative to the file."""
    found = read_gathering(written(tmp_path, WHOLE))
    assert found.federation == FederationConfig(
        base="org/tiny",
        rounds=5,
        aggregation="product",
        domains=("law", "code"),
        train=TrainConfig(rank=4, learning_rate=1e-4),
    )
    assert found.nodes == (
        NodeConfig("law", (tmp_path / "law.txt",), name="berlin", credit=True),
        NodeConfig("code", (tmp_path / "code.txt", tmp_path / "law.txt"), rank=2),
    )


def test_options_override_the_file_and_none_does_not(tmp_path: Path) -> None:
    """As `--rounds` on the command line."""
    file = written(tmp_path, WHOLE)
    assert read_federation(file, rounds=9, base=None).rounds == 9
    assert read_federation(file, rounds=None, base="other").base == "other"


def test_a_base_beside_the_file_is_found(tmp_path: Path) -> None:
    """A folder's name becomes its path; what is no folder is a reference on a hub."""
    (tmp_path / "tiny").mkdir()
    file = written(tmp_path, "base: tiny")
    assert read_federation(file).base == str(tmp_path / "tiny")
    assert read_federation(written(tmp_path, "base: org/tiny")).base == "org/tiny"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("base: x\nnodes: []", "names no nodes"),
        ("base: x\nnodes: 3", "names no nodes"),
        ("base: x", "names no nodes"),
        ("base: x\nnodes: [{domain: law}]", "missing key 'data'"),
        ("base: x\nnodes: [{domain: law, data: law.txt, more: 1}]", "unknown key 'more'"),
        ("base: x\nnodes: [{domain: Law!, data: law.txt}]", "domain 'Law!' cannot be used"),
        ("base: x\nnodes: [{domain: law, data: none.txt}]", "there is no file"),
        (
            "base: x\nnodes: [{domain: a, data: law.txt, name: n}, {domain: b, data: law.txt, name: n}]",
            "several nodes n",
        ),
        ("base: x\nsize: 3\nnodes: [{domain: law, data: law.txt}]", "unknown key 'size'"),
        ("base: x\ntrain: {max_steps: 3}\nnodes: [{domain: law, data: law.txt}]", "a federation sets `rounds`"),
        ("base: x\ntrain: {rank: 0}\nnodes: [{domain: law, data: law.txt}]", "rank = 0"),
        ("rounds: 2\nnodes: [{domain: law, data: law.txt}]", "missing key 'base'"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """With what is wrong and where."""
    with pytest.raises(ConfigError, match=reason):
        read_gathering(written(tmp_path, text))


@pytest.mark.parametrize(
    "changes",
    [
        {"rounds": 0},
        {"steps": 0},
        {"malicious": -1},
        {"proximal": -0.1},
        {"proximal": float("inf")},
        {"noise": -1.0},
        {"noise": 1.0, "aggregation": "product"},
        {"noise_clip": 0.0},
        {"server_rate": 0.0},
        {"server_rate": 2.0, "noise": 1.0},
        {"delta": 0.0},
        {"delta": 1.0},
        {"min_nodes": 0},
        {"quorum": 0.0},
        {"quorum": 1.1},
        {"deadline": 0.0},
        {"deadline": float("inf")},
        {"retries": -1},
        {"wait": -1.0},
        {"domains": ("Law!",)},
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    """The fault names the setting."""
    (name, *_) = changes
    with pytest.raises(ConfigError, match="domain" if name == "domains" else f"{name} = "):
        FederationConfig(base="x", **changes)


def test_counts_with_noise_are_refused() -> None:
    """Nodes' counts are added, so their noise would be too."""
    with pytest.raises(ConfigError, match=r"train\.private = 3, expected 0"):
        FederationConfig(base="x", train=TrainConfig(private=3.0))


def test_all_faults_are_reported_at_once() -> None:
    """One run of the command shows everything that is to be mended."""
    with pytest.raises(ConfigError) as caught:
        FederationConfig(base="x", rounds=0, quorum=2.0, domains=("A", "B"))
    assert len(str(caught.value).splitlines()) == 5


CHANGED: list[dict[str, Any]] = [
    {},
    {"rounds": 7, "quorum": 0.75, "clip": False, "aggregation": "krum", "domains": ("law", "code")},
    {"train": TrainConfig(context_length=512, targets=("q_proj", "v_proj"), dtype="bfloat16", seed=2**32 - 1)},
    {"base": "/a/folder", "delta": 1e-7, "noise": 1.5},
]


@pytest.mark.parametrize("changes", CHANGED)
def test_settings_travel_flat_and_come_back(changes: dict[str, Any]) -> None:
    """Flower carries plain values alone; nothing is lost, and keys of others are passed over."""
    settings = FederationConfig(**{"base": "org/x", **changes})
    flat = flatten(settings)
    assert {type(value) for value in flat.values()} <= {str, int, float, bool}
    assert unflatten({**flat, "form": "{}", "output": "", "train.strange": 1}) == settings


def test_every_setting_of_a_training_but_its_length_travels() -> None:
    """A federation sets rounds and steps; all else is the expert's."""
    names = {name.removeprefix("train.") for name in flatten(FederationConfig(base="x")) if name.startswith("train.")}
    every = {each.name for each in dataclasses.fields(TrainConfig)}
    assert every - names == {"max_steps", "epochs", "save_every", "context_length"}  # the last is not set by default


@pytest.mark.parametrize("changes", [{"rounds": "many"}, {"train.rank": 0}, {"quorum": 3.0}])
def test_flat_settings_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    """A person may have changed the bundle."""
    with pytest.raises(ConfigError):
        unflatten({**flatten(FederationConfig(base="x")), **changes})


def test_robust_aggregations_and_ffa_freeze_a() -> None:
    """Averaging A and B apart from each other is wrong; `fedavg` does it for comparison, `product` need not."""
    frozen = {
        name
        for name in ("ffa", "product", "fedavg", "median", "trimmed", "krum", "multikrum")
        if FederationConfig(base="x", aggregation=name).frozen_a
    }
    assert frozen == set(FROZEN_A) == {"ffa", "median", "trimmed", "krum", "multikrum"}


def test_the_page_lists_every_setting_with_its_default() -> None:
    """A person finds all of them in one table."""
    page = (Path(__file__).parents[2] / "docs" / "federation.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    told = {name.strip(" `"): default.strip(" `") for name, default in rows}
    for field in dataclasses.fields(FederationConfig):
        default = told[field.name]
        if default != "–":
            assert yaml.safe_load(default.replace("1e-5", "1.0e-5")) == field.default, field.name
