import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from moehub import base as bases
from moehub import files
from moehub.card import Federated, read_card
from moehub.cli import main
from moehub.merge.merging import Recipe, prepare
from tests.builders import tiny_expert

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")


@pytest.fixture
def law(tmp_path: Path, base_folder: Path) -> Path:
    return tiny_expert(tmp_path / "law", base_folder)


@pytest.fixture
def moe(tmp_path: Path, base_folder: Path, law: Path) -> Path:
    code = tiny_expert(tmp_path / "code", base_folder, name="code", rank=8, license="mit", seed=2)
    with prepare(Recipe(base=str(base_folder), experts=(str(law), str(code)))) as prepared:
        prepared.write(tmp_path / "moe")
    return tmp_path / "moe"


def inspect(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def facts(path: Path) -> dict[str, object]:
    report = json.loads(inspect(path, "--json").stdout)
    assert (report["path"], report["faults"]) == (str(path), [])
    found: dict[str, object] = {"kind": report["kind"], **report["facts"]}
    return found


def test_an_expert_is_its_card_its_files_and_its_statistics(law: Path) -> None:
    """As a program reads it."""
    found = facts(law)
    assert found["kind"] == "expert"
    assert found["card"] == json.loads(read_card(law).to_json())
    assert found["files"] == [
        {
            "name": path.name,
            "bytes": path.stat().st_size,
            "sha256": files.sha256(path),
            "verified": None if path.name == "expert.json" else True,
        }
        for path in sorted(law.iterdir())
    ]
    counted = found["statistics"]
    assert isinstance(counted, dict)
    assert (counted["tokens"], counted["pairs"]) == (read_card(law).stages[0].tokens, counted["tokens"] - 1)
    assert 0 < counted["distinct_tokens"] <= counted["tokens"]
    assert (counted["pair_bits"], counted["triple_bits"], counted["suppressed_below"]) == (10, 10, 0)
    assert 0 < counted["distinct_triple_buckets"] <= counted["tokens"]


def test_an_experts_page_says_what_a_person_asks_first(law: Path) -> None:
    """Whether it can be trusted, used, and with which base."""
    result = inspect(law)
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    for line in ("licence apache-2.0", "base tiny-llama", "rank, alpha 4, 8", "nothing suppressed"):
        assert line in words
    assert result.stdout.rstrip().endswith("every digest verified")
    assert max(map(len, result.stdout.splitlines()[1:])) <= 80


def test_a_changed_file_is_shown_and_fails(law: Path) -> None:
    """The report is printed all the same."""
    (law / "adapter_config.json").write_text("{}")
    result = inspect(law, "--json")
    report = json.loads(result.stdout)
    changed = [file["name"] for file in report["facts"]["files"] if file["verified"] is False]
    assert (result.exit_code, changed) == (1, ["adapter_config.json"])
    assert "Error: adapter_config.json was changed after publication" in result.stderr
    assert "CHANGED" in inspect(law).stdout


def test_an_expert_without_statistics_is_told_what_that_costs(law: Path) -> None:
    """It can be merged with `--router arrow` only."""
    card = json.loads((law / "expert.json").read_text())
    del card["files"]["router_stats.safetensors"]
    (law / "expert.json").write_text(files.to_json(card))
    (law / "router_stats.safetensors").unlink()
    result = inspect(law)
    assert result.exit_code == 0
    assert "the evidence router cannot use this expert" in result.stdout


def test_damaged_statistics_are_a_fault_and_no_traceback(law: Path) -> None:
    """A truncated file is reported twice: as changed, and as unreadable."""
    path = law / "router_stats.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    result = inspect(law)
    assert result.exit_code == 1
    assert "holds no router statistics" in result.stderr


def test_a_moe_is_its_base_its_experts_and_its_router(moe: Path, base_folder: Path) -> None:
    """Experts in canonical order, each with size, licence and digest."""
    found = facts(moe)
    base, experts, lock = found["base"], found["experts"], found["lock"]
    assert isinstance(base, dict)
    assert isinstance(experts, list)
    assert isinstance(lock, dict)
    assert (found["kind"], base["digest"]) == ("moe", bases.weights_digest(base_folder))
    assert [(one["name"], one["license"], one["rank"], one["verified"]) for one in experts] == [
        ("code", "mit", 8, True),
        ("law", "apache-2.0", 4, True),
    ]
    assert [one["card"] for one in experts] == [
        files.sha256(moe / "experts" / name / "expert.json") for name in ("code", "law")
    ]
    assert [one["name"] for one in lock["experts"]] == ["code", "law"]
    assert found["null"] is False


def test_a_moes_page_fits_eighty_columns(moe: Path) -> None:
    """Whatever long paths its experts came from."""
    result = inspect(moe)
    assert "no: experts answer on any text" in result.stdout
    assert max(map(len, result.stdout.splitlines()[1:])) <= 80


def test_a_swapped_expert_in_a_moe_fails(moe: Path, base_folder: Path) -> None:
    """An expert that fits its own card is not enough."""
    tiny_expert(moe / "experts" / "law", base_folder, seed=9)
    result = inspect(moe)
    assert result.exit_code == 1
    assert "law is not the expert that was merged" in result.stderr


def test_a_missing_expert_in_a_moe_fails(moe: Path) -> None:
    """And the others are still shown."""
    (moe / "experts" / "law" / "expert.json").unlink()
    result = inspect(moe)
    assert result.exit_code == 1
    assert "verified" in result.stdout


def test_a_base_is_its_architecture_and_digests(base_folder: Path) -> None:
    """With the number of parameters that are stored."""
    found = facts(base_folder)
    model = bases.find(str(base_folder)).load_model()
    assert found["kind"] == "base"
    assert (found["architecture"], found["context"], found["vocabulary"]) == ("llama", 256, 320)
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["digest"] == bases.weights_digest(base_folder)


def test_anything_else_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    """An empty folder is nothing; a path that does not exist is bad usage."""
    result = inspect(tmp_path)
    assert (result.exit_code, "expected a folder made by" in result.stderr) == (1, True)
    assert inspect(tmp_path / "none").exit_code == 2


def test_an_expert_that_many_trained_says_so(law: Path) -> None:
    """How many, how often, and by what aggregation; one contributor's expert says that."""
    assert "one contributor" in inspect(law).stdout
    card = read_card(law)
    together = dataclasses.replace(card, federation=Federated(3, 2, "ffa", ("St Mary",), 4.25, 1e-5))
    (law / "expert.json").write_text(together.to_json(), encoding="utf-8")
    assert "3 contributors together (St Mary), 2 rounds, ffa, ε = 4.25 at δ = 1e-05" in " ".join(
        inspect(law).stdout.split()
    )
