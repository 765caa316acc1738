import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from moehub.base import weights_digest
from moehub.card import BasePin
from moehub.cli import main
from moehub.hub.folder import FolderHub
from tests.published import paper_card, paper_expert


@pytest.fixture
def hub(tmp_path: Path, base_folder: Path) -> FolderHub:
    """Three experts: two of one base on a hub, one of a base in a folder, without metrics."""
    made = FolderHub(tmp_path / "hub")
    local = BasePin(base_folder.name, weights_digest(base_folder), "e" * 64)
    for name, card in (
        ("law", paper_card("law")),
        ("code", paper_card("code")),
        ("math", paper_card("math", base=local, metrics=None)),
    ):
        made.push(paper_expert(tmp_path / name, card), f"acme/{name}", message="x")
    return made


def listed(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["list", *map(str, arguments)])


def test_the_table_shows_repo_domain_base_licence_and_losses(hub: FolderHub) -> None:
    """One line each, in the order of the repos."""
    lines = listed("--hub", hub.root).stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["repo", "domain", "base", "licence", "loss", "base's"],
        ["acme/code", "code", "acme/base", "apache-2.0", "4.000", "5.000"],
        ["acme/law", "law", "acme/base", "apache-2.0", "4.000", "5.000"],
        ["acme/math", "math", "tiny-llama", "apache-2.0", "-", "-"],
    ]


def test_long_names_are_folded_into_eighty_columns(hub: FolderHub, tmp_path: Path) -> None:
    """No terminal is too narrow, and nothing is cut off."""
    name = "a-name-as-long-as-a-repo-may-have-on-every-hub-that-there-is-today-and-then-some"
    hub.push(paper_expert(tmp_path / "long", paper_card("long")), f"acme/{name}", message="x")
    output = listed("--hub", hub.root).stdout
    assert max(map(len, output.splitlines())) <= 80
    folded = "".join(line[:40].split("  ")[0].strip() for line in output.splitlines())
    assert name in folded


def test_json_holds_all_there_is_to_know(hub: FolderHub) -> None:
    """Also what the table has no room for."""
    printed = json.loads(listed("--hub", hub.root, "--json").stdout)
    assert [entry["repo"] for entry in printed] == ["acme/code", "acme/law", "acme/math"]
    assert printed[0] == {
        "repo": "acme/code",
        "name": "code",
        "domain": "code",
        "base": {"reference": "acme/base", "revision": "c" * 40, "digest": "d" * 64, "tokenizer": "e" * 64},
        "license": "apache-2.0",
        "commit": hub.pull("acme/code", None, hub.root.parent / "got"),
        "metrics": {"base_loss": 5.0, "expert_loss": 4.0, "tokens": 100},
    }


def test_a_base_keeps_its_own_experts(hub: FolderHub) -> None:
    """By its name on the hub."""
    printed = json.loads(listed("--hub", hub.root, "--base", "acme/base", "--json").stdout)
    assert [entry["name"] for entry in printed] == ["code", "law"]


def test_a_base_on_disk_is_known_by_its_digest(hub: FolderHub, base_folder: Path, tmp_path: Path) -> None:
    """Whatever its folder is called here."""
    renamed = tmp_path / "mine"
    renamed.symlink_to(base_folder)
    printed = json.loads(listed("--hub", hub.root, "--base", renamed, "--json").stdout)
    assert [entry["name"] for entry in printed] == ["math"]


def test_an_empty_list_says_so_and_prints_no_result(hub: FolderHub) -> None:
    """Standard output stays empty, or an empty list for programs."""
    result = listed("--hub", hub.root, "--base", "acme/other")
    assert (result.exit_code, result.stdout) == (0, "")
    assert " ".join(result.stderr.split()).endswith("offers no experts of acme/other")
    assert json.loads(listed("--hub", hub.root, "--base", "acme/other", "--json").stdout) == []
