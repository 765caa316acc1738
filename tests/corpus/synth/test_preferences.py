"""Pairs of answers of which a judge prefers one."""

from pathlib import Path

import pytest

from moehub.answering.answerer import GREEDY, Answer, Sampling
from moehub.chat import Prompt
from moehub.corpus.synth.preferences import Plan, Preferred, Preferring
from moehub.errors import ConfigError
from moehub.experts import data
from moehub.experts.examples import Task
from moehub.ledger import line
from tests.judging.opinions import Opinionated, by_length, opener, the_first

TASKS = [Task(f"question {number}") for number in range(20)]
SAMPLING = Sampling(max_new_tokens=50, temperature=0.8)
PLAN = Plan(("one", "other"), "judge", SAMPLING)


def world() -> dict[str, Opinionated]:
    """Return a model that is brief for even numbers, one that is never, and a judge who likes length."""
    return {
        "one": Opinionated(says=lambda text: text[:3] if int(text.split()[-1]) % 2 else text * 3),
        "other": Opinionated(says=lambda text: text * 2),
        "judge": Opinionated(believes=by_length),
    }


def prefer(players: dict[str, Opinionated], path: Path | None = None, plan: Plan = PLAN) -> Preferred:
    return Preferring(plan, TASKS, path).run(opener(**players), lambda _, __: None)


def test_the_better_answer_is_chosen_and_training_reads_the_file(tmp_path: Path) -> None:
    """With who wrote it, and how sure the judge is."""
    found = prefer(world())
    assert (len(found.records), found.ties, found.equal) == (20, 0, 0)
    assert [record["made"]["chosen"] for record in found.records[:2]] == ["one", "other"]
    assert found.records[1]["chosen"] == "question 1" * 2
    assert found.records[1]["made"]["p"] == pytest.approx(0.85)
    path = tmp_path / "prefs.jsonl"
    path.write_text("".join(map(line, found.records)))
    assert len(data.read_preferences([path])) == 20


def test_ties_and_equal_answers_are_left_out_and_counted() -> None:
    """A judge who is led by places makes only ties; of equal answers nobody is asked."""
    led = world() | {"judge": Opinionated(believes=the_first)}
    found = prefer(led)
    assert (found.records, found.ties, found.equal) == ([], 20, 0)
    assert found.bias is not None
    assert found.bias.decided == 1
    same = world() | {"one": Opinionated(says=lambda text: text * 2)}
    found = prefer(same)
    assert (found.records, found.ties, found.equal) == ([], 0, 20)
    assert same["judge"].asked == []


@pytest.mark.parametrize(("victim", "after"), [("one", 17), ("other", 3), ("judge", 39)])
def test_a_work_that_was_killed_goes_on(tmp_path: Path, victim: str, after: int) -> None:
    """The end is the same, and what was kept is not asked again."""
    path = tmp_path / "prefs.jsonl.partial"
    players = world()
    players[victim].dies_after = after
    with pytest.raises(KeyboardInterrupt):
        prefer(players, path)
    again = world()
    assert prefer(again, path).records == prefer(world()).records
    left = {"one": ("one", 4), "other": ("other", 20), "judge": ("judge", 8)}[victim]
    assert len(again[left[0]].asked) == left[1]


def test_one_model_writes_its_two_answers_from_different_seeds() -> None:
    """At temperature 0 they would be the same, which is refused."""

    class Chance(Opinionated):
        def answer(self, prompts: object, sampling: Sampling = GREEDY) -> list[Answer]:
            assert isinstance(prompts, list)
            asked: list[Prompt] = prompts
            return [Answer("x" * (sampling.seed or 0), 1, 1) for _ in asked]

    found = prefer({"one": Chance(), "judge": Opinionated()}, plan=Plan(("one", "one"), "judge", SAMPLING, seed=3))
    assert {(len(one["chosen"]), len(one["rejected"])) for one in found.records} == {(7, 6)}
    with pytest.raises(ConfigError, match="--temperature"):
        Plan(("one", "one"), "judge", Sampling())


def test_the_ledger_of_another_work_is_refused(tmp_path: Path) -> None:
    """Its answers were written otherwise."""
    path = tmp_path / "prefs.jsonl.partial"
    prefer(world(), path)
    with pytest.raises(ConfigError, match="begun with other models"):
        Preferring(Plan(("one", "other"), "judge", SAMPLING, seed=1), TASKS, path)
