import dataclasses
import functools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from moehub.experts.features import recipe_for, sums
from moehub.experts.statistics import Statistics, count
from moehub.router import pace, posterior
from moehub.router.arrow import ArrowGate
from moehub.router.gate import PosteriorGate, Recorder, Shared, _filter_device, load_gate
from moehub.router.method import Contributor, flatten, parse
from moehub.router.route import Route
from moehub.router.settings import RouterSettings
from moehub.router.window import Window

CPU = torch.device("cpu")
VOCABULARY, HIDDEN = 30, 8
TABLE = torch.randn(VOCABULARY, HIDDEN, generator=torch.Generator().manual_seed(0))
RANGES = {"code": (0, 12), "law": (10, 22), "null": (0, 30)}


def text(low: int, high: int, *, tokens: int, seed: int) -> Tensor:
    return torch.randint(low, high, (tokens,), generator=torch.Generator().manual_seed(seed))


@functools.cache
def statistics(name: str) -> Statistics:
    ids = text(*RANGES[name], tokens=3000, seed=len(name))
    counted = count([ids], tokenizer="t", vocabulary=VOCABULARY, pair_bits=8)
    features = sums([ids], TABLE, recipe_for(HIDDEN))
    return Statistics(counted.tokenizer, counted.unigrams, counted.pairs, features=features)


def gate(method: str, *, null: bool = True, **others: float) -> PosteriorGate:
    settings = RouterSettings(method=method, unigram_strength=20.0, pair_strength=50.0, **others)  # type: ignore[arg-type]
    contributors = [Contributor(name, statistics(name), dict) for name in ("law", "code")]
    tensors: dict[str, Tensor] = {}
    for one in parse(method):
        tensors |= flatten(one.name, one.solve(contributors, statistics("null") if null else None, settings))
    loaded = load_gate(tensors, settings, names=["code", "law"], has_null=null)
    assert isinstance(loaded, PosteriorGate)
    return loaded


def window(ids: Sequence[Sequence[int]] | Tensor, mask: Tensor | None = None) -> Window:
    tensor = torch.as_tensor(ids)
    return Window(tensor, torch.ones_like(tensor, dtype=torch.bool) if mask is None else mask, lambda one: TABLE[one])


BATCH = torch.stack([text(0, 30, tokens=40, seed=5), text(10, 22, tokens=40, seed=6), text(0, 12, tokens=40, seed=7)])


def test_two_methods_multiply_their_evidence() -> None:
    """The gate of evidence+lda filters the sum of both log evidences, in whatever order they were named."""
    whole, alone = gate("evidence+lda"), [gate("evidence"), gate("lda")]
    parts = [one.sources[0](window(BATCH), one.sources[0].begin(3, CPU))[0] for one in alone]  # type: ignore[operator]
    together = parts[0] + parts[1]
    state = alone[0].begin(3, CPU)
    expected = pace.follow(together, state.belief, rates=(0.0005, 0.02), change=0.002, chain=posterior.filter_loop).sum(
        2
    )
    actual, _ = whole(window(BATCH), whole.begin(3, CPU))
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-7)
    assert torch.equal(gate("lda+evidence")(window(BATCH), whole.begin(3, CPU))[0], actual)
    assert not torch.allclose(actual, alone[0](window(BATCH), state)[0], atol=1e-2)


def test_hidden_states_are_seen_as_they_were_summed() -> None:
    """A token's evidence is Fisher's discriminant of its smoothed, scaled embedding, tempered."""
    one, recipe, ids = gate("lda", null=False), recipe_for(HIDDEN), BATCH[0]
    features = [statistics(name).features for name in ("code", "law")]
    means = [part.sum.double() / part.count for part in features if part is not None]
    spreads = [part.gram.double() / part.count for part in features if part is not None]
    pooled = sum(gram - torch.outer(mean, mean) for gram, mean in zip(spreads, means, strict=True)) / 2
    pooled = 0.99 * pooled + 0.01 * pooled.diagonal().mean() * torch.eye(HIDDEN, dtype=torch.float64)  # type: ignore[union-attr]
    expected, running = [], torch.zeros(HIDDEN, dtype=torch.float64)
    for number, token in enumerate(ids.tolist(), start=1):
        hidden = TABLE[token].double()
        running = 0.9 * running + 0.1 * hidden / hidden.square().mean().sqrt()
        x = recipe.scale * running / (1 - 0.9**number)
        distances = [(x - mean) @ torch.linalg.solve(pooled, x - mean) for mean in means]
        expected.append(-0.05 * 0.5 * (distances[0] - distances[1]))
    evidence, _ = one.sources[0](window(ids[None]), one.sources[0].begin(1, CPU))  # type: ignore[operator]
    difference = (evidence[0, :, 0] - evidence[0, :, 1]).double()
    torch.testing.assert_close(difference, torch.stack(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["evidence", "lda", "evidence+lda"])
@pytest.mark.parametrize("cut", [1, 17, 39])
def test_the_state_is_all_that_the_past_says(method: str, cut: int) -> None:
    """A text in two windows has the posteriors of the text in one, and ends in the same state."""
    one = gate(method)
    whole, end = one(window(BATCH), one.begin(3, CPU))
    first, state = one(window(BATCH[:, :cut]), one.begin(3, CPU))
    second, after = one(window(BATCH[:, cut:]), state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(after.belief, end.belief, atol=1e-5, rtol=0)


def test_a_state_of_selected_rows_is_the_state_of_those_texts() -> None:
    """Selecting, repeating and reordering rows of a state is what would have come of such a batch."""
    one, rows = gate("evidence+lda"), torch.tensor([2, 0, 0, 1])
    _, state = one(window(BATCH[:, :23]), one.begin(3, CPU))
    _, expected = one(window(BATCH[rows, :23]), one.begin(4, CPU))
    chosen = state.select(rows)
    assert torch.equal(chosen.belief, expected.belief)
    for mine, theirs in zip(chosen.memories, expected.memories, strict=True):
        assert all(torch.allclose(left, right, atol=1e-6) for left, right in zip(mine, theirs, strict=True))
    later, _ = one(window(BATCH[rows, 23:]), chosen)
    torch.testing.assert_close(later, one(window(BATCH[rows]), one.begin(4, CPU))[0][:, 23:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["evidence", "lda", "evidence+lda"])
def test_padding_before_a_text_changes_no_posterior(method: str) -> None:
    """A padded row of a batch has the posteriors of its text alone, whatever stands in the padding."""
    one, text_ids = gate(method), BATCH[1:2]
    alone, _ = one(window(text_ids), one.begin(1, CPU))
    padded = torch.cat([torch.full((1, 19), 3), text_ids], 1)
    mask = torch.cat([torch.zeros(1, 19, dtype=torch.bool), torch.ones_like(text_ids, dtype=torch.bool)], 1)
    found, _ = one(window(padded, mask), one.begin(1, CPU))
    torch.testing.assert_close(found[:, 19:], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("null", [True, False])
def test_there_is_a_column_for_everybody(null: bool) -> None:
    """The null expert has the last column where there is one; without, the experts share everything."""
    one = gate("evidence+lda", null=null)
    filtered, _ = one(window(BATCH), one.begin(3, CPU))
    assert filtered.shape == (3, 40, 2 + null)
    torch.testing.assert_close(filtered.sum(-1), torch.ones(3, 40, dtype=torch.float64))
    route = one.routing(filtered).shared
    assert route.dense.shape == (120, 2)
    share = route.dense.sum(-1)
    assert bool((share < 0.999).any()) == null


def test_columns_are_in_the_order_of_the_names() -> None:
    """Text of one contributor goes to the column of its name, and mixed text to the null's, last."""
    one = gate("evidence")
    for column, name in enumerate(("code", "law", "null")):
        ids = text(*RANGES[name], tokens=200, seed=99)[None]
        filtered, _ = one(window(ids), one.begin(1, CPU))
        assert int(filtered[0, -1].argmax()) == column


def test_every_linear_is_told_the_same() -> None:
    """The shared routing answers each key with one route, flattened batch by batch."""
    one = gate("evidence", top_k=1)
    filtered, _ = one(window(BATCH), one.begin(3, CPU))
    shared = one.routing(filtered)
    assert isinstance(shared, Shared)
    assert shared.route("a", torch.zeros(1)) is shared.route("b", torch.ones(2))
    best = filtered.flatten(0, 1).argmax(-1)
    dense = shared.shared.dense
    assert torch.equal(dense.argmax(-1)[best < 2], best[best < 2])
    assert not dense[best == 2].any()


def test_arrow_alone_makes_the_layers_gate() -> None:
    """A method of kind `layer` is its own gate, without a null expert and without a state."""
    adapter = {"q": (torch.eye(4)[:2], torch.eye(4)[:, :2])}
    (method,) = parse("arrow")
    settings = RouterSettings(method="arrow")
    tensors = flatten("arrow", method.solve([Contributor("law", None, lambda: adapter)], None, settings))
    assert isinstance(load_gate(tensors, settings, names=["law"], has_null=True), ArrowGate)


def test_a_recorder_adds_up_what_was_decided() -> None:
    """The recorder passes decisions on unchanged and keeps their sum."""

    class Alternating:
        def __init__(self) -> None:
            self.calls = 0

        def route(self, key: str, x: Tensor) -> Route:
            self.calls += 1
            return Route.fixed(len(key) % 2, tokens=len(x), experts=2, device=CPU)

    recorder = Recorder(Alternating())
    routes = [recorder.route(key, torch.zeros(3, 4)) for key in ("a", "bb", "ccc")]
    assert [route.dense.argmax(-1).tolist() for route in routes] == [[1] * 3, [0] * 3, [1] * 3]
    assert recorder.total is not None
    assert (recorder.total / recorder.calls).tolist() == [[pytest.approx(1 / 3), pytest.approx(2 / 3)]] * 3


def test_the_filter_stays_off_devices_without_doubles() -> None:
    """Apple's GPUs know no float64: there the state lives on the CPU, elsewhere beside the model."""
    assert _filter_device(torch.device("mps")).type == "cpu"
    assert _filter_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert gate("evidence").begin(2, CPU).belief.dtype == torch.float64


def test_nobody_is_as_probable_as_anybody() -> None:
    """However many faces generic text has, the null expert begins with one share, and gets what its faces get."""
    whole = statistics("null")
    halves = [
        count([text(*part, tokens=3000, seed=3)], tokenizer="t", vocabulary=VOCABULARY, pair_bits=8)
        for part in ((0, 15), (15, 30))
    ]
    contributors = [Contributor(name, statistics(name), dict) for name in ("law", "code")]
    settings = RouterSettings()
    (method,) = parse("evidence")
    tables = flatten("evidence", method.solve(contributors, dataclasses.replace(whole, faces=tuple(halves)), settings))
    one = load_gate(tables, settings, names=["code", "law"], has_null=True)
    assert isinstance(one, PosteriorGate)
    state = one.begin(1, CPU)
    assert one.faces == 2
    torch.testing.assert_close(state.belief.sum(1)[0], torch.tensor([1 / 3, 1 / 3, 1 / 6, 1 / 6], dtype=torch.float64))
    filtered, _ = one(window(BATCH), one.begin(3, CPU))
    assert filtered.shape == (3, 40, 3)
    torch.testing.assert_close(filtered.sum(-1), torch.ones(3, 40, dtype=torch.float64))
