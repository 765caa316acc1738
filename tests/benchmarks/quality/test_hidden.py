import torch

from benchmarks.quality.method import batch
from benchmarks.quality.methods import hidden
from benchmarks.quality.world import World
from moehub.experts import features
from moehub.experts.statistics import FeatureSums
from moehub.router.lda import LdaEvidence
from moehub.router.window import Window
from tests.benchmarks.quality.conftest import same


def test_regression_is_least_squares() -> None:
    """Without a penalty it is what least squares makes of the rows, each contributor weighing the same."""
    rows = [torch.randint(-9, 10, (count, 4)) for count in (30, 50, 20)]
    sums = [FeatureSums("", len(one), one.sum(0), one.T @ one) for one in rows]
    weight, bias = hidden.regression(sums, 0.0)
    x = torch.cat([torch.cat([one, torch.ones(len(one), 1)], 1).double() / len(one) ** 0.5 for one in rows])
    x[:, 4] = torch.cat([torch.full((len(one),), len(one) ** -0.5) for one in rows])
    y = torch.cat(
        [torch.eye(3)[number].expand(len(one), 3).double() / len(one) ** 0.5 for number, one in enumerate(rows)]
    )
    expected = torch.linalg.lstsq(x, y).solution
    same(weight, expected[:4].T.float())
    same(bias, expected[4].float())


def test_evidence_is_the_routers_own(bench: World) -> None:
    """The linear function of smoothed embeddings is the one that moehub's router of that name computes."""
    embedding = hidden._embedding(bench)
    recipe = features.recipe_for(embedding.shape[1])
    weight, bias = torch.randn(4, recipe.dimensions), torch.randn(4)
    one = batch(bench.tune["law"], [0, 1])
    lookup = LdaEvidence(weight, bias, recipe, 1.0)
    expected, _ = lookup(Window(one.ids, one.mask, lambda ids: embedding[ids]), lookup.begin(2, torch.device("cpu")))
    found = hidden.Linear(embedding, recipe, weight, bias)(one)
    same(found[one.mask], expected[one.mask])


def test_everybody_is_summed(bench: World) -> None:
    """There are the sums of every contributor's tokens, and nobody's of generic text."""
    sums = hidden.summed(bench)
    assert list(sums) == [*bench.names, hidden.NOBODY]
    assert sums["law"].count == sum(map(len, bench.documents("law")))


def test_own_text(bench: World) -> None:
    """Embeddings alone tell these domains apart."""
    for make in (hidden.lda, hidden.ridge):
        entrant = make(bench)
        one = batch(bench.test["law"], [0, 1])
        hits = (entrant.gate(one).argmax(-1) == one.owners)[one.mask]
        assert hits.double().mean() > 0.5, make
