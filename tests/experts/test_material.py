from pathlib import Path
from typing import Any

import pytest

from moehub import base as bases
from moehub.chat import Message
from moehub.errors import ConfigError, DataError
from moehub.experts.examples import Completion, Conversation, Example, Text
from moehub.experts.material import prepare
from moehub.experts.packing import IGNORED
from moehub.experts.settings import TrainConfig

TEXTS: list[Example] = [Text(f"the lessee shall pay {number} of the rent. ") for number in range(40)]
ANSWER = Conversation((Message("user", "q"), Message("assistant", "the rent " * 50)), origin="a.jsonl, line 4")


@pytest.fixture(scope="module")
def tokenizer(base_folder: Path) -> Any:
    return bases.find(str(base_folder)).load_tokenizer()


def test_training_and_held_out_have_nothing_in_common(tokenizer: Any) -> None:
    """What is measured on is never trained on nor counted, and nothing is lost."""
    material = prepare(tokenizer, TEXTS, TrainConfig(holdout=0.2), longest=256)
    training = {tokenizer.decode(one.seen) for one in material.documents}
    held = {tokenizer.decode(one.seen) for one in material.held_out}
    assert training | held == {one.text for one in TEXTS if isinstance(one, Text)}
    assert (training & held, bool(held)) == (set(), True)


def test_rows_hold_the_two_parts(tokenizer: Any) -> None:
    """Rows to train on come from the training split, the others from what was held out."""
    material = prepare(tokenizer, TEXTS, TrainConfig(holdout=0.2, context_length=64), longest=256)
    for documents, rows in zip((material.documents, material.held_out), material.rows(), strict=True):
        assert sum(len(row.ids) for row in rows) == sum(len(one.ids) for one in documents)
        assert max(len(row.ids) for row in rows) <= 64


@pytest.mark.parametrize(("longest", "setting", "expected"), [(256, None, 256), (8192, None, 1024), (8192, 4096, 4096)])
def test_context_is_the_bases_but_at_most_1024_unless_set(
    tokenizer: Any, longest: int, setting: int | None, expected: int
) -> None:
    """Long contexts are slow, so they have to be asked for."""
    material = prepare(tokenizer, TEXTS, TrainConfig(context_length=setting), longest=longest)
    assert material.context_length == expected


def test_context_beyond_the_bases_is_refused(tokenizer: Any) -> None:
    """The sentence says what the base takes."""
    with pytest.raises(ConfigError, match="context_length = 512, but the base takes at most 256 tokens"):
        prepare(tokenizer, TEXTS, TrainConfig(context_length=512), longest=256)


@pytest.mark.parametrize(
    ("examples", "kind"), [(TEXTS, "pretrain"), ([*TEXTS, Completion("a", "b")], "sft"), ([ANSWER] * 2, "sft")]
)
def test_kind_of_training_follows_from_the_examples(tokenizer: Any, examples: list[Example], kind: str) -> None:
    """Documents alone are pre-training; prompts and answers are fine-tuning."""
    assert prepare(tokenizer, examples, TrainConfig(), longest=256).kind == kind


def test_what_is_too_long_is_refused_or_reported(tokenizer: Any) -> None:
    """By default an error with the place; with `skip` and `cut` the places are listed."""
    examples = [*TEXTS, ANSWER]
    with pytest.raises(DataError, match=r"a\.jsonl, line 4 is .* tokens long, the context is 64"):
        prepare(tokenizer, examples, TrainConfig(context_length=64), longest=256)
    for too_long, kept in (("skip", 0), ("cut", 1)):
        config = TrainConfig(context_length=64, too_long=too_long)  # type: ignore[arg-type]
        material = prepare(tokenizer, examples, config, longest=256)
        answers = [one for one in material.documents + material.held_out if not one.divisible]
        assert (material.left_out, len(answers)) == (["a.jsonl, line 4"], kept)


def test_too_long_counts_what_was_held_out_too(tokenizer: Any) -> None:
    """One run tells of every example, so that the cure is one."""
    examples: list[Example] = [Completion(f"{number}", "the rent " * (40 + number)) for number in range(10)]
    longest = len(tokenizer("9")["input_ids"] + tokenizer("the rent " * 49)["input_ids"]) + 1
    with pytest.raises(DataError, match=rf"10 of 10 examples .* --set context_length={longest}, "):
        prepare(tokenizer, examples, TrainConfig(context_length=16, holdout=0.5), longest=1024)


@pytest.mark.parametrize("examples", [[Text("")], [ANSWER]])
def test_nothing_to_learn_is_refused(tokenizer: Any, examples: list[Example]) -> None:
    """No text, or only examples that were skipped."""
    with pytest.raises(DataError, match="there is nothing to learn in 1 example"):
        prepare(tokenizer, examples, TrainConfig(context_length=64, too_long="skip"), longest=256)


def test_held_out_tokens_are_limited(tokenizer: Any) -> None:
    """A large held-out part is measured in part; the limit is met to the token where a document can be cut."""
    config = TrainConfig(holdout=0.5, holdout_tokens=50)
    material = prepare(tokenizer, TEXTS, config, longest=256)
    assert sum(len(one.ids) for one in material.held_out) == 50


def test_held_out_measures_answers_alone(tokenizer: Any) -> None:
    """Labels of prompts are ignored in measuring as in training."""
    examples: list[Example] = [Completion(f"the court {number}", "rent") for number in range(40)]
    _, held = prepare(tokenizer, examples, TrainConfig(holdout=0.3), longest=256).rows(join=False)
    expected = len(tokenizer("rent")["input_ids"]) + 1
    assert {int((row.labels != IGNORED).sum()) for row in held} == {expected}
