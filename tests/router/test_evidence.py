import math

import pytest
import torch

from moehub.experts.statistics import Statistics, count, pair_bucket
from moehub.router.evidence import Evidence, EvidenceLookup
from moehub.router.method import Contributor
from moehub.router.settings import RouterSettings
from moehub.router.window import Window

VOCABULARY, BITS = 11, 6
SETTINGS = RouterSettings(kappa=0.5, unigram_strength=20.0, pair_strength=50.0, pair_weight=0.25)


def statistics(*ids: int, repeat: int = 9) -> Statistics:
    return count([torch.tensor(ids * repeat)], tokenizer="t", vocabulary=VOCABULARY, pair_bits=BITS)


def contributor(name: str, counted: Statistics | None) -> Contributor:
    return Contributor(name, counted, dict)


LAW, CODE, NULL = statistics(1, 2, 3, 4), statistics(5, 6, 5, 7), statistics(1, 5, 8, 9, 10, 2)


def lookup(*, null: Statistics | None = NULL) -> EvidenceLookup:
    method = Evidence()
    tables = method.solve([contributor("code", CODE), contributor("law", LAW)], null, SETTINGS)
    names = ["code", "law"] + (["null"] if null is not None else [])
    loaded = method.load(tables, names, SETTINGS)
    assert isinstance(loaded, EvidenceLookup)
    return loaded


def log_probability(counts: torch.Tensor, null: torch.Tensor | None, strength: float, item: int) -> float:
    """Return log((c + K q) / (n + K)) from the definition."""
    q = 1 / len(counts) if null is None else (int(null[item]) + 1) / (int(null.sum()) + len(null))
    return math.log((int(counts[item]) + strength * q) / (int(counts.sum()) + strength))


def window(ids: list[list[int]], mask: list[list[int]] | None = None) -> Window:
    tensor = torch.tensor(ids)
    return Window(
        tensor, torch.ones_like(tensor, dtype=torch.bool) if mask is None else torch.tensor(mask).bool(), torch.Tensor
    )


@pytest.mark.parametrize("null", [NULL, None], ids=["with null", "without null"])
def test_evidence_is_the_smoothed_log_probability(null: Statistics | None) -> None:
    """Differences between columns are those of κ·(log P(x) + w·log P(pair)) by its definition."""
    gate = lookup(null=null)
    ids = [3, 5, 6, 1, 2]
    actual, _ = gate(window([ids]), gate.begin(1, torch.device("cpu")))
    columns = [CODE, LAW] + ([null] if null is not None else [])
    for position in range(len(ids)):
        expected = []
        for one in columns:
            value = log_probability(one.unigrams, None if null is None else null.unigrams, 20.0, ids[position])
            if position:
                bucket = int(pair_bucket(torch.tensor(ids[position - 1]), torch.tensor(ids[position]), 1 << BITS))
                value += 0.25 * log_probability(one.pairs, None if null is None else null.pairs, 50.0, bucket)
            expected.append(0.5 * value)
        expected_tensor = torch.tensor(expected)
        torch.testing.assert_close(
            actual[0, position] - actual[0, position].mean(),
            expected_tensor - expected_tensor.mean(),
            atol=3e-4,
            rtol=0,
        )


def test_a_column_depends_on_nobody_else() -> None:
    """A contributor's tables are the same bytes whoever else takes part."""
    alone = Evidence().solve([contributor("law", LAW)], NULL, SETTINGS)["law"]
    beside = Evidence().solve([contributor("code", CODE), contributor("law", LAW)], NULL, SETTINGS)["law"]
    assert alone.keys() == beside.keys()
    assert all(torch.equal(alone[part], beside[part]) for part in alone)


def test_a_text_in_two_windows_has_the_same_evidence() -> None:
    """The pair across the cut is seen: the memory holds the last token."""
    gate = lookup()
    whole, end = gate(window([[1, 2, 5, 6, 5]]), gate.begin(1, torch.device("cpu")))
    first, memory = gate(window([[1, 2]]), gate.begin(1, torch.device("cpu")))
    second, after = gate(window([[5, 6, 5]]), memory)
    assert torch.equal(torch.cat([first, second], 1), whole)
    assert torch.equal(after[0], end[0])


def test_padding_has_no_evidence() -> None:
    """Padding before a text says nothing, and the first token after it has no pair."""
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
