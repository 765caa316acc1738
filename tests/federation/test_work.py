import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moehub import base as bases
from moehub.errors import ConfigError, FederationError, TrainingError
from moehub.experts import adaptation, data, loop, material, packing
from moehub.experts.evaluation import evaluate_loss
from moehub.experts.settings import TrainConfig
from moehub.experts.statistics import Statistics
from moehub.federation import messages, weights
from moehub.federation.messages import Counted, Evaluated, Trained
from moehub.federation.node import adapter, device, memory, work
from moehub.federation.node.memory import Memory
from moehub.federation.settings import NodeConfig
from moehub.federation.weights import A, B, Weights
from tests.builders import tiny_base
from tests.federation.tasks import contributor, counting, evaluation, ignore_peft, moved, small, start, training

pytestmark = ignore_peft


@pytest.fixture
def kept() -> Memory:
    return Memory()


def _train(
    base: Path, folder: Path, kept: Memory, config: TrainConfig, node: dict[str, Any] | None = None, **task: Any
) -> Any:
    """Perform the training, from the beginning of the run where the task does not say otherwise."""
    folder.mkdir(exist_ok=True)
    whole = task.pop("arrays", None) or start(base, config)
    asked = training(base, config, **task)
    sent = weights.trained(whole, frozen_a=asked.frozen_a)
    return work.perform(
        messages.TRAIN, asked, sent, contributor(folder, base, **node or {}), folder / f"round-{asked.round}", kept
    )


def test_training_returns_what_was_learned(tmp_path: Path, base_folder: Path, kept: Memory) -> None:
    """B alone where A is frozen, in float32, and facts about it that name the task."""
    facts, arrays = _train(base_folder, tmp_path, kept, config := small())
    begun = start(base_folder, config)
    assert isinstance(facts, Trained)
    assert (facts.task, facts.digest, facts.rank, facts.kind) == (
        "0" * 64,
        bases.weights_digest(base_folder),
        2,
        "pretrain",
    )
    assert 0 < facts.examples < 40
    assert facts.tokens > 4 * 2
    assert 3 < facts.loss < 8
    assert facts.seconds > 0
    assert {name: array.shape for name, array in arrays.items()} == {
        name: array.shape for name, array in begun.items() if name.endswith(B)
    }
    assert {str(array.dtype) for array in arrays.values()} == {"float32"}
    assert all(array.any() for array in arrays.values())


def test_training_learns(tmp_path: Path, base_folder: Path, kept: Memory) -> None:
    """Each round begins with what the one before gave, and the loss falls."""
    config, whole, losses = small(learning_rate=3e-2), start(base_folder, small()), []
    for number in (1, 2, 3):
        facts, arrays = _train(base_folder, tmp_path, kept, config, round=number, steps=8, arrays=whole)
        whole = {**whole, **arrays}
        losses.append(facts.loss)
    assert losses[0] > losses[1] > losses[2]


def test_both_factors_travel_where_a_is_trained(tmp_path: Path, base_folder: Path, kept: Memory) -> None:
    """And both change."""
    config, whole = small(), moved(start(base_folder, small()))
    _, arrays = _train(base_folder, tmp_path, kept, config, frozen_a=False, arrays=whole)
    assert arrays.keys() == whole.keys()
    assert not any(np.array_equal(arrays[name], whole[name]) for name in whole)


@pytest.mark.parametrize("frozen_a", [False, True])
def test_training_begins_with_what_was_sent(tmp_path: Path, base_folder: Path, kept: Memory, frozen_a: bool) -> None:
    """A step too small to matter gives the same weights back; A is the one that everybody draws."""
    config, drawn = small(learning_rate=1e-12), start(base_folder, small())
    whole = moved(drawn)
    if frozen_a:
        whole |= {name: array for name, array in drawn.items() if name.endswith(A)}
    facts, arrays = _train(base_folder, tmp_path, kept, config, frozen_a=frozen_a, steps=1, arrays=whole)
    for name, array in arrays.items():
        np.testing.assert_allclose(array, whole[name], atol=1e-9)
    expected, _ = _loss(base_folder, tmp_path, config, whole, seen=range(2))
    assert facts.loss == pytest.approx(expected, rel=1e-5)


def _loss(base: Path, folder: Path, config: TrainConfig, whole: Weights, *, seen: Any = None) -> tuple[float, int]:
    """Return the loss of these weights: on the first rows of the first pass, or on what is held out."""
    training_rows, held_out = _rows(base, folder, config)
    rows = held_out
    if seen is not None:
        rows = [training_rows[index] for index in work.share(len(training_rows), seen.start, len(seen), config.seed)]
    with adaptation.quiet():
        model = adaptation.adapt(bases.find(str(base)).load_model(dtype=torch.float32), config)
        adapter.put(model, whole)
        return evaluate_loss(model, rows)


def _rows(base: Path, folder: Path, config: TrainConfig) -> Any:
    tokenizer = bases.find(str(base)).load_tokenizer()
    examples = data.read(contributor(folder, base).data)
    return material.prepare(tokenizer, examples, config, longest=256).rows(join=True)


@pytest.mark.parametrize("node", [{}, {"gradient_checkpointing": True}])
def test_base_is_left_as_it_was(tmp_path: Path, base_folder: Path, kept: Memory, node: dict[str, Any]) -> None:
    """To the bit, after trainings of several ranks and targets and a measurement; nothing hangs on it any more."""
    config = small()
    fresh = bases.find(str(base_folder)).load_model(dtype=torch.float32)
    for changed in (config, small(rank=4, targets="all-linear", dropout=0.1)):
        _train(base_folder, tmp_path, kept, changed, node, steps=2)
        asked = evaluation(base_folder, changed)
        sent = weights.trained(start(base_folder, changed), frozen_a=True)
        work.perform(messages.EVALUATE, asked, sent, contributor(tmp_path, base_folder), tmp_path, kept)
    model = kept.base(training(base_folder, config), contributor(tmp_path, base_folder), config).model
    assert [name for name, _ in model.named_modules()] == [name for name, _ in fresh.named_modules()]
    assert [name for name, value in vars(model).items() if value and name not in vars(fresh)] == []
    ours, theirs = model.state_dict(), fresh.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert (model.training, model.is_activation_checkpointing) == (False, False)
    ids = torch.arange(2, 40)[None]
    assert torch.equal(model(ids).logits, fresh(ids).logits)


def test_failed_task_leaves_the_base_as_it_was(tmp_path: Path, base_folder: Path, kept: Memory) -> None:
    """The next task finds it without an adapter."""
    config = small()
    broken = {name: np.full_like(array, np.nan) for name, array in start(base_folder, config).items()}
    with pytest.raises(TrainingError, match="the training diverged"):
        _train(base_folder, tmp_path, kept, config, arrays=broken)
    again, _ = _train(base_folder, tmp_path, kept, config)
    alone, _ = _train(base_folder, tmp_path / "alone", Memory(), config)
    assert again.loss == alone.loss


@pytest.mark.parametrize(("rows", "size", "rounds"), [(10, 4, 9), (7, 20, 5), (1, 3, 2), (5, 5, 4), (30, 2, 3)])
def test_rounds_cover_the_rows_evenly(rows: int, size: int, rounds: int) -> None:
    """All rounds together see every row as often as any other, but for one, and no round begins anew."""
    parts = [work.share(rows, number * size, size, 3) for number in range(rounds)]
    counted = Counter(index for part in parts for index in part)
    times = [counted[index] for index in range(rows)]
    assert sum(times) == rounds * size
    assert max(times) - min(times) <= 1
    assert [index for part in parts for index in part] == work.share(rows, 0, rounds * size, 3)


def test_each_pass_has_an_order_of_its_own() -> None:
    """Decided by the seed."""
    passes = [work.share(50, number * 50, 50, 3) for number in range(3)]
    assert len({tuple(one) for one in passes}) == 3
    assert work.share(50, 0, 50, 3) != work.share(50, 0, 50, 4)


def test_rounds_learn_their_shares(
    tmp_path: Path, base_folder: Path, kept: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is trained on in a round is that round's part of the sequence, in its order."""
    seen: list[Any] = []
    seeds: list[int] = []

    class Stop(Exception):  # noqa: N818 (it is none)
        pass

    def run(_: Any, rows: Any, config: TrainConfig, *__: Any, **___: Any) -> None:
        seen.append(rows)
        seeds.append(config.seed)
        raise Stop

    monkeypatch.setattr(loop, "run", run)
    config = small(batch_size=3)
    rows, _ = _rows(base_folder, contributor(tmp_path, base_folder).data[0].parent, config)
    for number in (1, 2, 3):
        with pytest.raises(Stop):
            _train(base_folder, tmp_path, kept, config, round=number, steps=5)
    for number, part in enumerate(seen):
        expected = [rows[index].ids.tolist() for index in work.share(len(rows), number * 15, 15, config.seed)]
        assert [row.ids.tolist() for row in part] == expected
    assert len(set(seeds)) == 3  # so that each round drops out anew


@pytest.mark.parametrize("kind", [messages.TRAIN, messages.EVALUATE])
def test_device_is_held_while_it_is_used(
    tmp_path: Path, base_folder: Path, kept: Memory, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """From before the base is moved there until after it has left again, and not while text is read."""
    events: list[str] = []

    def note(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def noted(*given: Any, **more: Any) -> Any:
            events.append(name if name != "to" else f"to {given[1]}")
            return real(*given, **more)

        monkeypatch.setattr(owner, name, noted)

    @contextlib.contextmanager
    def held(_: Any) -> Iterator[None]:
        events.append("held")
        yield
        events.append("free")

    monkeypatch.setattr(device, "held", held)
    note(data, "read")
    note(loop, "run")
    note(work, "evaluate_loss")
    config = small()
    loaded = kept.base(training(base_folder, config), contributor(tmp_path, base_folder), config)
    note(type(loaded.model), "to")
    monkeypatch.setattr(device, "here", lambda: torch.device("cpu", 0))
    sent = weights.trained(start(base_folder, config), frozen_a=True)
    task = training(base_folder, config) if kind == messages.TRAIN else evaluation(base_folder, config)
    work.perform(kind, task, sent, contributor(tmp_path, base_folder), tmp_path / "work", kept)
    used = ["run"] if kind == messages.TRAIN else ["evaluate_loss", "evaluate_loss"]
    assert [event for event in events if event != "to cpu"] == ["read", "held", "to cpu:0", *used, "free"]
    assert events[-2:] == ["to cpu", "free"]


def test_rates_of_all_rounds_are_those_of_one_training(tmp_path: Path, base_folder: Path, kept: Memory) -> None:
    """One warmup and one decay, whatever the rounds."""
    config = small(warmup=0.3)
    for number in (1, 2, 3):
        _train(base_folder, tmp_path, kept, config, round=number, rounds=3, steps=4, frozen_a=False)
    _train(base_folder, tmp_path / "alone", kept, config, round=1, rounds=1, steps=12, frozen_a=False)
    parts = [rate for number in (1, 2, 3) for rate in _rates(tmp_path / f"round-{number}" / "checkpoint-4")]
    assert parts == _rates(tmp_path / "alone" / "round-1" / "checkpoint-12")


def _rates(checkpoint: Path) -> list[float]:
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    return [entry["learning_rate"] for entry in state["log_history"] if "learning_rate" in entry]


def test_training_goes_on_where_it_was_left(
    tmp_path: Path, base_folder: Path, kept: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was finished already is not done again, also by another process; one with other text is."""
    trained: list[Any] = []
    real = loop._Trainer.train

    def train(trainer: Any, **given: Any) -> Any:
        trained.append(given)
        return real(trainer, **given)

    monkeypatch.setattr(loop._Trainer, "train", train)
    first, learned = _train(base_folder, tmp_path, kept, small(), steps=2)
    again, same = _train(base_folder, tmp_path, Memory(), small(), steps=2)
    assert (len(trained), weights.digest(same)) == (1, weights.digest(learned))
    assert (again.tokens, again.loss) == (first.tokens, first.loss)
    (tmp_path / "law.txt").write_text("the lessor may sell the house. " * 40)
    _, other = _train(base_folder, tmp_path, kept, small(), steps=2)
    assert (len(trained), weights.digest(other) != weights.digest(learned)) == (2, True)


def test_fedprox_keeps_the_adapter_near_its_start(tmp_path: Path, base_folder: Path, kept: Memory) -> None:
    """The stronger it pulls, the less a round changes."""
    changes = []
    for proximal in (0.0, 100.0):
        config = small(warmup=0, clip=0)
        _, arrays = _train(base_folder, tmp_path / f"{proximal}", kept, config, proximal=proximal, steps=8)
        changes.append(weights.norm(arrays))
    assert changes[1] < changes[0] / 2


def test_smaller_rank_takes_the_best_approximation(base_folder: Path) -> None:
    """As good as any of that rank (Eckart–Young), balanced, and the same product where nothing is lost."""
    config = small(rank=6)
    whole = moved(start(base_folder, config))
    part = adapter.cut(whole, 2)
    for name in (name.removesuffix(A) for name in whole if name.endswith(A)):
        product = whole[name + B].astype(float) @ whole[name + A]
        energies = np.linalg.svd(product, compute_uv=False)
        missed = np.linalg.norm(product - part[name + B].astype(float) @ part[name + A])
        assert missed == pytest.approx(np.sqrt((energies[2:] ** 2).sum()), rel=1e-4)
        assert part[name + A].shape == (2, whole[name + A].shape[1])
        np.testing.assert_allclose(part[name + A] @ part[name + A].T, part[name + B].T @ part[name + B], atol=1e-5)
    again = adapter.cut({**part, **_padded(part, 6)}, 2)
    for name in part:
        if name.endswith(B):
            a = name.removesuffix(B) + A
            np.testing.assert_allclose(again[name] @ again[a], part[name] @ part[a], atol=1e-6)


def _padded(part: Weights, rank: int) -> Weights:
    """Return the same products in a larger rank."""
    return {
        name: np.pad(array, [(0, rank - 2), (0, 0)] if name.endswith(A) else [(0, 0), (0, rank - 2)], constant_values=0)
        for name, array in part.items()
    }


def test_smaller_rank_can_still_learn_at_the_beginning(base_folder: Path) -> None:
    """B is zero then: rows of A are kept, because two zero factors have no gradient."""
    whole = start(base_folder, small(rank=6))
    part = adapter.cut(whole, 2)
    assert all(np.array_equal(array, whole[name][:2]) for name, array in part.items() if name.endswith(A))
    assert not any(array.any() for name, array in part.items() if name.endswith(B))


def test_node_trains_with_its_own_rank(tmp_path: Path, base_folder: Path, kept: Memory) -> None:
    """It says so, sends that rank, and its output has the scale of all others."""
    config, whole = small(rank=4, alpha=8.0, learning_rate=1e-12), moved(start(base_folder, small(rank=4)))
    facts, arrays = _train(base_folder, tmp_path, kept, config, {"rank": 2}, frozen_a=False, steps=1, arrays=whole)
    assert facts.rank == 2
    assert {array.shape[0] for name, array in arrays.items() if name.endswith(A)} == {2}
    assert {array.shape[1] for name, array in arrays.items() if name.endswith(B)} == {2}
    expected, _ = _loss(base_folder, tmp_path, small(rank=2, alpha=4.0), adapter.cut(whole, 2), seen=range(2))
    assert facts.loss == pytest.approx(expected, rel=1e-5)


def test_own_rank_does_not_exceed_the_federations(tmp_path: Path, base_folder: Path, kept: Memory) -> None:
    """A larger one would be cut off again by the server."""
    facts, _ = _train(base_folder, tmp_path, kept, small(), {"rank": 8}, frozen_a=False, steps=1)
    assert facts.rank == 2


def test_own_rank_is_refused_where_a_is_frozen(tmp_path: Path, base_folder: Path, kept: Memory) -> None:
    """All nodes must have the same A then."""
    with pytest.raises(FederationError, match="trains with rank 1, but the federation freezes A at rank 2"):
        _train(base_folder, tmp_path, kept, small(), {"rank": 1})


def test_saving_memory_does_not_change_what_is_learned(tmp_path: Path, base_folder: Path, kept: Memory) -> None:
    """The contributor's own accumulation and checkpointing hold, and give the same up to rounding."""
    _, plain = _train(base_folder, tmp_path, kept, small(batch_size=4))
    node = {"accumulation": 4, "gradient_checkpointing": True}
    asked, task = small(batch_size=4), training(base_folder, small())
    own = work._own(asked, task, contributor(tmp_path, base_folder, **node))
    assert (own.accumulation, own.gradient_checkpointing) == (4, True)
    assert work._own(
        small(gradient_checkpointing=True), task, contributor(tmp_path, base_folder)
    ).gradient_checkpointing
    _, saving = _train(base_folder, tmp_path / "saving", kept, asked, node)
    for name, array in plain.items():
        np.testing.assert_allclose(saving[name], array, atol=2e-4)


def test_accumulation_that_does_not_fit_is_refused(tmp_path: Path, base_folder: Path, kept: Memory) -> None:
    """It has to divide the federation's batch."""
    with pytest.raises(ConfigError, match="accumulation = 3, expected a divisor of batch_size = 2"):
        _train(base_folder, tmp_path, kept, small(), {"accumulation": 3})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"digest": "f" * 64},
            "the base of this node .* has digest [0-9a-f]{12}, the federation trains on ffffffffffff",
        ),
        ({"tokenizer": "f" * 64}, "the base's tokenizer of this node .* has digest [0-9a-f]{12}, .* ffffffffffff"),
        ({"start": "f" * 64}, "draws has digest [0-9a-f]{12}, the federation began with ffffffffffff"),
        ({"settings": "{"}, "the task's settings are no JSON"),
        ({"round": 4}, "the task is round 4 of 3"),
        ({"round": 0}, "the task is round 0 of 3"),
        ({"proximal": -1.0}, "with proximal = -1.0"),
    ],
)
def test_task_that_does_not_fit_is_refused(
    tmp_path: Path, base_folder: Path, kept: Memory, change: dict[str, Any], sentence: str
) -> None:
    """Before anything is trained; the sentence names both sides."""
    with pytest.raises(FederationError, match=sentence):
        _train(base_folder, tmp_path, kept, small(), **change)


def test_settings_of_another_version_are_refused(tmp_path: Path, base_folder: Path, kept: Memory) -> None:
    """Unknown ones would be ignored on one side only."""
    settings = json.dumps({**dataclasses.asdict(small()), "momentum": 0.9})
    with pytest.raises(ConfigError, match="unknown key 'momentum'"):
        _train(base_folder, tmp_path, kept, small(), settings=settings)


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "dtype"])
def test_weights_of_another_form_are_refused(tmp_path: Path, base_folder: Path, kept: Memory, fault: str) -> None:
    """The sentence names the tensor, what came and what was expected."""
    config = small()
    sent = weights.trained(start(base_folder, config), frozen_a=True)
    name = next(iter(sent))
    if fault == "missing":
        del sent[name]
    elif fault == "unknown":
        sent["lm_head.weight"] = sent[name]
    else:
        sent[name] = sent[name].T if fault == "shape" else sent[name].astype("f8")
    with pytest.raises(FederationError, match=r"the federation sent .* as .*, expected .* of float32"):
        work.perform(
            messages.TRAIN, training(base_folder, config), sent, contributor(tmp_path, base_folder), tmp_path, kept
        )


def test_evaluation_measures_base_and_expert_on_what_is_held_out(
    tmp_path: Path, base_folder: Path, kept: Memory
) -> None:
    """The same losses as by hand; the node's own rank does not matter for a whole expert."""
    config, drawn = small(), start(base_folder, small())
    whole = moved(drawn) | {name: array for name, array in drawn.items() if name.endswith(A)}
    facts, arrays = work.perform(
        messages.EVALUATE,
        evaluation(base_folder, config),
        weights.trained(whole, frozen_a=True),
        contributor(tmp_path, base_folder, rank=1),
        tmp_path,
        kept,
    )
    expert, tokens = _loss(base_folder, tmp_path, config, whole)
    base, _ = _loss(base_folder, tmp_path, config, drawn)
    assert isinstance(facts, Evaluated)
    assert (facts.task, facts.digest, facts.tokens) == ("0" * 64, bases.weights_digest(base_folder), tokens)
    assert facts.base_loss == pytest.approx(base, rel=1e-5)
    assert facts.expert_loss == pytest.approx(expert, rel=1e-5)
    assert facts.base_loss != facts.expert_loss
    assert arrays == {}


def test_evaluation_of_nothing_is_zero_tokens(tmp_path: Path, base_folder: Path, kept: Memory) -> None:
    """And no losses that are no numbers."""
    config = small(holdout=0)
    sent = weights.trained(start(base_folder, config), frozen_a=True)
    facts, _ = work.perform(
        messages.EVALUATE, evaluation(base_folder, config), sent, contributor(tmp_path, base_folder), tmp_path, kept
    )
    assert (facts.base_loss, facts.expert_loss, facts.tokens) == (0.0, 0.0, 0)


@pytest.mark.parametrize(("asked", "own", "holds"), [(0, 0, 0), (2, 5, 5), (5, 2, 5)])
def test_statistics_are_those_of_the_training_split(
    tmp_path: Path, base_folder: Path, kept: Memory, asked: int, own: int, holds: int
) -> None:
    """Counted as for any expert; the stronger of the two suppressions holds."""
    config = small(pair_bits=10, suppress_below=asked)
    node = contributor(tmp_path, base_folder, suppress_below=own)
    facts, arrays = work.perform(messages.STATISTICS, counting(base_folder, config), {}, node, tmp_path, kept)
    assert isinstance(facts, Counted)
    assert (facts.suppressed_below, facts.recipe, facts.features) == (holds, "", 0)
    counted = Statistics.from_arrays(dataclasses.asdict(facts), arrays)
    tokenizer = bases.find(str(base_folder)).load_tokenizer()
    examples = data.read(node.data)
    documents = material.prepare(tokenizer, examples, config, longest=256).documents
    expected = torch.bincount(torch.cat([one.seen for one in documents]), minlength=len(tokenizer))
    assert torch.equal(counted.unigrams, expected.where(expected >= holds, 0))


def test_counts_with_noise_are_not_counted(tmp_path: Path, base_folder: Path, kept: Memory) -> None:
    """A server that asks for them, which ours does not, is told so."""
    asked = counting(base_folder, small(pair_bits=10, private=1.0))
    with pytest.raises(FederationError, match="leave private out"):
        work.perform(messages.STATISTICS, asked, {}, contributor(tmp_path, base_folder), tmp_path, kept)


def test_feature_sums_are_counted_where_they_are_asked_for(tmp_path: Path, base_folder: Path, kept: Memory) -> None:
    """Their recipe and number of tokens are facts."""
    config = small(pair_bits=10, features=True)
    node = contributor(tmp_path, base_folder)
    facts, arrays = work.perform(messages.STATISTICS, counting(base_folder, config), {}, node, tmp_path, kept)
    assert facts.recipe != ""
    assert facts.features > 100
    assert {"features.sum", "features.gram"} <= arrays.keys()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what is loaded, read and packed."""
    found: list[str] = []

    def note(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def noted(*given: Any, **more: Any) -> Any:
            found.append(name)
            return real(*given, **more)

        monkeypatch.setattr(owner, name, noted)

    note(adaptation, "load")
    note(data, "read")
    note(material.Material, "rows")
    return found


def test_base_and_text_stay_loaded(tmp_path: Path, base_folder: Path, kept: Memory, loads: list[str]) -> None:
    """From round to round and for other kinds of tasks; two contributors share the base."""
    config = small()
    for number in (1, 2):
        _train(base_folder, tmp_path, kept, config, round=number, steps=1)
    sent = weights.trained(start(base_folder, config), frozen_a=True)
    node = contributor(tmp_path, base_folder)
    work.perform(messages.EVALUATE, evaluation(base_folder, config), sent, node, tmp_path, kept)
    work.perform(messages.STATISTICS, counting(base_folder, config), {}, node, tmp_path, kept)
    assert sorted(loads) == ["load", "read", "rows"]
    _train(base_folder, tmp_path / "other", kept, config, steps=1)
    assert sorted(loads) == ["load", "read", "read", "rows", "rows"]


def test_what_changed_is_read_again(tmp_path: Path, base_folder: Path, kept: Memory, loads: list[str]) -> None:
    """A file that was written to, settings that decide about rows, and another base."""
    config = small()
    _train(base_folder, tmp_path, kept, config, steps=1)
    (tmp_path / "law.txt").write_text("the lessor may sell the house. " * 40)
    facts, _ = _train(base_folder, tmp_path, kept, config, round=2, steps=1)
    assert facts.examples == 1
    _train(base_folder, tmp_path, kept, small(holdout=0.3), round=3, steps=1)
    assert loads.count("read") == 3
    other = tiny_base(tmp_path / "other", seed=9)
    facts, _ = _train(other, tmp_path, kept, config, steps=1)
    assert facts.digest == bases.weights_digest(other)
    assert loads.count("load") == 2


def test_examples_have_rows_of_their_own_where_the_base_mixes_them(
    tmp_path: Path, base_folder: Path, kept: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when an expert is trained alone."""
    monkeypatch.setattr(memory, "keeps_apart", lambda _: False)
    _train(base_folder, tmp_path, kept, config := small(context_length=64), steps=1)
    node = contributor(tmp_path, base_folder)
    loaded = kept.base(training(base_folder, config), node, config)
    assert {len(row.lengths) for row in kept.text(loaded, node, config).rows(join=loaded.joins)[0]} == {1}
    assert packing.keeps_apart(loaded.model)


def test_contributors_text_is_its_own(tmp_path: Path, base_folder: Path, kept: Memory) -> None:
    """What one node's text taught is not what another's did."""
    (tmp_path / "code.txt").write_text("def add(a, b): return a + b\n" * 40)
    _, law = _train(base_folder, tmp_path, kept, small())
    node = NodeConfig("code", (tmp_path / "code.txt",))
    _, code = _train(base_folder, tmp_path, kept, small(), {"data": node.data})
    assert any(not np.array_equal(law[name], code[name]) for name in law)
