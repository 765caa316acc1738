"""`moehub data synth` and `moehub data preferences`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moehub.experts import data
from moehub.ledger import line
from tests.answering.speaking import Asked, question_of, speaking
from tests.corpus.synth.test_making import words_of
from tests.judging.opinions import by_length
from tests.moehub.conftest import Run, Small


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Six tasks, of which one comes twice."""
    path = tmp_path / "tasks.jsonl"
    words = ("river", "stone", "cloud", "engine", "garden", "letter", "river")
    path.write_text("".join(line({"instruction": f"Explain the {word} and what it is for."}) for word in words))
    return path


def writes() -> Callable[[Asked], str]:
    """Return a writer of ever new words."""
    count = 0

    def says(asked: Asked) -> str:
        nonlocal count
        count += 1
        return words_of(f"{question_of(asked)} {count}")

    return says


def believes(asked: Asked) -> dict[str, float]:
    p = by_length(question_of(asked))
    return {"yes": p, "no": 1 - p}


def test_records_are_written_that_training_reads(run: Run, tasks: Path, tmp_path: Path) -> None:
    """As many as are wanted; what it cost and what was left out is reported, and no file is left beside."""
    output = tmp_path / "new.jsonl"
    with speaking(says=writes()) as server:
        options = ("--seeds", tasks, "--model", f"{server.url}#small", "--output", output, "-n", 12, "--price-out", 8)
        result = run("data", "synth", "--method", "evol-instruct", *options, "--json")
        assert result.exit_code == 0, result.output
        again = run("data", "synth", "--method", "evol-instruct", *options)
    found: dict[str, Any] = json.loads(result.stdout)
    assert (found["records"], len(data.read([output]))) == (12, 12)
    assert found["attempts"] == 12 + sum(found["left_out"].values())
    assert found["asked"]["cost"] == pytest.approx(found["asked"]["completion_tokens"] * 8e-6)
    assert [one.name for one in tmp_path.iterdir() if "new" in one.name] == ["new.jsonl"]
    assert again.exit_code == 2
    assert "--overwrite" in again.output


def test_a_synthesis_that_broke_off_goes_on(run: Run, tasks: Path, tmp_path: Path) -> None:
    """The server refuses after a while; the same command finishes the work."""
    output = tmp_path / "new.jsonl"
    with speaking(says=writes(), fails_after=40) as server:
        options = ("--seeds", tasks, "--model", f"{server.url}#small", "--output", output, "-n", 40)
        broken = run("data", "synth", "--method", "self-instruct", *options)
        assert broken.exit_code == 1
        assert "broken" in broken.output
        assert not output.exists()
        kept = (tmp_path / "new.jsonl.partial").read_text().count('"record"')
        server.fails_after = None
        result = run("data", "synth", "--method", "self-instruct", *options)
    assert result.exit_code == 0, result.output
    assert 0 < kept < 40
    assert len(data.read([output])) == 40


def test_a_model_of_this_machine_writes(run: Run, small: Small, tmp_path: Path) -> None:
    """A random base writes no good text, and that is said in a sentence."""
    seeds = tmp_path / "seeds.txt"
    seeds.write_text("The court finds that the lessee shall pay the rent.")
    options = ("--seeds", seeds, "--model", small.base, "--output", tmp_path / "x.jsonl", "-n", 1)
    result = run("data", "synth", "--method", "rewrite", *options, "--max-new-tokens", 8, "--temperature", 0)
    assert result.exit_code == 1
    assert "give more and other seeds" in result.output


def test_a_dry_run_shows_the_first_request(run: Run, tasks: Path) -> None:
    """And asks nobody."""
    options = ("--seeds", tasks, "--model", "nowhere/at-all", "-n", 5, "--dry-run")
    result = run("data", "synth", "--method", "self-instruct", *options)
    assert result.exit_code == 0, result.output
    assert "5 records from 7 seeds" in result.stdout
    assert "Explain the" in result.stdout


def test_preferences_are_written_that_training_reads(run: Run, tasks: Path, tmp_path: Path) -> None:
    """Each prompt once; ties and equal answers are counted."""
    output = tmp_path / "prefs.jsonl"

    def says(asked: Asked) -> str:
        question = question_of(asked)
        return "same" if "stone" in question else question * (1 + (asked["model"] == "long"))

    with speaking(says=says, believes=believes) as server:
        models = ("--model", f"{server.url}#long", "--model2", f"{server.url}#short", "--judge", f"{server.url}#judge")
        command = ("data", "preferences", "--data", tasks, *models, "--output", output)
        result = run(*command, "--json")
        assert result.exit_code == 0, result.output
        shown = run(*command, "--overwrite")
    found = json.loads(result.stdout)
    assert (found["records"], found["ties"], found["equal"]) == (5, 0, 1)
    assert "5 pairs" in shown.stdout
    pairs = data.read_preferences([output])
    assert all(len(one.chosen) > len(one.rejected) for one in pairs)
    assert len(pairs) == 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("synth", "--method", "explain", "--seeds", "{tasks}", "--model", "m", "-n", "3"), "--output is missing"),
        (
            ("synth", "--method", "explain", "--seeds", "{tasks}", "--model", "m", "-n", "3", "--output", "x.txt"),
            ".jsonl",
        ),
        (
            ("preferences", "--data", "{tasks}", "--model", "m", "--judge", "j", "--temperature", "0", "--dry-run"),
            "twice",
        ),
        (("preferences", "--data", "{tasks}", "--model", "m", "--judge", "j", "--output", "{tasks}"), "--overwrite"),
    ],
)
def test_bad_usage_is_refused(run: Run, tasks: Path, options: tuple[str, ...], said: str) -> None:
    """With exit code 2, before anything is asked."""
    result = run("data", *(one.format(tasks=tasks) for one in options))
    assert result.exit_code == 2, result.output
    assert said in result.output
