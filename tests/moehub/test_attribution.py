import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from moehub.attribution import Account, Worth, attribute, draw, pooled, ranked, steps
from moehub.evaluation import evaluate, routing, rows_of
from moehub.experts.examples import Text
from moehub.experts.packing import Row
from moehub.merge.merging import Recipe, prepare, prepare_change
from moehub.models import Opened, open_model
from moehub.router.settings import RouterSettings
from tests.builders import tiny_base, tiny_expert
from tests.world import CODE, GENERIC, LAW, MATH, World


def merge(world: World, output: Path, *, method: str = "evidence") -> Path:
    recipe = Recipe(str(world.base), world.references(), str(world.null), RouterSettings(method=method))
    with prepare(recipe) as prepared:
        prepared.write(output)
    return output


def remove(moe: Path, name: str) -> None:
    with prepare_change(moe, remove=(name,)) as change:
        change.write()


def quiet(_: str) -> None:
    """Tell nobody."""


def texts(opened: Opened) -> dict[str, list[Row]]:
    """Return two texts of different lengths, several rows each."""
    return {
        "law": rows_of([Text(LAW * 2), Text(LAW + GENERIC)], opened),
        "mixed": rows_of([Text(CODE), Text(MATH * 3), Text(CODE + LAW + MATH)], opened),
    }


@pytest.fixture(scope="module")
def moe(world: World, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """A MoE of three experts with a null expert."""
    return open_model(str(merge(world, tmp_path_factory.mktemp("moe") / "moe")))


def account(losses: Sequence[float], *, loss: float = 2.0, base: float = 2.5, tokens: int = 10) -> Account:
    """Return an account in which all experts have equal shares, named a, b, c, …."""
    names = "abcdefgh"[: len(losses)]
    worths = {name: Worth(0.9 / len(losses), one) for name, one in zip(names, losses, strict=True)}
    return Account(tokens, 2 * tokens, loss, base, 0.1, worths)


@pytest.mark.parametrize("method", ["evidence", "lda", "evidence+lda", "arrow"])
def test_the_loss_without_an_expert_is_that_of_the_moe_really_made_without_it(
    described: World, tmp_path: Path, method: str
) -> None:
    """As evaluated in the folder that `merge --remove` leaves; beside it the losses of the MoE and of the base."""
    folder = merge(described, tmp_path / "moe", method=method)
    moe = open_model(str(folder))
    accounts = attribute(moe, texts(moe), on_step=quiet)
    base = open_model(str(described.base))
    for text, rows in texts(moe).items():
        assert accounts[text].loss == pytest.approx(evaluate(moe, rows).loss, abs=1e-6)
        assert accounts[text].base_loss == pytest.approx(evaluate(base, rows).loss, abs=1e-6)
    for name in described.experts:
        made = merge(described, tmp_path / name, method=method)
        remove(made, name)
        less = open_model(str(made))
        for text, rows in texts(less).items():
            assert accounts[text].experts[name].loss_without == pytest.approx(evaluate(less, rows).loss, abs=1e-6)


def test_shares_are_those_of_eval_and_sum_to_one(moe: Opened) -> None:
    """The null expert's is among them."""
    accounts = attribute(moe, texts(moe), on_step=quiet)
    for text, rows in texts(moe).items():
        shares = {name: worth.share for name, worth in accounts[text].experts.items()}
        shares["null"] = accounts[text].null_share
        assert sum(shares.values()) == pytest.approx(1, abs=1e-6)
        assert shares == pytest.approx(routing(moe, rows), abs=1e-6)


def test_alone_an_expert_is_what_peft_makes_of_it(world: World, moe: Opened) -> None:
    """Every token goes to it; it is measured only where that was asked for."""
    accounts = attribute(moe, texts(moe), alone=True, on_step=quiet)
    for name, folder in world.experts.items():
        expert = open_model(str(folder), base=str(world.base))
        for text, rows in texts(moe).items():
            assert accounts[text].experts[name].loss_alone == pytest.approx(evaluate(expert, rows).loss, abs=1e-5)
    plain = attribute(moe, texts(moe), on_step=quiet)
    assert {worth.loss_alone for one in plain.values() for worth in one.experts.values()} == {None}


def test_of_twins_neither_is_missed(tmp_path: Path) -> None:
    """Each takes over for the other: both are routed half of everything, and nothing is lost without one of them."""
    base, null = tiny_base(tmp_path / "base"), tmp_path / "null.txt"
    null.write_text(GENERIC, encoding="utf-8")
    twins = {name: tiny_expert(tmp_path / name, base, name=name, alpha=80, text=LAW * 30) for name in ("one", "two")}
    moe = open_model(str(merge(World(base, null, twins), tmp_path / "moe", method="arrow")))
    rows = {"law": rows_of([Text(LAW * 2)], moe)}
    both = attribute(moe, rows, alone=True, on_step=quiet)["law"]
    assert [both.experts[name].share for name in twins] == pytest.approx([0.5, 0.5], abs=1e-3)
    assert [both.helps(name) for name in twins] == pytest.approx([0, 0], abs=1e-5)
    remove(tmp_path / "moe", "two")
    alone = attribute(open_model(str(tmp_path / "moe")), rows, on_step=quiet)["law"]
    assert abs(alone.helps("one")) > 1e-3
    assert both.gain_alone("one") == pytest.approx(alone.gain, abs=1e-5)


def test_every_text_is_told_when_it_was_measured(moe: Opened) -> None:
    """As often as `steps` says, with what it was."""
    for alone in (False, True):
        said: list[str] = []
        attribute(moe, texts(moe), alone=alone, on_step=said.append)
        assert len(said) == len(set(said)) == steps(moe.model.names, texts(moe), alone=alone)
        assert {"the MoE on law", "the base on mixed", "without code on law"} <= set(said)


def test_the_model_is_what_it_was(moe: Opened) -> None:
    """Afterwards no expert is missing, and none is forced."""
    ids = rows_of([Text(LAW + CODE)], moe)[0].ids[None]
    with torch.no_grad():
        before = moe.model(ids).logits
        attribute(moe, texts(moe), alone=True, on_step=quiet)
        assert torch.equal(moe.model(ids).logits, before)


def test_texts_are_pooled_by_their_tokens() -> None:
    """Losses by learned tokens, shares by all that were read."""
    long, short = account([2.2, 2.0], tokens=30), account([3.0, 4.0], loss=3.0, base=3.0, tokens=10)
    together = pooled([long, short])
    assert (together.tokens, together.read) == (40, 80)
    assert (together.loss, together.base_loss) == pytest.approx((2.25, 2.625))
    assert together.experts["a"].loss_without == pytest.approx(2.4)
    assert sum(worth.share for worth in together.experts.values()) + together.null_share == pytest.approx(1)
    assert together.experts["a"].loss_alone is None


def test_the_loss_without_an_expert_is_told_as_a_share_of_the_gain() -> None:
    """Above 0 the expert helps; where the MoE gains nothing there is nothing to share."""
    helped = account([2.25, 1.9])
    assert [helped.helps(name) for name in "ab"] == pytest.approx([0.25, -0.1])
    assert helped.share_of_gain("a") == pytest.approx(0.5)
    assert helped.share_of_gain("b") == pytest.approx(-0.2)
    assert account([2.5], base=2.0).share_of_gain("a") is None


def test_who_is_missed_most_comes_first() -> None:
    """Equals stand in the order of the MoE."""
    assert ranked(account([2.1, 2.4, 2.1, 1.9])) == ["b", "a", "c", "d"]


@pytest.mark.parametrize("experts", [1, 8])
def test_an_account_is_drawn(tmp_path: Path, experts: int) -> None:
    """Every expert by name, the null expert, and the sentence that says what the bars do not."""
    file = tmp_path / "worth.svg"
    draw(file, account([2.0 + one / 10 for one in range(experts)]), title="what each is worth")
    text = file.read_text(encoding="utf-8")
    names = [*itertools.islice("abcdefgh", experts), "null"]
    assert all(f"<!-- {name} -->" in text for name in (*names, "what each is worth"))
    assert "<!-- Neither alone says" in text


def test_what_json_gets_is_complete() -> None:
    """Every figure, also those that are derived."""
    values: dict[str, Any] = account([2.25]).to_dict()
    assert set(values) == {"tokens", "loss", "base_loss", "gain", "null_share", "experts"}
    worth = values["experts"]["a"]
    assert worth["helps"] == pytest.approx(0.25)
    assert set(worth) == {"share", "loss_without", "helps", "share_of_gain", "loss_alone", "gain_alone"}
