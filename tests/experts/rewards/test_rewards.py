import re
from typing import Any

import pytest

from moehub import sandbox
from moehub.chat import Message
from moehub.errors import ConfigError, DataError, SandboxError, TrainingError
from moehub.experts.rewards import Scored, check, combine, make
from moehub.experts.rewards.tested import code_of
from moehub.sandbox import Outcome
from tests.experts.rewards.openers import Shelf, task

OWN = "tests.experts.rewards.openers"


def scores(settings: Any, fields: dict[str, Any], *answers: str) -> list[float | None]:
    """Return what one reward says about several answers to one task."""
    weighted = make({"it": settings}, opener=Shelf())
    return combine(weighted, [task(**fields)] * len(answers), answers).parts["it"]


def test_rewards_are_added_up_with_their_weights() -> None:
    """What says nothing about a task adds nothing."""
    settings = {"exact": 2.0, "length": {"weight": 0.5, "most": 3}, f"{OWN}.brevity": {"weight": 0, "most": 3}}
    tasks = [task(answer="7"), task(answer="8"), task(any_length=True)]
    scored = combine(make(settings, opener=Shelf()), tasks, ["7", "7 it is", "free"])
    assert scored == Scored(
        total=[2.0, -0.5, -0.5],
        parts={"exact": [1.0, 0.0, None], "length": [0.0, -1.0, -1.0], f"{OWN}.brevity": [1.0, 0.0, None]},
    )


def test_every_fault_of_the_settings_is_told_at_once() -> None:
    """Before a model is trained, each with its label."""
    settings = {
        "exactly": 1.0,
        "exact": {"weigth": 1.0, "field": 3},
        "yes-no": {"judge": "org/judge"},
        "politeness": {"kind": "yes-no", "judge": "nobody/there", "question": "Polite?"},
        "reward-model": {"model": "missing"},
        "length": True,
        "format": {"pattern": "("},
        "unit-tests": {"seconds": 0},
        "hedged": {"weight": float("nan")},
        "no_such_module.reward": 1.0,
        f"{OWN}.no_such_function": 1.0,
        f"{OWN}.no_function": 1.0,
        f"{OWN}.narrow": 1.0,
        f"{OWN}.brevity": {"least": 1},
    }
    with pytest.raises(ConfigError) as caught:
        make(settings, opener=Shelf())
    text = str(caught.value)
    for told in (
        "exactly: there is no reward 'exactly'; expected one of yes-no, reward-model, unit-tests, exact, hedged",
        "exact: what is set does not fit Exact: unknown key 'weigth'; known keys are anywhere, field",
        "field = 3, expected a text",
        "yes-no: what is set does not fit YesNo: missing key 'question'",
        "politeness: there is no model nobody/there",
        "reward-model: there is no reward model in missing",
        "length: weight = True, expected a number",
        "format: pattern = '(' is no regular expression",
        "unit-tests: the limits of a sandbox are too small: seconds = 0",
        "hedged: weight = nan",
        "no_such_module.reward cannot be imported",
        f"{OWN}.no_such_function is not there",
        f"{OWN}.no_function is int, expected a function",
        f"{OWN}.narrow(prompt: str) -> float does not take (prompt, answer, fields)",
        "got an unexpected keyword argument 'least'",
    ):
        assert told in text
    with pytest.raises(ConfigError, match="there are none; expected at least one of yes-no"):
        make({}, opener=Shelf())
    asking = {"yes-no": {"judge": "org/judge", "question": "?"}, "reward-model": {"model": "rm"}}
    with pytest.raises(
        ConfigError, match=r"(?s)the model org/judge, and models cannot.*the reward model rm, and models"
    ):
        make(asking, opener=None)


def test_tasks_are_checked_against_what_the_rewards_read() -> None:
    """Before training: a field that no task has, and values that cannot be used, all together."""
    weighted = make({"exact": 1.0, "unit-tests": 1.0, "length": {"most": 3}}, opener=Shelf())
    tasks = [task(answer=[], origin="a.jsonl:1"), task(answer="x", question=1)]
    with pytest.raises(DataError) as caught:
        check(weighted, tasks)
    assert str(caught.value) == (
        "the tasks do not fit the rewards:\n"
        "  - a.jsonl:1: the field 'answer' is '[]', expected a text, a number, or a list of those\n"
        "  - unit-tests reads the field 'tests', which none of the 2 tasks has: they have answer, question"
    )
    check(weighted, [task(answer=4), task(tests="assert f() == 1"), task()])
    many = [task(answer=" ", tests=["assert ("], origin=f"b.jsonl:{line}") for line in range(8)]
    with pytest.raises(DataError, match=r"(?s)jsonl:7: the field 'answer'.*:1: the field 'tests' is no Python.*6 more"):
        check(weighted, many)
    with pytest.raises(DataError, match="they have no fields beside the prompt"):
        check(weighted, [task()])


def test_a_reward_that_gives_no_number_is_told_from_which() -> None:
    """With the task it was about, before it spoils a training."""
    for name, told in (
        ("infinite", "gave inf for an answer to tasks.jsonl:1, expected a number"),
        ("broken", "fails at an answer to tasks.jsonl:1: ValueError: no q a 0"),
    ):
        with pytest.raises(TrainingError, match=re.escape(told)):
            combine(make({f"{OWN}.{name}": 1}, opener=Shelf()), [task()], ["a"])
    with pytest.raises(ValueError, match="1 tasks and 2 answers"):
        combine((), [task()], ["a", "b"])


def test_a_judge_is_asked_about_prompt_and_answer() -> None:
    """In one batch, through its chat template; the reward is how probable its yes is."""
    shelf = Shelf()
    settings = {"polite": {"kind": "yes-no", "judge": "org/judge", "question": "Is it polite?"}}
    weighted = make(settings, opener=shelf)
    turns = (Message("system", "Be kind."), Message("user", "Tea?"))
    scored = combine(weighted, [task("Tea?"), task(turns)], ["Yes, please {}.", "No."])
    assert (scored.parts["polite"], shelf.opened) == ([0.9, 0.2], ["org/judge"])
    first, second = (asked[0].content for asked in shelf.judge.asked if isinstance(asked, tuple))
    assert first.startswith("Tea?\n")
    assert "Yes, please {}." in first
    assert first.endswith("Is it polite?\nReply with yes or no.")
    assert second.startswith("System: Be kind.\n\nUser: Tea?\n")


@pytest.mark.parametrize("template", ["{question}", "{answer} {x}", "{answer", "{answer} {}"])
def test_a_template_has_the_places_that_are_filled(template: str) -> None:
    """Else a judge would never see the answer."""
    with pytest.raises(ConfigError, match="template"):
        make({"yes-no": {"judge": "org/judge", "question": "?", "template": template}}, opener=Shelf())


def test_a_reward_models_values_are_scaled_and_shifted() -> None:
    """So that they can stand beside others."""
    assert scores({"kind": "reward-model", "model": "rm", "scale": 0.5, "shift": -1}, {}, "abc") == [1.0]


def test_exact_gives_its_values_and_none_without_an_answer() -> None:
    """What right and wrong are worth is set."""
    options = {"kind": "exact", "field": "label", "right": 2, "wrong": -1}
    assert scores(options, {"label": 42}, "#### 42", "#### 41") == [2.0, -1.0]
    assert scores(options, {"answer": 42}, "#### 42") == [None]


def test_being_sure_pays_only_where_it_is_right() -> None:
    """Five kinds of answer, five values."""
    answers = ("It is Paris.", "I think it is Paris.", "I don’t know.", "It might be Rome.", "It is Rome.", "",
               "I don't know, maybe Paris.")  # fmt: skip
    assert scores({"kind": "hedged"}, {"answer": "Paris"}, *answers) == [1.0, 0.7, 0.0, -0.3, -1.0, 0.0, 0.7]
    own = {"kind": "hedged", "correct": 5, "hedges": ["vielleicht"], "ignorance": [], "uninformative": 3}
    assert scores(own, {"answer": 7}, "7", "vielleicht 7", "I think 8", "") == [5.0, 0.7, -1.0, 3.0]
    assert scores({"kind": "hedged"}, {"answer": "unlikely"}, "unlikely") == [1.0]


def test_length_costs_outside_of_the_band() -> None:
    """At once, or more and more."""
    assert scores({"kind": "length", "least": 2, "most": 4}, {}, "a", "ab", "abcd", "abcde") == [-1.0, 0.0, 0.0, -1.0]
    slow = {"kind": "length", "most": 2, "slack": 4, "unit": "words"}
    assert scores(slow, {}, "a b", "a b c", "a b c d e f g h") == [0.0, -0.25, -1.0]
    for options in ({"most": 3, "least": 4}, {"most": 3, "slack": -1}, {"most": 3, "unit": "lines"}):
        with pytest.raises(ConfigError):
            make({"length": options}, opener=Shelf())


def test_a_format_is_a_regular_expression() -> None:
    """Of the whole answer, or of a part."""
    whole = {"kind": "format", "pattern": "<think>.*</think>.+"}
    assert scores(whole, {}, "<think>a\nb</think>\nc\n", "c <think></think> d") == [1.0, 0.0]
    assert scores({"kind": "format", "pattern": "[0-9]", "whole": False, "wrong": -1}, {}, "a1", "a") == [1.0, -1.0]


GOOD = "Here:\n```python\ndef add(a, b):\n    return a + b\n```\nIt adds."
HALF = "```\ndef add(a, b):\n    return a + b if a else 0\n```"
TESTS = ["assert add(1, 2) == 3", "assert add(0, 2) == 2"]


def test_the_share_of_tests_that_pass_is_the_reward() -> None:
    """Or all of them; code that cheats gets nothing."""
    answers = (GOOD, HALF, "no code", "```py\nimport os; os._exit(0)\n```")
    assert scores({"kind": "unit-tests"}, {"tests": TESTS}, *answers) == [1.0, 0.5, 0.0, 0.0]
    assert scores({"kind": "unit-tests", "count": "all"}, {"tests": "\n".join(TESTS)}, *answers) == [1.0, 0.0, 0.0, 0.0]
    assert scores({"kind": "unit-tests"}, {"test": TESTS}, GOOD) == [None]
    assert scores({"kind": "unit-tests", "seconds": 0.3}, {"tests": TESTS}, "while True: pass") == [0.0]


def test_humaneval_tasks_are_understood() -> None:
    """The answer goes on with the prompt's code, and `check` is given the function."""
    prompt = "def add(a, b):\n    "
    tests = "def check(candidate):\n    assert candidate(1, 2) == 3"
    weighted = make({"unit-tests": {"continues": True}}, opener=Shelf())
    tasks = [task(prompt, tests=tests, entry_point="add")] * 3
    answers = ["return a + b", "return a", "```python\ndef add(a, b):\n    return b + a\n```"]
    assert combine(weighted, tasks, answers).total == [1.0, 0.0, 1.0]
    broken = task(prompt, tests="def check(candidate):", entry_point="add")
    assert combine(weighted, [broken], answers[:1]).total == [0.0]


def test_code_is_found_between_marks() -> None:
    """Blocks of Python, together; all of the answer where there are no marks."""
    assert code_of("a\n```python\nx\n```\nb\n```\ny\n```\n```bash\nz\n```") == "x\n\ny\n"
    assert code_of("```python\nx = 1") == "x = 1"
    assert code_of("x = 1") == "x = 1"
    assert code_of("  ```py\n  x\n  ```") == "  x\n"


def test_code_is_not_run_where_the_sandbox_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a fault of the settings; and if it comes later, an error."""
    weighted = make({"unit-tests": 1}, opener=Shelf())

    def refuse(*_: object, **__: object) -> list[Outcome]:
        return [Outcome("refused", "", "no walls", 0.0, 0, 0)]

    monkeypatch.setattr(sandbox, "run_many", refuse)
    with pytest.raises(SandboxError, match="no walls"):
        combine(weighted, [task(tests=TESTS)], [GOOD])

    def lack() -> None:
        raise SandboxError("strangers' code is not run on this machine, which lacks seccomp")

    monkeypatch.setattr(sandbox, "protections", lack)
    with pytest.raises(ConfigError, match="unit-tests: strangers' code is not run on this machine"):
        make({"unit-tests": 1}, opener=Shelf())
