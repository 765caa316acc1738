"""`moehub arena`."""

import json
from pathlib import Path

import pytest

from moehub.ledger import line
from tests.answering.speaking import Asked, question_of, speaking
from tests.judging.opinions import by_length
from tests.moehub.conftest import Run, Small


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Five prompts, one of them twice."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(line({"prompt": f"go on {n % 5}"}) for n in range(6)))
    return path


def believes(asked: Asked) -> dict[str, float]:
    p = by_length(question_of(asked))
    return {"yes": p, "no": 1 - p}


def says(asked: Asked) -> str:
    return question_of(asked) * {"long": 3, "short": 1}.get(str(asked["model"]), 2)


def test_models_answer_are_compared_and_rated(run: Run, prompts: Path, tmp_path: Path) -> None:
    """A third model joins; the folder keeps everything, and the figure is drawn."""
    folder = tmp_path / "arena"
    with speaking(believes=believes, says=says) as server:
        common = ("--data", prompts, "--judge", f"{server.url}#judge", "--output", folder, "--json")
        first = run("arena", "--model", f"long={server.url}#long", "--model", f"short={server.url}#short", *common)
        assert first.exit_code == 0, first.output
        assert len(server.asked) == 5 + 5 + 10
        server.asked.clear()
        plot = tmp_path / "arena.svg"
        result = run("arena", "--model", f"middle={server.url}#middle", *common, "--plot", plot)
        assert result.exit_code == 0, result.output
        assert len(server.asked) == 5 + 20
    found = json.loads(result.stdout)
    assert [one["name"] for one in found["ratings"]] == ["long", "middle", "short"]
    assert found["ratings"][0]["wins"] == 10
    assert found["win_rates"]["short"] == {"long": 0.0, "middle": 0.0}
    assert found["asked"]["judge"]["requests"] == 20
    kept = json.loads((folder / "ratings.json").read_text())
    assert kept["ratings"] == found["ratings"]
    assert len((folder / "comparisons.jsonl").read_text().splitlines()) == 15
    assert "middle" in plot.read_text()


def test_a_table_is_shown_for_models_of_this_machine(run: Run, small: Small, prompts: Path, tmp_path: Path) -> None:
    """A base against a MoE, judged by the base."""
    models = ("--model", f"base={small.base}", "--model", f"moe={small.moe}", "--max-new-tokens", 8)
    result = run("arena", *models, "--data", prompts, "--judge", small.base, "--pairs", 3, "--output", tmp_path / "a")
    assert result.exit_code == 0, result.output
    assert "3 comparisons" in result.stdout


def test_comparisons_that_were_made_are_rated(run: Run, tmp_path: Path) -> None:
    """Nothing is asked or written; both methods, as a table and as JSON."""
    path = tmp_path / "battles.jsonl"
    entries = [{"a": "x", "b": "y", "winner": "a"}] * 3 + [{"a": "y", "b": "z", "winner": "tie"}]
    path.write_text("".join(map(line, entries)))
    shown = run("arena", "--comparisons", path)
    assert shown.exit_code == 0, shown.output
    assert "share of comparisons won" in shown.stdout
    elo = json.loads(run("arena", "--comparisons", path, "--method", "elo", "--json").stdout)
    assert (elo["method"], elo["ratings"][0]["name"], elo["position"]) == ("elo", "x", None)


def test_a_dry_run_says_how_much_would_be_asked(run: Run, prompts: Path, tmp_path: Path) -> None:
    """And neither asks nor writes."""
    folder = tmp_path / "arena"
    models = ("--model", "a=nowhere/a", "--model", "b=nowhere/b", "--data", prompts)
    result = run("arena", *models, "--judge", "nowhere/c", "--output", folder, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "10 answers to 5 prompts and nowhere/c for 5 comparisons" in result.stdout
    assert not folder.exists()


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--model", "a=x", "--data", "{prompts}", "--judge", "j"),
        ("--comparisons", "{prompts}", "--judge", "j"),
        ("--model", "nameless", "--data", "{prompts}", "--judge", "j", "--output", "{prompts}-arena"),
        ("--model", "a=x", "--data", "{prompts}", "--judge", "j", "--output", "{prompts}-arena"),
        ("--comparisons", "{prompts}", "--plot", "figure.pdf"),
    ],
)
def test_bad_usage_is_refused(run: Run, prompts: Path, options: tuple[str, ...]) -> None:
    """With exit code 2, before anything is asked."""
    result = run("arena", *(one.format(prompts=prompts) for one in options))
    assert result.exit_code == 2, result.output
