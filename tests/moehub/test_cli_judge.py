"""`moehub judge`."""

import json
from pathlib import Path
from typing import Any

import pytest

from moehub.ledger import line
from tests.answering.speaking import Asked, question_of, speaking
from tests.judging.opinions import by_length, shown
from tests.moehub.conftest import Run, Small


def yes(p: float) -> dict[str, float]:
    return {"Yes": p, "No": 1 - p}


def longer_than_three(asked: Asked) -> dict[str, float]:
    return yes(0.9 if len(shown(question_of(asked))[0]) > 3 else 0.1)


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Six answers, of which four are known to be good."""
    path = tmp_path / "answers.jsonl"
    entries = ({"prompt": f"p{n}", "completion": "x" * n, "label": n > 2, "kept": n} for n in range(1, 7))
    path.write_text("".join(map(line, entries)))
    return path


def test_every_record_is_written_with_what_was_said_of_it(run: Run, answers: Path, tmp_path: Path) -> None:
    """Its own fields stay; agreement with the labels and the cost are reported."""
    with speaking(believes=longer_than_three) as server:
        judge = f"{server.url}#small"
        options = ("--question", "Is it long?", "--output", tmp_path / "scored.jsonl", "--json", "--price-in", 1.5)
        result = run("judge", answers, "--judge", judge, *options)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["judges"][judge]["labels"]["kappa"] == pytest.approx(2 / 3)
    assert found["asked"][judge]["requests"] == 6
    assert found["asked"][judge]["cost"] == pytest.approx(found["asked"][judge]["prompt_tokens"] * 1.5e-6)
    scored = [json.loads(one) for one in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert [one["kept"] for one in scored] == [1, 2, 3, 4, 5, 6]
    assert scored[3]["judged"][judge] == {"yes": pytest.approx(0.9), "verdict": "yes"}
    assert not (tmp_path / "scored.jsonl.partial").exists()


def test_a_run_that_broke_off_goes_on(run: Run, tmp_path: Path) -> None:
    """The server refuses after 16 answers, which are not asked about again."""
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(line({"prompt": f"p{n}", "completion": "x" * (n + 1)}) for n in range(20)))
    output = tmp_path / "scored.jsonl"
    with speaking(believes=longer_than_three) as server:
        command = ("judge", path, "--judge", f"{server.url}#small", "--question", "Is it long?", "--output", output)
        server.fails_after = 16
        assert run(*command).exit_code == 1
        assert not output.exists()
        server.fails_after = None
        server.asked.clear()
        assert run(*command).exit_code == 0
        assert len(server.asked) == 4
        assert run(*command).exit_code == 2
        assert run(*command, "--overwrite").exit_code == 0
    assert len(output.read_text().splitlines()) == 20


def test_judges_are_compared_with_each_other(run: Run, small: Small, answers: Path) -> None:
    """A model here and one behind an endpoint, as a table."""
    with speaking(believes=longer_than_three) as server:
        given = ("--judge", f"{server.url}#small", "--judge", small.base, "--question", "Is it long?")
        result = run("judge", answers, *given)
    assert result.exit_code == 0, result.output
    assert "judges with each other" in result.stdout
    assert "6 answers, 6 with a label" in result.stdout


def test_pairs_are_judged_in_both_orders(run: Run, tmp_path: Path) -> None:
    """Twice as many requests as pairs, and no question is needed."""
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(line({"prompt": f"p{n}", "chosen": "x" * n, "rejected": "x"}) for n in range(2, 6)))
    with speaking(believes=lambda asked: yes(by_length(question_of(asked)))) as server:
        result = run("judge", path, "--judge", f"{server.url}#small", "--json")
        shown_as_table = run("judge", path, "--judge", f"{server.url}#small")
        assert len(server.asked) == 16
    found: dict[str, Any] = json.loads(result.stdout)["judges"][f"{server.url}#small"]
    assert found["verdicts"] == {"a": 4, "b": 0, "tie": 0}
    assert found["position"]["decided"] == 0
    assert "by place" in shown_as_table.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--question"),
        (("--question", "Is it?", "--api-key", "sk-secret"), "HOST=VARIABLE"),
        (("--question", "Is it?", "--api-key", "host=sk-secret"), "HOST=VARIABLE"),
    ],
)
def test_bad_usage_is_refused_and_no_key_is_repeated(
    run: Run, answers: Path, options: tuple[str, ...], said: str
) -> None:
    """Before anything is sent, with exit code 2."""
    result = run("judge", answers, "--judge", "http://127.0.0.1:1/v1#small", *options)
    assert result.exit_code == 2
    assert said in result.output
    assert "sk-secret" not in result.output
