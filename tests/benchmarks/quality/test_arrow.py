import torch

from benchmarks.quality.method import batch
from benchmarks.quality.methods import arrow, peft_arrow
from benchmarks.quality.world import World
from moehub.experts.adapter import Adapter
from tests.benchmarks.quality.conftest import same


def test_arrow_weighs_by_the_first_singular_vector(bench: World) -> None:
    """At every linear the weights are the softmax of the largest |x·v|, by the setting that was chosen."""
    entrant = arrow.arrow(bench)
    gate = entrant.routing(batch(bench.tune["law"], [0]))
    settings = gate.settings  # type: ignore[attr-defined]
    for key, layer in list(bench.moe.sparse_layers.items())[:4]:
        x = torch.randn(7, int(layer.weight.shape[1]))
        vectors = [
            torch.linalg.svd(adapter.pairs[key][1] @ adapter.pairs[key][0])[2][0] for adapter in _adapters(bench)
        ]
        logits = (x @ torch.stack(vectors).T).abs() / settings.arrow_temperature
        dropped = logits < logits.topk(min(settings.top_k, 3), -1).values[:, -1:]
        same(gate.route(key, x).dense, logits.masked_fill(dropped, -torch.inf).softmax(-1))


def test_spectr_scores_by_the_whole_spectrum(bench: World) -> None:
    """‖Σ Vᵀ x‖ is the length of what the adapter adds, and the k largest go through a softmax."""
    entrant = arrow.spectr(bench)
    gate = entrant.routing(batch(bench.tune["law"], [0]))
    assert isinstance(gate, arrow.Spectral)
    for key, layer in list(bench.moe.sparse_layers.items())[:4]:
        x = torch.randn(7, int(layer.weight.shape[1]))
        lengths = torch.stack(
            [
                (adapter.scales[key] * adapter.pairs[key][1] @ adapter.pairs[key][0] @ x.T).norm(dim=0)
                for adapter in _adapters(bench)
            ],
            -1,
        )
        same(gate.scores(key, x), lengths)
        route = arrow.Spectral(gate.spectra, top_k=2, temperature=0.5).route(key, x)
        best = lengths.topk(2, -1)
        same(route.weights, (best.values / 0.5).softmax(-1))
        assert torch.equal(route.indices, best.indices)


def test_pefts_arrow_is_seeded(bench: World) -> None:
    """Made twice it gives the same logits: PEFT begins its iteration at random."""
    ids = batch(bench.tune["code"], [0]).ids
    with torch.no_grad():
        first, second = (
            peft_arrow.model(bench, None, top_k=2, temperature=1.0)(input_ids=ids).logits for _ in range(2)
        )
    same(first, second)


def _adapters(bench: World) -> tuple[Adapter, ...]:
    return bench.moe.parts.adapters
