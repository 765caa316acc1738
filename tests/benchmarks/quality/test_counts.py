import torch

from benchmarks.quality.method import Batch, batch
from benchmarks.quality.methods import counts
from benchmarks.quality.world import World
from tests.benchmarks.quality.conftest import same


def test_logarithms_by_hand() -> None:
    """Counts are smoothed towards the null's, with one added to each, by K pseudo-counts."""
    null, one = torch.tensor([5, 0, 2]), torch.tensor([1, 3, 0])
    q = torch.tensor([6, 1, 3]) / 10
    found = counts.logarithms([one, null], 4.0)
    same(found[:, 0] + q.log(), ((one + 4 * q) / (4 + 4)).log())
    same(found[:, 1] + q.log(), ((null + 4 * q) / (7 + 4)).log())


def test_columns_do_not_depend_on_each_other() -> None:
    """Another contributor changes nobody's column."""
    null, one, other = torch.randint(0, 9, (3, 40))
    same(counts.logarithms([one, other, null], 30.0)[:, [0, 2]], counts.logarithms([one, null], 30.0))


def test_no_pair_spans_two_documents() -> None:
    """Pairs are counted within each document, by the bucket that the format says."""
    tokens, pairs = counts.counted([torch.tensor([1, 2]), torch.tensor([3, 1, 2])], 5, 64)
    assert tokens.tolist() == [0, 2, 2, 1, 0]
    buckets = [(1 * 1000003 + 2) % 64, (3 * 1000003 + 1) % 64]
    assert (int(pairs.sum()), int(pairs[buckets[0]]), int(pairs[buckets[1]])) == (3, 2, 1)


def test_evidence_is_of_the_token_and_half_of_its_pair() -> None:
    """The first token of a text has no pair."""
    tokens, pairs = torch.randn(6, 3), torch.randn(16, 3)
    table = counts.Counts(tokens, pairs, 0)
    ids = torch.tensor([[4, 1, 5]])
    one = Batch(None, (), ids, ids > 0, ids < 0, ids)  # type: ignore[arg-type]
    found = table(one)[0]
    same(found[0], tokens[4])
    same(found[2], tokens[5] + 0.5 * pairs[(1 * 1000003 + 5) % 16])


def test_own_text(bench: World) -> None:
    """Whoever's words they are is found, and one expert at most has weight where one may."""
    gates = [counts.released(bench, top_k).gate for top_k in (1, 2)]
    for name in bench.names:
        one = batch(bench.test[name], [0, 1])
        for top_k, gate in enumerate(gates, 1):
            weights = gate(one)
            hits = (weights.argmax(-1) == one.owners)[one.mask & (torch.arange(one.ids.shape[1]) > 12)]
            assert hits.double().mean() > 0.8, name
            assert int((weights > 0).sum(-1).max()) <= top_k


def test_contributors_send_counts(bench: World) -> None:
    """What travels are the counts of three and more."""
    assert 0 < counts.Counts.of(bench).bytes < 100_000
