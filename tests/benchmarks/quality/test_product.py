import torch

from benchmarks.quality.adding import _routed
from benchmarks.quality.many import Shared, crowd
from benchmarks.quality.method import batches
from benchmarks.quality.methods.product import METHODS, Gate, published
from benchmarks.quality.world import World
from moehub.card import STATISTICS_FILE
from moehub.experts.statistics import Statistics
from moehub.router.gate import gate_of
from moehub.router.settings import RouterSettings


def null(world: World) -> Statistics:
    return Statistics.load(world.null() / STATISTICS_FILE)


def test_the_product_is_what_merge_makes(bench: World) -> None:
    """The bench's weights are those that the merged MoE gives its layers."""
    entrant = METHODS[0].make(bench)
    for batch in batches(bench.test["law"]):
        traced = bench.moe.trace(batch.ids[:1])
        weights = entrant.gate(batch)[:1]  # type: ignore[attr-defined]
        length = int(batch.mask[0].sum())
        torch.testing.assert_close(weights[:, :length], traced[:, :length], atol=1e-6, rtol=0)


def test_what_the_experts_say_themselves_moves_the_gate(bench: World) -> None:
    """Where it asks for likelihoods, what was heard of one expert is added to what the counts say."""
    plainly = gate_of(published(bench), null(bench), RouterSettings())
    asking = gate_of(published(bench), null(bench), RouterSettings(method="evidence+likelihood"))
    batch = next(iter(batches(bench.test["law"])))

    def for_math(_: object) -> torch.Tensor:
        return 50.0 * torch.nn.functional.one_hot(torch.full_like(batch.ids, 2), 4)

    plain, moved = Gate(plainly)(batch), Gate(asking, for_math)(batch)
    assert float(moved[..., 2].mean()) > 0.99
    assert float(plain[..., 2].mean()) < 0.9


def test_a_gate_without_somebody_never_names_them(bench: World) -> None:
    """Weights of the others stand in the columns that they have with everybody."""
    others = {name: one for name, one in published(bench).items() if name != "law"}
    batch = next(iter(batches(bench.test["code"])))
    weights = _routed(bench, others, null(bench)).gate(batch)
    assert weights.shape[-1] == len(bench.names) + 1
    assert not weights[..., bench.names.index("law")].any()
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


def test_a_crowd_shares_its_domains_text(bench: World) -> None:
    """Every document is counted by exactly one contributor, and their weights add up by domain."""
    people = crowd(bench, 7)
    assert people.domains == (0, 0, 0, 1, 1, 2, 2)
    assert list(people.counted) == sorted(people.counted)
    gate = Gate(gate_of(people.counted, null(bench), RouterSettings()))
    batch = next(iter(batches(bench.test["law"])))
    single, shared = gate(batch), Shared(gate, people.domains, 3)(batch)
    torch.testing.assert_close(shared[..., 1], single[..., 3:5].sum(-1))
    torch.testing.assert_close(shared[..., 3], single[..., 7])
