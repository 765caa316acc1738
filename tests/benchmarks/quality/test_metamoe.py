import dataclasses
import itertools

import torch

from benchmarks.quality import gating, training
from benchmarks.quality.method import Layered, batch
from benchmarks.quality.methods import metamoe
from benchmarks.quality.methods.metamoe import ContextGates
from benchmarks.quality.rows import Held
from benchmarks.quality.training import Learner
from benchmarks.quality.world import World


def test_text_like_ones_own_is_relevant() -> None:
    """The classifier ranks public text that comes from the same place first."""
    draw = torch.Generator().manual_seed(0)
    own = torch.randn(40, 8, generator=draw) + 2
    public = torch.cat([torch.randn(50, 8, generator=draw), torch.randn(5, 8, generator=draw) + 2])
    assert set(metamoe.relevance(own, public).topk(5).indices.tolist()) == set(range(50, 55))


def test_each_choice_makes_the_determinant_largest() -> None:
    """The quick way chooses as trying every item does."""
    features = torch.randn(7, 4, generator=torch.Generator().manual_seed(1)).double()
    kernel = features @ features.T + 0.1 * torch.eye(7)
    taken: list[int] = []
    for _ in range(4):
        left = [one for one in range(7) if one not in taken]
        taken.append(max(left, key=lambda one: float(torch.det(kernel[[*taken, one]][:, [*taken, one]]))))
    assert metamoe.diverse(kernel, 4) == taken


def test_copies_are_not_chosen_twice() -> None:
    """Where only two texts differ, two are chosen, however many are asked for."""
    z = torch.eye(2).repeat(3, 1)
    assert len(metamoe.diverse(z @ z.T, 5)) == 2


def test_the_context_holds_nothing_that_comes_later(bench: World) -> None:
    """What a token costs is the same whether or not more text follows it."""
    learner = Learner(bench)
    rows = {name: training.own(bench, name) for name in bench.names}
    gates = ContextGates([learner.centres(some) for some in rows.values()])
    entrant: Layered = metamoe.entrant(bench, gates, 2)
    held = bench.tune["law"]
    row, owner = held.rows[0], held.owners[0]
    size = len(row.ids) // 2
    short = dataclasses.replace(row, ids=row.ids[:size], labels=row.labels[:size], lengths=(size,))
    whole = entrant.answer(Held("law", (row,), (owner,))).nats[0]
    begin = entrant.answer(Held("law", (short,), (owner[:size],))).nats[0]
    torch.testing.assert_close(begin, whole[: size - 1], rtol=1e-4, atol=1e-4)


def test_a_share_of_zero_reads_the_token_alone(bench: World) -> None:
    """Contexts then make no difference, and with a share of one nothing else does."""
    learner = Learner(bench)
    gates = ContextGates([learner.centres(training.own(bench, name)) for name in bench.names])
    read = batch(bench.tune["law"], [0])
    x = torch.randn(read.ids.numel(), learner.hidden)
    key = f"{learner.places[0]}.self_attn.q_proj"
    for share, context in itertools.product((0.0, 1.0), (torch.zeros_like(x), torch.randn_like(x))):
        gates.shares.data[:] = share
        found = gates.routing({learner.places[0]: context}, 2).route(key, x).dense
        mixed = gating.rms(x) if share == 0 else context
        expected = gating.chosen(mixed @ gates.rows[0].T, 2, nobody=False).dense
        torch.testing.assert_close(found, expected)
