import dataclasses
import math

import pytest
import torch

from moehub.experts.statistics import Statistics, count, pair_bucket, triple_bucket
from moehub.router.evidence import Evidence, EvidenceLookup
from moehub.router.method import Contributor
from moehub.router.settings import RouterSettings
from moehub.router.window import Window

VOCABULARY, BITS = 11, 6
SETTINGS = RouterSettings(
    kappa=0.5,
    unigram_strength=20.0,
    pair_strength=50.0,
    triple_strength=90.0,
    pair_weight=0.25,
    triple_weight=0.75,
    least_count=0.8,
    null_margin=0.125,
)


def statistics(*ids: int, repeat: int = 9, triples: bool = True) -> Statistics:
    return count(
        [torch.tensor(ids * repeat)],
        tokenizer="t",
        vocabulary=VOCABULARY,
        pair_bits=BITS,
        triple_bits=BITS if triples else 0,
    )


def contributor(name: str, counted: Statistics | None) -> Contributor:
    return Contributor(name, counted, dict)


LAW, CODE = statistics(1, 2, 3, 4), statistics(5, 6, 5, 7)
NULL = statistics(1, 5, 8, 9, 10, 2)
PROSE, NUMBERS = statistics(1, 5, 8), statistics(9, 10, 2)
MIXED = dataclasses.replace(NULL, faces=(PROSE, NUMBERS))


def lookup(*, null: Statistics | None = NULL) -> EvidenceLookup:
    method = Evidence()
    tables = method.solve([contributor("code", CODE), contributor("law", LAW)], null, SETTINGS)
    names = ["code", "law"] + (["null"] if null is not None else [])
    loaded = method.load(tables, names, SETTINGS)
    assert isinstance(loaded, EvidenceLookup)
    return loaded


def log_probability(counts: torch.Tensor, null: torch.Tensor | None, strength: float, item: int) -> float:
    """Return log((c + m) / (n + M)), m = max(K q, λ), from the definition."""
    generic = [1] * len(counts) if null is None else [int(one) + 1 for one in null]
    pseudo = [max(strength * one / sum(generic), 0.8) for one in generic]
    return math.log((int(counts[item]) + pseudo[item]) / (int(counts.sum()) + sum(pseudo)))


def window(ids: list[list[int]], mask: list[list[int]] | None = None) -> Window:
    tensor = torch.tensor(ids)
    return Window(
        tensor, torch.ones_like(tensor, dtype=torch.bool) if mask is None else torch.tensor(mask).bool(), torch.Tensor
    )


@pytest.mark.parametrize("null", [NULL, None, MIXED], ids=["with null", "without null", "with faces"])
def test_evidence_is_the_smoothed_log_probability(null: Statistics | None) -> None:
    """Differences between columns are those of κ·Σ w·log P over the three kinds, the null's put back by the margin."""
    gate = lookup(null=null)
    ids = [3, 5, 6, 1, 2]
    actual, _ = gate(window([ids]), gate.begin(1, torch.device("cpu")))
    generic = () if null is None else null.faces or (null,)
    columns = [CODE, LAW, *generic]
    context = [VOCABULARY, VOCABULARY, *ids]
    for position in range(len(ids)):
        before, previous, current = (torch.tensor(one) for one in context[position : position + 3])
        places = {
            "unigrams": (1.0, 20.0, ids[position]),
            "pairs": (0.25 if position else 0.0, 50.0, int(pair_bucket(previous, current, 1 << BITS))),
            "triples": (0.75, 90.0, int(triple_bucket(before, previous, current, 1 << BITS))),
        }
        expected = torch.tensor(
            [
                0.5
                * sum(
                    weight
                    * log_probability(one.counts[kind], None if null is None else null.counts[kind], strength, place)
                    for kind, (weight, strength, place) in places.items()
                )
                - (0.125 if number >= 2 else 0.0)
                for number, one in enumerate(columns)
            ]
        )
        torch.testing.assert_close(
            actual[0, position] - actual[0, position].mean(), expected - expected.mean(), atol=3e-4, rtol=0
        )


def test_triples_count_only_where_everybody_has_them() -> None:
    """Beside somebody who counted no triples, nobody's triples speak."""
    short = statistics(5, 6, 5, 7, triples=False)
    tables = Evidence().solve([contributor("code", short), contributor("law", LAW)], NULL, SETTINGS)
    gate = Evidence().load(tables, ["code", "law", "null"], SETTINGS)
    assert isinstance(gate, EvidenceLookup)
    assert set(gate.kinds) == {"unigrams", "pairs"}
    assert set(lookup().kinds) == {"unigrams", "pairs", "triples"}


def test_a_rare_token_decides_little() -> None:
    """What somebody said three times by chance is weaker evidence the more pseudo-counts everything has."""
    rare = dataclasses.replace(LAW, unigrams=LAW.unigrams + 3 * (torch.arange(VOCABULARY) == 10))
    tables = [
        Evidence().solve([contributor("law", rare)], None, dataclasses.replace(SETTINGS, least_count=least))["law"]
        for least in (0.01, 5.0)
    ]
    few, many = (float(one["unigrams.value"][-1] + one["unigrams.bias"]) for one in tables)
    assert few - float(tables[0]["unigrams.bias"]) > 2 * (many - float(tables[1]["unigrams.bias"]))


def test_a_column_depends_on_nobody_else() -> None:
    """A contributor's tables are the same bytes whoever else takes part."""
    alone = Evidence().solve([contributor("law", LAW)], NULL, SETTINGS)["law"]
    beside = Evidence().solve([contributor("code", CODE), contributor("law", LAW)], NULL, SETTINGS)["law"]
    assert alone.keys() == beside.keys()
    assert all(torch.equal(alone[part], beside[part]) for part in alone)


def test_a_text_in_two_windows_has_the_same_evidence() -> None:
    """Pair and triples across the cut are seen: the memory holds the last two tokens."""
    gate = lookup()
    whole, end = gate(window([[1, 2, 5, 6, 5]]), gate.begin(1, torch.device("cpu")))
    first, memory = gate(window([[1, 2]]), gate.begin(1, torch.device("cpu")))
    second, after = gate(window([[5, 6, 5]]), memory)
    assert torch.equal(torch.cat([first, second], 1), whole)
    assert torch.equal(after[0], end[0])


def test_padding_has_no_evidence() -> None:
    """Padding before a text says nothing, and the first token after it begins a text."""
    gate = lookup()
    padded, _ = gate(window([[0, 0, 5, 6]], [[0, 0, 1, 1]]), gate.begin(1, torch.device("cpu")))
    plain, _ = gate(window([[5, 6]]), gate.begin(1, torch.device("cpu")))
    assert torch.equal(padded[:, 2:], plain)
    assert not padded[:, :2].any()


def test_ids_outside_the_vocabulary_do_not_break() -> None:
    """Padded embeddings allow ids that the tokenizer never makes; every column treats them as unseen."""
    gate = lookup()
    actual, _ = gate(window([[VOCABULARY, VOCABULARY + 100]]), gate.begin(1, torch.device("cpu")))
    assert bool(torch.isfinite(actual).all())


@pytest.mark.parametrize(
    ("counted", "sentence"),
    [(None, "without router statistics"), (statistics(1, repeat=1).suppress(5), "count nothing")],
)
def test_what_is_missing_is_said(counted: Statistics | None, sentence: str) -> None:
    """Statistics that are absent or empty are named with a cure."""
    lack = Evidence().lacks(counted)
    assert lack is not None
    assert sentence in lack
    assert Evidence().lacks(LAW) is None
