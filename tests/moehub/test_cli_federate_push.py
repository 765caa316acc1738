import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from moehub.card import Federated, read_card
from moehub.cli import main
from moehub.hub import open_hub
from tests.published import paper_card, paper_expert

TOGETHER = Federated(3, 2, "ffa", contributors=("St Mary",))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A federation that finished two experts, beside what else a run leaves."""
    for name in ("code", "law"):
        paper_expert(tmp_path / "run" / "experts" / name, paper_card(name, federation=TOGETHER))
    (tmp_path / "run" / "experts" / ".law.abc").mkdir()
    (tmp_path / "run" / "journal.jsonl").touch()
    return tmp_path / "run"


def push(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["federate", "push", *map(str, arguments)])


def test_every_finished_expert_is_published_with_its_provenance(output: Path, tmp_path: Path) -> None:
    """One repo each; the card that arrives says who trained it, and nothing of the run travels."""
    done = push(output, "acme", "--hub", tmp_path / "hub", "--json")
    assert done.exit_code == 0, done.output
    assert [one["repo"] for one in json.loads(done.stdout)] == ["acme/code", "acme/law"]
    hub = open_hub(str(tmp_path / "hub"))
    assert [one.repo for one in hub.experts()] == ["acme/code", "acme/law"]
    hub.pull("acme/law", None, tmp_path / "law")
    assert read_card(tmp_path / "law").federation == TOGETHER
    assert "among them St Mary" in (tmp_path / "law" / "README.md").read_text()


def test_the_same_experts_again_make_no_new_commit(output: Path, tmp_path: Path) -> None:
    """A push that was interrupted can be made again."""
    first = push(output, "acme", "--hub", tmp_path / "hub").stdout
    assert first.count("\n") == 4
    assert push(output, "acme", "--hub", tmp_path / "hub").stdout == first


def test_a_dry_run_sends_nothing(output: Path, tmp_path: Path) -> None:
    """It says what would be sent."""
    done = push(output, "acme", "--hub", tmp_path / "hub", "--dry-run")
    assert (done.exit_code, done.stdout.count("would push")) == (0, 2)
    assert not (tmp_path / "hub").exists()


def test_one_damaged_expert_keeps_all_at_home(output: Path, tmp_path: Path) -> None:
    """Everything is checked before the first is sent."""
    card = read_card(output / "experts" / "law")
    (output / "experts" / "law" / "expert.json").write_text(
        dataclasses.replace(card, files={**card.files, "adapter_model.safetensors": "0" * 64}).to_json()
    )
    done = push(output, "acme", "--hub", tmp_path / "hub")
    assert (done.exit_code, "was changed after publication" in done.stderr) == (1, True)
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    ("organisation", "sentence"), [("a/b", "cannot name a repo"), ("..", "cannot name a repo"), ("", "cannot name")]
)
def test_what_is_no_organisation_is_refused(output: Path, tmp_path: Path, organisation: str, sentence: str) -> None:
    """Before anything is sent."""
    done = push(output, organisation, "--hub", tmp_path / "hub")
    assert (done.exit_code, sentence in done.stderr) == (1, True)
    assert not (tmp_path / "hub").exists()


def test_a_run_without_finished_experts_says_so(tmp_path: Path) -> None:
    """With where to look."""
    done = push(tmp_path, "acme", "--hub", tmp_path / "hub")
    assert (done.exit_code, "holds no finished expert" in done.stderr) == (1, True)
