from collections.abc import Iterator

import pytest
import torch
from torch import nn

from benchmarks.quality import gating, training
from benchmarks.quality.gating import Gates
from benchmarks.quality.method import Routed
from benchmarks.quality.methods import oracle
from benchmarks.quality.texts import GENERIC
from benchmarks.quality.training import Learner
from benchmarks.quality.world import World
from moehub.experts.packing import IGNORED, Row


def test_a_batch_is_read_as_each_text_alone(bench: World) -> None:
    """Texts end to end cost what the MoE of the bench makes of them one by one."""
    learner, gates = Learner(bench), _gates(bench)
    rows = training.own(bench, "law")[:2] + training.own(bench, "math")[:1]
    packed = learner.pack(rows)
    found = learner.loss(packed, gating.by_block(gates, 2)) * packed.learned
    expected = 0.0
    for row in rows:
        logits = bench.forward(row.ids[None], gating.by_block(gates, 2))[0, :-1].float()
        expected += nn.functional.cross_entropy(logits, row.labels[1:], reduction="sum").item()
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_gradients_reach_the_gate_alone(bench: World) -> None:
    """The slope of the loss is that of a small step, and neither base nor experts get one."""
    learner, gates = Learner(bench), _gates(bench)
    packed = learner.pack(training.own(bench, "code")[:2])

    def loss() -> torch.Tensor:
        return learner.loss(packed, gating.by_block(gates, 4))

    loss().backward()
    slope, step = gates.bias.grad, 1e-2
    assert slope is not None
    place = divmod(int(slope.abs().argmax()), slope.shape[1])
    values = []
    for sign in (1, -1):
        gates.bias.data[place] += sign * step
        values.append(loss().item())
        gates.bias.data[place] -= sign * step
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(slope[place]), rel=0.05)
    assert all(one.grad is None for one in learner.moe.parameters())


def test_means_are_of_each_text(bench: World) -> None:
    """Padding and neighbours have no part in them."""
    learner, rows = Learner(bench), training.own(bench, "law")[:3]
    packed = learner.pack(rows)
    x = packed.inputs["input_ids"].flatten()[:, None].float()
    torch.testing.assert_close(packed.means(x)[:, 0], torch.stack([row.ids.float().mean() for row in rows]))


def test_contributors_take_turns() -> None:
    """Each has the same share of the rows, however many it has, and uses all before one comes again."""
    pool = {"many": [_row(number) for number in range(30)], "few": [_row(100 + number) for number in range(5)]}
    stream = training.batches(pool, "order", tokens=4)
    drawn = [int(row.ids[0]) for _ in range(10) for row in next(stream)]
    assert sum(one >= 100 for one in drawn) == len(drawn) // 2 == 10
    assert sorted(one for one in drawn if one >= 100) == sorted([*range(100, 105)] * 2)
    assert len({one for one in drawn if one < 100}) == 10


def test_rows_are_those_of_the_expert(bench: World) -> None:
    """Prompts are given, answers learned; public text is there too."""
    pool = training.pooled(bench)
    assert list(pool) == [*bench.names, GENERIC]
    asked = pool["math"][0]
    assert int((asked.labels == IGNORED).sum()) > 1
    assert int((pool["law"][0].labels == IGNORED).sum()) == 1


def test_training_ends_when_nothing_improves() -> None:
    """The best state is what is kept, and the note says that it had settled."""
    gate = nn.Linear(1, 1)
    seen: list[float] = []

    def tune() -> float:
        seen.append(gate.bias.item())
        return 1.0 if len(seen) == 2 else 2.0

    ended = training.settle(gate, lambda _: gate.bias.sum(), _nothing(), tune, rate=0.1, most=100, every=1)
    assert ended.settled
    assert (ended.steps, ended.loss) == (5, 1.0)
    assert gate.bias.item() == seen[1]
    assert str(ended).endswith("no longer improving")


def test_training_that_runs_out_of_steps_says_so() -> None:
    """A gate that got better at every look had not settled."""
    gate, looks = nn.Linear(1, 1), iter(range(100, 0, -1))
    ended = training.settle(gate, lambda _: gate.bias.sum(), _nothing(), lambda: next(looks), rate=0.1, most=4, every=2)
    assert not ended.settled
    assert (ended.steps, ended.loss) == (4, 98.0)


def test_settings_are_judged_by_domains_and_switching_alike(bench: World) -> None:
    """Half of the tune loss is the mean over domains, half is the text that switches; experts that fit lower it."""
    texts = training.tuning(bench)
    assert [held.name for held in texts] == [*bench.names, "switching"]
    base: Routed = oracle.base(bench)
    *domains, switching = (float(torch.cat(base.answer(held).nats).mean()) for held in texts)
    assert training.tune_loss(texts, base) == pytest.approx(sum(domains) / 6 + switching / 2)


def _gates(bench: World) -> Gates:
    learner = Learner(bench)
    return Gates(learner.places, learner.hidden, len(bench.names) + 1, seed=1)


def _row(number: int) -> Row:
    ids = torch.tensor([number, number])
    return Row(ids, ids, (2,))


def _nothing() -> Iterator[list[Row]]:
    while True:
        yield []
