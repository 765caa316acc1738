import torch

from benchmarks.quality.composites import Composites, factors, mixed
from benchmarks.quality.method import Batch, batch
from benchmarks.quality.methods import mixing, peft_merging
from benchmarks.quality.world import World
from moehub.router.gate import Shared
from moehub.router.route import Route
from tests.benchmarks.quality.conftest import same


def test_uniform_is_the_mean_of_what_experts_add(bench: World) -> None:
    """In each linear the output is the mean of the experts' outputs."""
    entrant = mixing.uniform(bench)
    for key, layer in list(bench.moe.sparse_layers.items())[:4]:
        x = torch.randn(1, 5, int(layer.weight.shape[1]))
        with torch.no_grad():
            bench.moe.board.routing = entrant.routing(_five(bench))
            mean = layer(x)
            each = []
            for expert in range(3):
                bench.moe.board.routing = _fixed(expert, 5)
                each.append(layer(x))
        same(mean, torch.stack(each).mean(0))
        assert not torch.equal(each[0], each[1]), key


def test_one_expert_is_a_composition(bench: World) -> None:
    """A composition of one expert at weight one gives its logits; none gives the base's."""
    found = factors(bench)
    composites = Composites(bench, found, 2)
    composites.put(1, mixed(found, torch.tensor([0.0, 1.0, 0.0])))
    ids = batch(bench.tune["law"], [0]).ids
    with torch.no_grad():
        same(composites.logits(ids, torch.ones_like(ids)), bench.forward(ids, _fixed(1, ids.numel())))
        same(composites.logits(ids, torch.zeros_like(ids)), bench.forward(ids, None))
        same(composites.logits(ids, torch.full_like(ids, -1)), bench.forward(ids, None))


def test_each_token_has_its_own_composition(bench: World) -> None:
    """In one row, tokens of several owners are computed with several compositions."""
    found = factors(bench)
    composites = Composites(bench, found, 3)
    for number in range(3):
        composites.put(number, mixed(found, torch.eye(3)[number]))
    ids = batch(bench.tune["law"], [0]).ids
    numbers = torch.randint(0, 3, ids.shape)
    with torch.no_grad():
        expected = bench.forward(ids, Shared(Route(numbers.flatten()[:, None], torch.ones(ids.numel(), 1), 3)))
    same(composites.logits(ids, numbers), expected)


def test_average_is_pefts_linear(bench: World) -> None:
    """PEFT puts √(w·scale) on A and on B, so that 1/E² for each makes its product that of the means."""
    entrant = mixing.average(bench)
    model = peft_merging.merge(peft_merging.load(bench), kind="linear", weight=1 / 9)
    one = batch(bench.tune["code"], [0, 1])
    with torch.no_grad():
        same(entrant.composites.logits(one.ids, torch.zeros_like(one.ids)), model(input_ids=one.ids).logits)


def test_merging_is_the_same_every_time(bench: World) -> None:
    """DARE drops at random, but what comes out is decided; the adapters that were loaded stay as they are."""
    ids = batch(bench.tune["code"], [0]).ids
    first, second = (peft_merging.load(bench) for _ in range(2))
    peft_merging.merge(second, kind="ties", weight=1.0, density=0.5)
    with torch.no_grad():
        results = [
            peft_merging.merge(model, kind="dare_linear", weight=0.3, density=0.5)(input_ids=ids).logits
            for model in (first, second)
        ]
    same(*results)


def _five(bench: World) -> Batch:
    one = batch(bench.tune["law"], [0])
    return Batch(one.held, one.numbers, one.ids[:, :5], one.mask, one.prompt, one.owners)


def _fixed(expert: int, tokens: int) -> Shared:
    return Shared(Route.fixed(expert, tokens=tokens, experts=3, device=torch.device("cpu")))
