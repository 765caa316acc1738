"""New text that a model writes."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moehub.answering.answerer import Sampling
from moehub.corpus.synth import seeds as reading
from moehub.corpus.synth.making import Made, Making, Plan
from moehub.corpus.synth.methods import Name
from moehub.corpus.synth.seeds import Seed
from moehub.errors import ConfigError, DataError
from moehub.experts import data
from moehub.experts.examples import Conversation, Text
from moehub.ledger import line
from tests.judging.opinions import Opinionated, opener

_WORDS = (
    "river",
    "stone",
    "cloud",
    "engine",
    "garden",
    "letter",
    "market",
    "number",
    "orchard",
    "planet",
    "signal",
    "timber",
    "valley",
    "window",
)


def words_of(text: str, count: int = 12) -> str:
    """Return words that the text alone decides: different texts, different words."""
    digest = hashlib.sha256(text.encode()).digest()
    return " ".join(_WORDS[byte % len(_WORDS)] + str(byte % 7) for byte in digest[:count])


class Writer(Opinionated):
    """Writes what follows from the request and from how often it was asked."""

    def __init__(self, says: Callable[[str], str] | None = None) -> None:
        super().__init__(says=says or (lambda text: words_of(f"{text} {len(self.asked)}")))


SEEDS = [Seed(f"Explain the {word} and what it is for.", f"The {word}.", is_task=True, origin=word) for word in _WORDS]
SAMPLING = Sampling(max_new_tokens=200, temperature=0.8)


def plan(method: Name, count: int = 20, **changes: Any) -> Plan:
    return Plan(method, "it", count, SAMPLING, **changes)


def make(method: Name, writer: Writer, *, seeds: list[Seed] | None = None, count: int = 20, **changes: Any) -> Made:
    work = Making(plan(method, count, **changes), seeds or SEEDS, None)
    return work.run(opener(it=writer), lambda _, __: None)


def learned(records: list[dict[str, Any]], folder: Path) -> list[Any]:
    """Return records as `train-expert` reads them."""
    path = folder / "made.jsonl"
    path.write_text("".join(map(line, records)), encoding="utf-8")
    return data.read([path])


@pytest.mark.parametrize("method", ["self-instruct", "evol-instruct"])
def test_new_tasks_are_written_and_answered(method: Name, tmp_path: Path) -> None:
    """As many as are wanted, all different, each with how it was made; training reads them."""
    made = make(method, Writer())
    assert len(made.records) == 20
    assert len({record["instruction"] for record in made.records}) == 20
    assert made.records[0]["made"]["method"] == method
    assert set(made.records[0]["made"]["from"]) <= set(_WORDS)
    assert all(isinstance(one, Conversation) for one in learned(made.records, tmp_path))


def test_self_instruct_shows_seeds_and_what_was_written_before() -> None:
    """Four tasks; later ones are among them."""
    writer = Writer()
    made = make("self-instruct", writer, count=40)
    shown = [re.findall(r"<task>\n(.*?)\n</task>", one) for one in writer.asked if "<task>" in one]
    assert {len(one) for one in shown} == {4}
    assert all(text.startswith("Explain") for text in shown[0])
    written = {record["instruction"] for record in made.records}
    assert any(text in written for text in shown[-1])


def test_evol_instruct_changes_what_was_changed_a_few_times_at_most() -> None:
    """The chain from a seed has at most four steps."""
    seeds = SEEDS[:1]
    work = Making(plan("evol-instruct", 60), seeds, None)
    work.run(opener(it=Writer()), lambda _, __: None)
    assert max(task.depth for task in work._written) in {2, 3, 4}


def test_what_is_evolved_may_keep_most_words() -> None:
    """A long task with one more condition is a new task to evol-instruct, and a repetition elsewhere."""
    task = Seed(" ".join(f"w{number}" for number in range(30)), None, is_task=True, origin="")

    def says(text: str) -> str:
        return f"{task.text} but only where it rains" if "<task>" in text else "It is so."

    assert make("evol-instruct", Writer(says), seeds=[task], count=1).left_out == {}
    with pytest.raises(DataError, match="near-duplicate"):
        make("evol-instruct", Writer(says), seeds=[task], count=1, threshold=0.7)


def test_rewrite_puts_documents_in_other_words(tmp_path: Path) -> None:
    """The new documents are texts to learn."""
    seeds = [Seed(f"The {word} stands by the road.", None, is_task=False, origin=word) for word in _WORDS]
    made = make("rewrite", Writer(), seeds=seeds)
    assert all(isinstance(one, Text) for one in learned(made.records, tmp_path))


def test_rewrite_keeps_the_answer_of_a_task_and_asks_for_one_where_there_is_none() -> None:
    """Other words for the same question have the same answer."""
    writer = Writer()
    made = make("rewrite", writer)
    answers = {seed.origin: seed.answer for seed in SEEDS}
    assert all(record["output"] == answers[record["made"]["from"][0]] for record in made.records)
    assert all("<task>" in one for one in writer.asked)
    bare = make("rewrite", Writer(), seeds=[Seed(one.text, None, is_task=True, origin="") for one in SEEDS], count=3)
    assert all(record["output"] for record in bare.records)


def test_explain_answers_the_seeds_under_a_system_message(tmp_path: Path) -> None:
    """The task stays as it is, and the system message is learned with it."""
    made = make("explain", Writer())
    tasks = {seed.text for seed in SEEDS}
    turns = [[message["role"] for message in record["messages"]] for record in made.records]
    assert all(one == ["system", "user", "assistant"] for one in turns)
    assert all(record["messages"][1]["content"] in tasks for record in made.records)
    assert len({record["messages"][0]["content"] for record in made.records}) > 2
    assert all(isinstance(one, Conversation) for one in learned(made.records, tmp_path))


def test_what_is_no_good_or_was_said_is_left_out_and_counted() -> None:
    """Every third reply is refused, every seventh is a seed."""

    def says(text: str) -> str:
        number = len(writer.asked)
        if "<task>" not in text:
            return "An answer."
        return SEEDS[2].text if number % 7 == 0 else "I'm sorry, no." if number % 3 == 0 else words_of(text)

    writer = Writer(says)
    made = make("self-instruct", writer)
    assert len(made.records) == 20
    assert made.left_out["refused"] > 0
    assert made.left_out["near-duplicate"] + made.left_out.get("unchanged", 0) > 0
    assert made.attempts >= 20 + sum(made.left_out.values())


def test_answers_without_an_end_are_left_out() -> None:
    """They are as long as they were allowed to be."""
    work = Making(plan("explain", 1), SEEDS, None)
    writer = Writer(lambda text: words_of(text) * 9)
    with pytest.raises(DataError, match="cut off"):
        work.run(opener(it=writer), lambda _, __: None)


def test_a_model_that_writes_the_same_again_and_again_is_given_up() -> None:
    """The sentence says what was left out, and what may help."""
    with pytest.raises(DataError, match=r"1 can be kept, and 20 .*near-duplicate.*give more"):
        make("self-instruct", Writer(lambda text: "Always write this same task." if "<task>" in text else "No."))


@pytest.mark.parametrize("after", [0, 20, 45])
def test_a_work_that_was_killed_goes_on(tmp_path: Path, after: int) -> None:
    """What was kept stays, is not written again, and its cost is counted."""
    path = tmp_path / "made.jsonl.partial"
    first, second = Writer(), Writer(lambda text: words_of(f"again {text} {len(second.asked)}"))
    first.dies_after = after
    with pytest.raises(KeyboardInterrupt):
        Making(plan("self-instruct", 40), SEEDS, path).run(opener(it=first), lambda _, __: None)
    work = Making(plan("self-instruct", 40), SEEDS, path)
    kept = list(work._records)
    steps: list[int] = []
    made = work.run(opener(it=second), lambda count, _: steps.append(count))
    assert made.records[: len(kept)] == kept
    assert (len(made.records), sum(steps)) == (40, 40)
    assert len({record["instruction"] for record in made.records}) == 40
    assert len(kept) == {0: 0, 20: 0, 45: 16}[after]
    assert second.meter.requests == len(second.asked) + (32 if after == 45 else 0)


def test_the_ledger_of_another_work_is_refused_and_more_may_be_wanted(tmp_path: Path) -> None:
    """The count alone may change."""
    path = tmp_path / "made.jsonl.partial"
    Making(plan("self-instruct", 5), SEEDS, path).run(opener(it=Writer()), lambda _, __: None)
    more = Making(plan("self-instruct", 9), SEEDS, path).run(opener(it=Writer()), lambda _, __: None)
    assert len(more.records) == 9
    for other in (plan("explain"), plan("self-instruct", seed=1)):
        with pytest.raises(ConfigError, match="begun with another"):
            Making(other, SEEDS, path)
    with pytest.raises(ConfigError, match="begun with another"):
        Making(plan("self-instruct"), SEEDS[1:], path)


def test_seeds_of_the_wrong_kind_are_refused() -> None:
    """Documents are no tasks; the two are rewritten apart."""
    document = Seed("A text.", None, is_task=False, origin="")
    with pytest.raises(ConfigError, match="begins with tasks"):
        Making(plan("explain"), [document], None)
    with pytest.raises(ConfigError, match="1 of 2 seeds are documents"):
        Making(plan("rewrite"), [document, SEEDS[0]], None)
    with pytest.raises(ConfigError, match="expected self-instruct, evol-instruct, rewrite, explain"):
        Making(plan("invent"), SEEDS, None)  # type: ignore[arg-type]  # what a person may write
    with pytest.raises(ConfigError, match="expected at least 1"):
        plan("explain", 0)


def test_seeds_are_read_in_every_form(tmp_path: Path) -> None:
    """Tasks with and without answers, and documents."""
    path = tmp_path / "seeds.jsonl"
    asked = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    entries: list[dict[str, Any]] = [
        {"instruction": "i", "input": "n", "output": "o"},
        {"instruction": "i"},
        {"prompt": "p", "completion": "c"},
        {"messages": asked},
        {"messages": [*asked, {"role": "assistant", "content": "a"}]},
        {"text": "t"},
    ]
    path.write_text("".join(map(line, entries)))
    found = [(seed.text, seed.answer, seed.is_task) for seed in reading.read([path])]
    assert found == [
        ("i\n\nn", "o", True),
        ("i", None, True),
        ("p", "c", True),
        ("u", None, True),
        ("u", "a", True),
        ("t", None, False),
    ]


def test_a_seed_of_several_turns_is_named(tmp_path: Path) -> None:
    """One text cannot say it."""
    path = tmp_path / "seeds.jsonl"
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
    path.write_text(line({"prompt": "p"}) + line({"messages": turns}))
    with pytest.raises(DataError, match="line 2 has a conversation of 3 turns"):
        reading.read([path])
