import pytest

from tests.moehub.conftest import CODE, LAW, Run, Small


@pytest.mark.parametrize("kind", ["base", "law", "moe"])
def test_every_kind_of_model_writes(small: Small, run: Run, kind: str) -> None:
    """A base, an expert and a MoE go on from a prompt; the prompt is shown first."""
    result = run("generate", getattr(small, kind), LAW, "--base", small.base, "--max-new-tokens", 8)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(LAW)
    assert len(result.stdout) > len(LAW) + 4


def test_the_trace_names_who_wrote(small: Small, run: Run) -> None:
    """Off a terminal the trace stands in brackets, where the expert changes."""
    result = run("generate", small.moe, LAW + CODE, "--trace", "--max-new-tokens", 4)
    assert result.exit_code == 0, result.output
    assert result.stdout.index("[law]") < result.stdout.index("[code]")
    plain = result.stdout
    for name in ("law", "code", "null"):
        plain = plain.replace(f"[{name}]", "")
    assert plain.startswith(LAW + CODE)
    assert "experts: " in result.stderr


def test_a_seed_makes_sampling_repeatable(small: Small, run: Run) -> None:
    """The same seed writes the same text, another one another."""

    def written(seed: int) -> str:
        return run("generate", small.moe, LAW, "--temperature", 1.5, "--seed", seed, "--max-new-tokens", 12).stdout

    assert written(1) == written(1)
    assert written(1) != written(2)


def test_the_prompt_may_come_from_standard_input(small: Small, run: Run) -> None:
    """Without an argument the prompt is read from standard input."""
    result = run("generate", small.moe, "--max-new-tokens", 3, stdin=LAW)
    assert result.exit_code == 0
    assert result.stdout.startswith(LAW.rstrip("\n"))


def test_a_question_goes_through_the_chat_form(small: Small, run: Run) -> None:
    """--chat puts the prompt into a conversation and still writes."""
    assert run("generate", small.moe, "add?", "--chat", "--max-new-tokens", 3).exit_code == 0


def test_an_empty_prompt_is_explained(small: Small, run: Run) -> None:
    """Nothing to go on from is an error, not a crash."""
    result = run("generate", small.moe, "")
    assert result.exit_code == 1
    assert "the prompt is empty" in result.output


def test_a_base_has_no_trace(small: Small, run: Run) -> None:
    """--trace is for MoEs."""
    result = run("generate", small.base, LAW, "--trace")
    assert result.exit_code == 2
    assert "is a base: leave it out" in result.output


def test_a_bound_on_memory_writes_the_same(small: Small, run: Run) -> None:
    """`--resident` bounds the experts in memory, not what they say; what is no size is explained."""
    arguments = ("generate", small.moe, LAW + CODE, "--max-new-tokens", 8)
    bound = run(*arguments, "--resident", "1K")
    assert bound.exit_code == 0, bound.output
    assert bound.stdout == run(*arguments).stdout
    refused = run(*arguments, "--resident", "much")
    assert refused.exit_code == 2
    assert "'much' is no size" in refused.output
