import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from moehub import base as bases
from moehub import files
from moehub.card import STATISTICS_FILE
from moehub.errors import ConfigError, DataError, FederationError, MergeError, RouterError, TrainingError
from moehub.evaluation import routing
from moehub.experts.evaluation import evaluate_loss
from moehub.experts.examples import Text
from moehub.experts.folder import open_expert, seal
from moehub.experts.settings import TrainConfig
from moehub.experts.training import train
from moehub.merge.merging import Recipe, prepare, prepare_change
from moehub.models import Opened, open_model
from moehub.router.balance import imbalance
from moehub.router.settings import RouterSettings
from moehub.tuning import material, polish, training, updates
from moehub.tuning.settings import TuneConfig
from tests.builders import tiny_base, tiny_expert
from tests.world import CODE, GENERIC, LAW

# All columns are tried: counts that are wrong leave the right expert out of the best two.
QUICK = TuneConfig(
    max_steps=12, batch_size=4, learning_rate=0.1, correction_rate=0.05, context_length=64, holdout=0.3, top_k=3
)


def examples(text: str, count: int = 16) -> list[Text]:
    """Return documents that begin at different places of a text that repeats itself."""
    return [Text((text * 4)[number : number + len(text) * 2]) for number in range(count)]


SWAPPED = (("law", CODE), ("code", LAW))
PROXY = examples(LAW) + examples(CODE)


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MoE that is wrong on purpose: law has the counts of legal text and learned programs, code the reverse."""
    folder = tmp_path_factory.mktemp("tuning")
    base, null = tiny_base(folder / "base"), folder / "null.txt"
    null.write_text(GENERIC * 20, encoding="utf-8")
    quick = TrainConfig(rank=4, learning_rate=2e-2, max_steps=40, context_length=64, holdout=0.0)
    experts = [train(bases.find(str(base)), name, examples(text), folder / name, quick) for name, text in SWAPPED]
    for expert, text in zip(experts, (LAW, CODE), strict=True):
        counted = tiny_expert(folder / "counted", base, text=text * 30)
        shutil.copyfile(counted / STATISTICS_FILE, expert.folder / STATISTICS_FILE)
        seal(expert.folder, expert.card)
    with prepare(Recipe(str(base), tuple(str(one.folder) for one in experts), str(null))) as prepared:
        prepared.write(folder / "moe")
    return folder / "moe"


def opened(moe: Path, config: TuneConfig = QUICK, *, experts: bool = False) -> Opened:
    return polish.open_moe(str(moe), config, experts=experts, base=None, backend="auto")


def test_tuning_mends_a_gate_whose_counts_are_wrong(moe: Path, tmp_path: Path) -> None:
    """Text that its own expert cannot read is sent to the other, and the loss falls; it loads as it was measured."""
    model = opened(moe)
    rows = material.prepare(model, PROXY, QUICK)
    legal = [row for row in rows.held_out if "court" in model.tokenizer.decode(row.ids)]
    before = routing(model, legal)
    config = dataclasses.replace(QUICK, max_steps=60, learning_rate=0.3, correction_rate=0.1, schedule="constant")
    outcome = polish.tune(model, PROXY, tmp_path / "tuned", config)
    assert outcome.after < outcome.before - 0.3
    assert 0 < outcome.kept <= outcome.steps == 60
    again = open_model(str(tmp_path / "tuned"), dtype=torch.float32)
    assert evaluate_loss(again.model, rows.held_out)[0] == pytest.approx(outcome.after, abs=1e-6)
    after = routing(again, legal)
    assert before["law"] > 0.8
    assert after["code"] > 0.8
    facts = again.model.gate.facts
    assert (facts.tokens, facts.rounds, facts.loss_after) == (outcome.tokens, 1, outcome.after)


def test_the_same_tuning_gives_the_same_bytes_and_dropping_it_the_old_ones(moe: Path, tmp_path: Path) -> None:
    """Nothing of a tuning is left to chance, and nothing of it stays."""
    for name in ("one", "two"):
        polish.tune(opened(moe), PROXY, tmp_path / name, QUICK)
    assert files.tree_digest(tmp_path / "one") == files.tree_digest(tmp_path / "two")
    assert files.tree_digest(tmp_path / "one") != files.tree_digest(moe)
    with prepare_change(tmp_path / "one", untuned=True) as change:
        change.write()
    assert files.tree_digest(tmp_path / "one") == files.tree_digest(moe)


def test_the_gradient_of_a_step_is_that_of_the_loss_as_it_is_written(moe: Path) -> None:
    """Worked off in parts, with the gate made once, as if all were one graph: by finite differences in float32."""
    model = opened(moe)
    config = dataclasses.replace(QUICK, part_tokens=70, balance=0.3, z=0.2)
    rows = material.prepare(model, PROXY, config).training[:5]
    gate = training.opened_gate(model, config)
    gate.move({name: 0.2 * torch.randn(now.shape) for name, now in gate.learned().items()})
    model.model.requires_grad_(requires_grad=False)
    model.model.gate = gate
    for parameter in gate.learned().values():
        parameter.requires_grad_()

    def loss() -> float:
        decision, text = training._decide(model.model, gate, rows)
        with torch.no_grad():
            nats = training._loss(model.model, gate, rows, decision.gate, config) / material.learned(rows)
            order = config.balance * imbalance(decision.gate[text], has_null=True)
            return float(nats + order + config.z * decision.log_scale[text].square().mean())

    training._step(model.model, gate, rows, config)
    for name in ("number/kappa", "number/rho", "bias", "weight"):
        parameter = gate.learned()[name]
        assert parameter.grad is not None
        place = parameter.grad.abs().argmax()
        flat, step = parameter.data.view(-1), 3e-3
        flat[place] += step
        above = loss()
        flat[place] -= 2 * step
        below = loss()
        flat[place] += step
        slope = float(parameter.grad.flatten()[place])
        assert (above - below) / (2 * step) == pytest.approx(slope, rel=0.05, abs=2e-4), name


def test_balancing_evens_out_what_experts_get(moe: Path) -> None:
    """With the loss for it alone, an uneven text is spread over the experts."""
    uneven = examples(LAW, 24)
    found = []
    for balance in (0.0, 20.0):
        model, config = opened(moe), dataclasses.replace(QUICK, balance=balance, z=0.0, max_steps=30)
        rows = material.prepare(model, uneven, config)
        gate = training.opened_gate(model, config)
        model.model.requires_grad_(requires_grad=False)
        groups = training._groups(model.model, gate, config, experts=False)
        optimizer = torch.optim.AdamW(groups, weight_decay=0)
        for some in material.batches(rows.training, config, 30):
            decision, text = training._decide(model.model, gate, some)
            (balance * imbalance(decision.gate[text], has_null=True) + 0 * decision.gate.sum()).backward()
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            decision, text = training._decide(model.model, gate, rows.held_out)
        found.append(float(imbalance(decision.gate[text], has_null=True)))
    assert found[0] > 1.7
    assert found[1] < 1.3


def test_what_helps_nothing_is_not_kept(moe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no state is better on the held-out text than the start, the MoE is written as it was, to the byte."""
    losses = iter([2.0, 2.0, 2.1, 2.2, 2.3])
    monkeypatch.setattr(training, "evaluate_loss", lambda *_: (next(losses), 100))
    outcome = polish.tune(opened(moe), PROXY, tmp_path / "tuned", QUICK)
    assert (outcome.kept, outcome.before, outcome.after) == (0, 2.0, 2.0)
    assert files.tree_digest(tmp_path / "tuned") == files.tree_digest(moe)


def test_experts_are_trained_too(moe: Path, tmp_path: Path) -> None:
    """Their folders are new ones with new cards, the card says so, and it loads as it was measured."""
    config = dataclasses.replace(QUICK, expert_rate=3e-3)
    model = opened(moe, config, experts=True)
    outcome = polish.tune(model, PROXY, tmp_path / "tuned", config, experts=True)
    assert outcome.after < outcome.before
    again = open_model(str(tmp_path / "tuned"), dtype=torch.float32)
    held_out = material.prepare(again, PROXY, config).held_out
    assert evaluate_loss(again.model, held_out)[0] == pytest.approx(outcome.after, abs=1e-5)
    versions = [open_expert(tmp_path / "tuned" / "experts" / name).card.version for name in ("law", "code")]
    assert versions == [2, 2]
    card = (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    assert "The experts were trained with it" in card


def test_a_gate_is_tuned_from_where_it_stands(moe: Path, tmp_path: Path) -> None:
    """A second round starts at the first one's loss, and counts its tokens and itself."""
    first = polish.tune(opened(moe), PROXY, tmp_path / "one", QUICK)
    again = dataclasses.replace(QUICK, learning_rate=0.01, correction_rate=0.01, seed=1, measurements=12)
    second = polish.tune(opened(tmp_path / "one"), PROXY, tmp_path / "two", again)
    assert second.before == pytest.approx(first.after, abs=1e-6)
    facts = open_model(str(tmp_path / "two")).model.gate.facts
    assert (facts.rounds, facts.tokens) == (2, first.tokens + second.tokens)


def update(moe: Path, path: Path, text: list[Text], config: TuneConfig = QUICK) -> Path:
    polish.make_update(opened(moe, config), text, path, config)
    return path


@pytest.fixture(scope="module")
def two(moe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Updates of two contributors."""
    folder = tmp_path_factory.mktemp("updates")
    before = files.tree_digest(moe)
    found = update(moe, folder / "a.update", PROXY), update(moe, folder / "b.update", examples(LAW, 12))
    assert files.tree_digest(moe) == before
    return found


def test_the_mean_of_one_update_is_what_it_made(moe: Path, two: tuple[Path, Path], tmp_path: Path) -> None:
    """The same gate, to the byte, as tuning the MoE on the text itself."""
    polish.tune(opened(moe), PROXY, tmp_path / "tuned", QUICK)
    (share,) = polish.average(str(moe), two[:1], tmp_path / "mean")
    assert (share.share, share.scale) == (1.0, 1.0)
    tuned, mean = tmp_path / "tuned", tmp_path / "mean"
    assert files.sha256(tuned / "tuned.safetensors") == files.sha256(mean / "tuned.safetensors")
    numbers = [json.loads((one / "config.json").read_text())["router"]["tuned"]["numbers"] for one in (tuned, mean)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-15)


def test_updates_are_averaged_by_their_tokens(moe: Path, two: tuple[Path, Path], tmp_path: Path) -> None:
    """(n_a·Δ_a + n_b·Δ_b) / (n_a + n_b); the next round starts from there."""
    shares = polish.average(str(moe), two, tmp_path / "mean")
    changes, tokens = [load_file(path) for path in two], [one.update.facts.tokens for one in shares]
    expected = sum(count * change["bias"] for count, change in zip(tokens, changes, strict=True)) / sum(tokens)
    bias = load_file(tmp_path / "mean" / "tuned.safetensors")["bias"]
    torch.testing.assert_close(bias, expected.float())
    facts = open_model(str(tmp_path / "mean")).model.gate.facts
    assert (facts.contributors, facts.tokens, facts.loss_after) == (2, sum(tokens), None)
    update(tmp_path / "mean", tmp_path / "next.update", PROXY)
    polish.average(str(tmp_path / "mean"), [tmp_path / "next.update"], tmp_path / "next")
    with pytest.raises(FederationError, match="is an update of another MoE"):
        polish.average(str(moe), [tmp_path / "next.update"], tmp_path / "wrong")


def changed(path: Path, output: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> Path:
    """Write an update like the one at `path` in which something is another."""
    tensors, facts = load_file(path), dataclasses.asdict(updates.read_facts(path))
    change(tensors, facts)
    save_file(tensors, output, metadata={"moehub": json.dumps(facts)})
    return output


def test_nobody_pulls_harder_than_the_median(moe: Path, two: tuple[Path, Path], tmp_path: Path) -> None:
    """Of three updates the largest is scaled down to the middle one."""
    loud = changed(two[0], tmp_path / "loud", lambda tensors, _: tensors.update(bias=tensors["bias"] + 50))
    shares = polish.average(str(moe), [*two, loud], tmp_path / "mean")
    norms = sorted(one.update.norm for one in shares)
    assert shares[2].scale == pytest.approx(norms[1] / norms[2])
    assert sorted(one.scale for one in shares)[1:] == [1.0, 1.0]


def _poke(name: str, value: float) -> Callable[[dict[str, torch.Tensor], dict[str, Any]], None]:
    return lambda tensors, _: tensors[name].view(-1)[:1].fill_(value)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_poke("bias", float("nan")), "bias holds values that are not finite"),
        (_poke("weight", 1e6), "weight goes 1e[+]06 far, and a polish at most 100"),
        (_poke("number/rho", 9.0), "number/rho goes 9 far"),
        (lambda tensors, _: tensors.pop("bias"), "the tensor 'bias' is missing"),
        (lambda tensors, _: tensors.update(more=torch.zeros(1)), "the tensor 'more' is unknown"),
        (lambda tensors, _: tensors.update(bias=torch.zeros(9).double()), r"expected torch.float64 of \(3,\)"),
        (lambda tensors, _: tensors.update(bias=torch.zeros(10**5).double()), "larger than an update of this MoE"),
        (lambda _, facts: facts.update(tokens=0), "says that it learned 0 tokens"),
        (lambda _, facts: facts.update(moe="f" * 64), "is an update of another MoE"),
        (lambda _, facts: facts.update(recipe="magic"), "by the recipe 'magic', which tuning does not use"),
        (lambda _, facts: facts.update(format=7), "has format 7, expected 1: update moehub"),
        (lambda _, facts: facts.update(colour="red"), "unknown key 'colour'"),
    ],
)
def test_a_bad_update_gets_one_sentence(
    moe: Path, two: tuple[Path, Path], tmp_path: Path, change: Callable[..., None], sentence: str
) -> None:
    """It is checked as anything from strangers is, and nothing is written."""
    with pytest.raises(FederationError, match=sentence):
        polish.average(str(moe), [changed(two[0], tmp_path / "bad", change)], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_updates_that_do_not_go_together_are_refused(moe: Path, two: tuple[Path, Path], tmp_path: Path) -> None:
    """One twice, one that is no update, one with other settings."""
    twice = shutil.copyfile(two[0], tmp_path / "again")
    with pytest.raises(FederationError, match="again is the same update as one before it"):
        polish.average(str(moe), [two[0], twice], tmp_path / "mean")
    (tmp_path / "nothing").write_bytes(b"nothing")
    with pytest.raises(FederationError, match="nothing is no update"):
        polish.average(str(moe), [tmp_path / "nothing"], tmp_path / "mean")
    few = update(moe, tmp_path / "few", PROXY, dataclasses.replace(QUICK, correction=False, numbers=False, max_steps=2))
    with pytest.raises(FederationError, match="with other `numbers` or `correction` than the others"):
        polish.average(str(moe), [two[0], few], tmp_path / "mean")
    polish.average(str(moe), [few], tmp_path / "mean")


def test_a_fingerprint_does_not_depend_on_where_the_base_lies(moe: Path) -> None:
    """Contributors have the base in different places, and the same MoE."""
    parts = opened(moe).model.parts
    moved = dataclasses.replace(parts, config=type(parts.config).from_dict(parts.config.to_dict()))
    moved.config.base["location"] = "/elsewhere"
    assert updates.fingerprint(moved) == updates.fingerprint(parts)
    moved.config.router["top_k"] = 1
    assert updates.fingerprint(moved) != updates.fingerprint(parts)


def test_a_tuning_that_diverges_says_so(moe: Path, tmp_path: Path) -> None:
    """Nothing is written."""
    config = dataclasses.replace(QUICK, expert_rate=1e18, clip=0.0)
    with pytest.raises(TrainingError, match="the tuning diverged"):
        polish.tune(opened(moe, config, experts=True), PROXY, tmp_path / "tuned", config, experts=True)
    assert not (tmp_path / "tuned").exists()


def test_an_interrupted_tuning_leaves_nothing(moe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder appears whole or not at all."""

    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        polish.tune(opened(moe), PROXY, tmp_path / "tuned", QUICK)
    assert list(tmp_path.iterdir()) == []


def test_only_a_gate_that_decides_something_can_be_tuned(moe: Path, tmp_path: Path) -> None:
    """Not arrow's, not that of one expert, not a base."""
    base, expert = moe.parent / "base", moe.parent / "law"
    for name, recipe in (
        ("arrow", Recipe(str(base), (str(expert), str(moe.parent / "code")), router=RouterSettings(method="arrow"))),
        ("one", Recipe(str(base), (str(expert),))),
    ):
        with prepare(recipe) as prepared:
            prepared.write(tmp_path / name)
    with pytest.raises(RouterError, match="'arrow' decides in each layer"):
        polish.preview(opened(tmp_path / "arrow"), PROXY, QUICK)
    with pytest.raises(RouterError, match="one expert and no null expert"):
        polish.preview(opened(tmp_path / "one"), PROXY, QUICK)
    with pytest.raises(RouterError, match="is no MoE but a base: merge first"):
        opened(base)


def test_nothing_is_tuned_without_something_to_measure_on(moe: Path) -> None:
    """The held-out text decides what is kept."""
    with pytest.raises(DataError, match="nothing could be held out of 1 example"):
        polish.preview(opened(moe), [Text(LAW)], QUICK)


def test_a_moe_is_replaced_only_where_that_is_said(moe: Path, tmp_path: Path) -> None:
    """And what is no MoE never."""
    with pytest.raises(MergeError, match="is a MoE already: --overwrite replaces it"):
        polish.check_place(moe, overwrite=False)
    polish.check_place(moe, overwrite=True)
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(MergeError, match="is no MoE"):
        polish.check_place(tmp_path, overwrite=True)


def test_settings_that_contradict_themselves_are_reported_all_at_once() -> None:
    """With the values and what was expected."""
    with pytest.raises(ConfigError) as raised:
        TuneConfig(holdout=0.0, balance=-1.0, top_k=0, learning_rate=0.0)
    assert all(f"{name} = " in str(raised.value) for name in ("holdout", "balance", "top_k", "learning_rate"))
