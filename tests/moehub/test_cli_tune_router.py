import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from moehub import files
from tests.moehub.conftest import CODE, LAW, Run, Small

FEW = tuple(
    f"--set={setting}"
    for setting in ("max_steps=8", "measurements=8", "batch_size=4", "learning_rate=0.02", "holdout=0.3")
)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty documents."""
    path = tmp_path_factory.mktemp("proxy") / "proxy.jsonl"
    texts = [((LAW if number % 2 else CODE) * 4)[number : number + 90] for number in range(20)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def words(text: str) -> str:
    return " ".join(text.split())


def tuned(run: Run, moe: Path, proxy: Path, *more: object) -> dict[str, Any]:
    result = run("tune-router", moe, "--data", proxy, *FEW, "--json", *more)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def folder(small: Small, run: Run, proxy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small MoE, tuned."""
    output = tmp_path_factory.mktemp("tuned") / "tuned"
    assert tuned(run, small.moe, proxy, "--output", output)["kept"]
    return output


def test_a_table_says_what_came_of_it_and_what_it_costs(small: Small, run: Run, proxy: Path, tmp_path: Path) -> None:
    """Losses before and now, the numbers, and that removal is no longer exact; on 80 columns."""
    result = run("tune-router", small.moe, "--data", proxy, "--output", tmp_path / "moe", *FEW)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    said = words(result.output)
    for phrase in ("held-out loss before", "held-out loss now", "kappa", "rho", "step ", "taken out exactly"):
        assert phrase in said
    assert "Compare: moehub eval" in said


def test_json_has_the_losses_and_the_numbers(small: Small, run: Run, proxy: Path, tmp_path: Path) -> None:
    """Never worse than at the start."""
    found = tuned(run, small.moe, proxy, "--output", tmp_path / "moe")
    assert found["after"] <= found["before"]
    of_evidence = {"kappa", "pair_weight", "triple_weight", "null_margin"}
    assert set(found["numbers"]) == {"rho", "calm_rho", "pace_change", *of_evidence}


def test_a_dry_run_writes_nothing(small: Small, run: Run, proxy: Path, tmp_path: Path) -> None:
    """It says what would be learned from what."""
    result = run("tune-router", small.moe, "--data", proxy, "--output", tmp_path / "moe", *FEW, "--dry-run")
    assert result.exit_code == 0, result.output
    # 6 numbers (what stands at 0 is left alone), and for each of 2 experts and the null expert a bias and 32 weights
    assert "would learn 105 numbers of the gate from 20 examples" in words(result.stdout)
    assert list(tmp_path.iterdir()) == []
    preview = run("tune-router", small.moe, "--data", proxy, "--output", tmp_path / "moe", "--dry-run", "--json")
    assert json.loads(preview.stdout)["learned"] == 105


def test_a_round_among_contributors(small: Small, run: Run, proxy: Path, tmp_path: Path) -> None:
    """Two updates, a table of who counts how much, a MoE."""
    for name, seed in (("a", 0), ("b", 1)):
        tuned(run, small.moe, proxy, "--update", tmp_path / name, "--set", f"seed={seed}")
    updates = ("--average", tmp_path / "a", "--average", tmp_path / "b")
    result = run("tune-router", small.moe, *updates, "--output", tmp_path / "moe")
    assert result.exit_code == 0, result.output
    assert result.stdout.count(" %") == 2
    assert "The next round starts from it: moehub tune-router" in words(result.output)
    again = run("tune-router", small.moe, *updates, "--output", tmp_path / "moe", "--overwrite", "--json")
    assert [one["share"] for one in json.loads(again.stdout)["updates"]] == pytest.approx([0.5, 0.5], abs=0.1)
    assert "by 2 contributors, each on its own text" in (tmp_path / "moe" / "README.md").read_text(encoding="utf-8")


def test_a_moe_is_overwritten_only_on_demand(small: Small, run: Run, proxy: Path, folder: Path, tmp_path: Path) -> None:
    """Before anything is trained; with --overwrite also over itself."""
    result = run("tune-router", small.moe, "--data", proxy, "--output", small.moe, *FEW)
    assert result.exit_code == 1
    assert "is a MoE already: --overwrite replaces it" in words(result.output)
    place = shutil.copytree(small.moe, tmp_path / "moe")
    tuned(run, place, proxy, "--output", place, "--overwrite")
    assert files.sha256(place / "tuned.safetensors") == files.sha256(folder / "tuned.safetensors")


def test_merge_is_honest_about_a_tuned_moe(small: Small, run: Run, folder: Path, tmp_path: Path) -> None:
    """Changing it and making it again are refused with the cure, and the cure brings back every byte."""
    place = shutil.copytree(folder, tmp_path / "moe")
    result = run("merge", "--into", place, "--remove", "law")
    assert result.exit_code == 1
    assert "With --untuned the tuning is dropped" in words(result.output)
    result = run("merge", place / "merge.lock", "--output", tmp_path / "again")
    assert result.exit_code == 1
    assert "stands in its folder alone: copy the folder to have it again" in words(result.output)
    assert run("merge", place / "merge.lock", "--output", tmp_path / "again", "--untuned").exit_code == 0
    assert run("merge", "--into", place, "--untuned").exit_code == 0
    assert files.tree_digest(place) == files.tree_digest(tmp_path / "again") == files.tree_digest(small.moe)
    result = run("merge", "--base", small.base, "--expert", small.law, "--output", tmp_path / "new", "--untuned")
    assert result.exit_code == 2
    assert "give one or the other" in words(result.output)


def test_a_report_is_of_the_untuned_gate_and_says_so(small: Small, run: Run, folder: Path) -> None:
    """The figures are those of the MoE before it was tuned."""
    data = ("--data", f"mix={small.text}", "--json")
    before, now = run("report", small.moe, *data), run("report", folder, *data)
    assert now.exit_code == 0, now.output
    found, expected = json.loads(now.stdout), json.loads(before.stdout)
    assert (expected["without_tuning"], found["without_tuning"]) == (False, True)
    assert found["together"] == expected["together"]
    assert "these are the figures of its gate before it was tuned" in words(now.stderr)
    assert "before it was tuned" not in words(before.stderr)


def test_inspect_shows_that_it_is_tuned(small: Small, run: Run, folder: Path) -> None:
    """With what that means."""
    said = words(run("inspect", folder).stdout)
    assert "tuned yes, on " in said
    assert "no expert can be taken out exactly unless --untuned drops it" in said
    assert "tuned no: the gate follows from counts" in words(run("inspect", small.moe).stdout)


def test_a_tuned_moe_answers_and_is_measured(small: Small, run: Run, folder: Path) -> None:
    """By the commands that any MoE has."""
    assert run("generate", folder, "the court", "--max-new-tokens", "3").exit_code == 0
    result = run("eval", folder, "--data", f"mix={small.text}", "--against", small.moe)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--data", "x.txt"), 2, "say what is to be written: --output FOLDER"),
        (("--output", "out"), 2, "--data is missing"),
        (("--data", "x.txt", "--output", "out", "--update", "u"), 2, "give one or the other"),
        (("--data", "x.txt", "--average", "u", "--output", "out"), 2, "--average takes updates and --output"),
        (("--average", "u", "--output", "out", "--dry-run"), 2, "--average takes updates and --output"),
        (("--data", "x.txt", "--update", "u", "--experts"), 2, "an update holds the gate alone"),
        (("--average", "u", "--output", "out"), 1, "u is no update"),
        (("--data", "x.txt", "--output", "out"), 1, "x.txt does not exist"),
        (("--data", "x.txt", "--output", "out", "--set", "rate=1"), 2, "unknown key 'rate'"),
    ],
)
def test_bad_usage_gets_one_sentence(
    small: Small,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    sentence: str,
) -> None:
    """Before anything is loaded."""
    monkeypatch.chdir(tmp_path)
    result = run("tune-router", small.moe, *arguments)
    assert result.exit_code == code, result.output
    assert sentence in words(result.output)
    assert list(tmp_path.iterdir()) == []


def test_only_a_moe_can_be_tuned(small: Small, run: Run, proxy: Path, tmp_path: Path) -> None:
    """The sentence says what it is instead."""
    result = run("tune-router", small.base, "--data", proxy, "--output", tmp_path / "moe")
    assert result.exit_code == 1
    assert "is no MoE but a base: merge first" in words(result.output)
