"""Models against each other, in a folder that keeps what was done."""

from pathlib import Path

import pytest

from moehub.answering.answerer import Sampling
from moehub.errors import ConfigError, DataError
from moehub.experts.examples import Task
from moehub.judging.arena import ARENA_FILE, Arena, Outcome, Rules, unique
from moehub.judging.rating import Battle, rate
from tests.judging.opinions import Opinionated, opener

TASKS = [Task(f"question {number}") for number in range(10)]
RULES = Rules(Sampling(max_new_tokens=20))


def strong(text: str) -> str:
    return text * 2


def weak(text: str) -> str:
    return text[:5]


def middling(text: str) -> str:
    return text


def world() -> dict[str, Opinionated]:
    """Return three models of different verbosity, and a judge who likes that."""
    return {
        "strong": Opinionated(says=strong),
        "weak": Opinionated(says=weak),
        "middling": Opinionated(says=middling),
        "judge": Opinionated(),
    }


def meet(
    folder: Path, players: dict[str, Opinionated], *names: str, pairs: int | None = None, rules: Rules = RULES
) -> Outcome:
    arena = Arena(folder, {name: name for name in names}, rules)
    return arena.run(TASKS, "judge", pairs=pairs, open_model=opener(**players), on_step=lambda _, __: None)


def asked(players: dict[str, Opinionated]) -> dict[str, int]:
    return {name: len(one.asked) for name, one in players.items()}


def test_all_answer_all_and_every_two_are_compared(tmp_path: Path) -> None:
    """Ten prompts, two models, both orders; the better model wins them all."""
    players = world()
    outcome = meet(tmp_path, players, "strong", "weak")
    assert asked(players) == {"strong": 10, "weak": 10, "middling": 0, "judge": 20}
    assert outcome.battles == [Battle("strong", "weak", "a")] * 10
    assert [one.name for one in rate(outcome.battles, resamples=2)] == ["strong", "weak"]
    assert outcome.meters["judge"].requests == 20


def test_a_model_that_joins_meets_the_others_answers(tmp_path: Path) -> None:
    """Nothing that was done is done again."""
    meet(tmp_path, world(), "strong", "weak")
    players = world()
    outcome = meet(tmp_path, players, "middling")
    assert asked(players) == {"strong": 0, "weak": 0, "middling": 10, "judge": 40}
    assert len(outcome.battles) == 30
    assert [one.name for one in rate(outcome.battles, resamples=2)] == ["strong", "middling", "weak"]


@pytest.mark.parametrize(("victim", "after"), [("weak", 3), ("judge", 0), ("judge", 50)])
def test_an_arena_that_was_killed_goes_on(tmp_path: Path, victim: str, after: int) -> None:
    """Whoever was asked when it was killed, the end is the same, and what was kept is not asked again."""
    expected = meet(tmp_path / "whole", world(), "strong", "weak", "middling").battles
    players = world()
    players[victim].dies_after = after
    with pytest.raises(KeyboardInterrupt):
        meet(tmp_path / "killed", players, "strong", "weak", "middling")
    again = world()
    assert meet(tmp_path / "killed", again, "strong", "weak", "middling").battles == expected
    assert asked(again)["strong"] + asked(players)["strong"] >= 10
    # Sixteen comparisons of two orders each were kept, where it died in the second portion.
    assert asked(again)["judge"] == (60 - 32 if after == 50 else 60)


def test_pairs_are_drawn_for_each_two_models_and_stay_when_others_come(tmp_path: Path) -> None:
    """Four prompts each; a third model changes nothing between the first two."""
    first = meet(tmp_path, world(), "strong", "weak", pairs=4).battles
    players = world()
    both = meet(tmp_path, players, "middling", pairs=4).battles
    assert (len(first), len(both)) == (4, 12)
    assert asked(players)["judge"] == 16
    steps = Arena(tmp_path, {}, RULES).steps(TASKS, 4)
    assert steps == 30 + 12


def test_another_judge_is_counted_apart(tmp_path: Path) -> None:
    """The comparisons of the first stay in the folder and do not mix with the second's."""
    meet(tmp_path, world(), "strong", "weak")
    arena = Arena(tmp_path, {}, RULES)
    fond = Opinionated(believes=lambda _: 0.9)
    outcome = arena.run(TASKS, "fond", pairs=None, open_model=opener(fond=fond), on_step=lambda _, __: None)
    assert outcome.battles == [Battle("strong", "weak", "tie")] * 10
    assert outcome.bias is not None
    assert outcome.bias.decided == 1.0
    assert len(Arena(tmp_path, {}, RULES).comparisons.entries) == 20


def test_rules_and_names_stay_what_they_were(tmp_path: Path) -> None:
    """Answers that were written otherwise do not compare, and a name is one model."""
    meet(tmp_path, world(), "strong", "weak")
    with pytest.raises(ConfigError, match="other rules"):
        Arena(tmp_path, {}, Rules(Sampling(max_new_tokens=21)))
    with pytest.raises(ConfigError, match="other rules"):
        Arena(tmp_path, {}, Rules(RULES.sampling, "Is it short?"))
    with pytest.raises(ConfigError, match="'weak' stands for weak, and not for other"):
        Arena(tmp_path, {"weak": "other"}, RULES)


def test_one_model_alone_is_no_arena(tmp_path: Path) -> None:
    """It needs somebody to meet."""
    with pytest.raises(ConfigError, match="needs two models"):
        Arena(tmp_path, {"strong": "strong"}, RULES)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 2, "models": {}}'])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    """Its file is no arena's."""
    (tmp_path / ARENA_FILE).write_text(content)
    with pytest.raises(DataError, match=ARENA_FILE):
        Arena(tmp_path, {"a": "a", "b": "b"}, RULES)


def test_a_prompt_is_asked_once() -> None:
    """The first of equal ones stays, in its place."""
    assert unique([Task("x", {"n": 1}), Task("y"), Task("x", {"n": 2})]) == [Task("x", {"n": 1}), Task("y")]
