import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from moehub.errors import ExpertError
from moehub.experts import statistics
from moehub.experts.statistics import FeatureSums, Statistics

VOCABULARY, PAIR_BITS, TRIPLE_BITS = 20, 6, 7
Documents = list[list[int]]
documents_of_all_kinds = st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=12), max_size=8)


def _count(documents: Documents) -> Statistics:
    tensors = [torch.tensor(ids, dtype=torch.int64) for ids in documents]
    return statistics.count(tensors, tokenizer="t", vocabulary=VOCABULARY, pair_bits=PAIR_BITS, triple_bits=TRIPLE_BITS)


def _features(seed: int) -> FeatureSums:
    x = torch.randint(-127, 128, (50, 4), generator=torch.Generator().manual_seed(seed))
    return FeatureSums("recipe", 50, x.sum(0), x.T @ x)


def _same(first: Statistics, second: Statistics) -> bool:
    return (
        (first.tokenizer, first.suppressed_below) == (second.tokenizer, second.suppressed_below)
        and first.counts.keys() == second.counts.keys()
        and all(torch.equal(counts, second.counts[kind]) for kind, counts in first.counts.items())
    )


@given(documents_of_all_kinds)
def test_counts_are_those_of_a_hand_count(documents: Documents) -> None:
    """Each token, each pair of neighbours in one document, and each token after two, in the format's buckets."""
    unigrams = Counter(token for ids in documents for token in ids)
    pairs = Counter(
        (previous * 1000003 + current) % 2**PAIR_BITS for ids in documents for previous, current in pairwise(ids)
    )
    triples = Counter(
        (((before * 1000003 + previous) % 2**31) * 1000003 + current) % 2**TRIPLE_BITS
        for ids in documents
        for before, previous, current in zip([VOCABULARY, VOCABULARY, *ids], [VOCABULARY, *ids], ids, strict=False)
    )
    counted = _count(documents)
    assert counted.counts["triples"].tolist() == [triples[bucket] for bucket in range(2**TRIPLE_BITS)]
    assert counted.unigrams.tolist() == [unigrams[token] for token in range(VOCABULARY)]
    assert counted.pairs.tolist() == [pairs[bucket] for bucket in range(2**PAIR_BITS)]
    assert (counted.vocabulary, counted.pair_bits, counted.triple_bits) == (VOCABULARY, PAIR_BITS, TRIPLE_BITS)


def test_triples_are_counted_where_they_are_asked_for() -> None:
    """Without, nothing is stored and nothing is said of them."""
    counted = statistics.count([torch.tensor([1, 2])], tokenizer="t", vocabulary=VOCABULARY, pair_bits=PAIR_BITS)
    facts, arrays = counted.to_arrays()
    assert (counted.triples, counted.triple_bits, list(counted.counts)) == (None, 0, ["unigrams", "pairs"])
    assert "triple_bits" not in facts
    assert sorted(arrays) == ["pairs.count", "pairs.index", "unigrams.count", "unigrams.index"]


def test_the_largest_tokens_have_a_bucket() -> None:
    """The hash stays within int64, whatever the vocabulary."""
    large = torch.tensor((1 << 24) - 1)
    context = (int(large) * 1000003 + int(large)) % 2**31
    expected = (context * 1000003 + int(large)) % 2**24
    assert int(statistics.triple_bucket(large, large, large, 1 << 24)) == expected


@pytest.mark.parametrize("together", [1, 5, 1 << 20])
def test_counts_do_not_depend_on_how_many_documents_are_counted_at_once(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents are counted in heaps for speed; no pair spans two of them."""
    documents = [[1, 2], [], [3], [4, 5, 6], [7, 8]]
    expected = _count(documents[:2]) + _count(documents[2:4]) + _count(documents[4:])
    monkeypatch.setattr(statistics, "_TOGETHER", together)
    assert _same(_count(documents), expected)


@given(documents_of_all_kinds, documents_of_all_kinds)
def test_adding_counts_is_counting_all(first: Documents, second: Documents) -> None:
    """Nodes of one domain add theirs, in any order."""
    assert _same(_count(first) + _count(second), _count(second + first))


def test_token_outside_of_the_vocabulary_is_refused() -> None:
    """Ids of another tokenizer would be counted as something else."""
    with pytest.raises(ExpertError, match="token id 20 is outside the tokenizer's 20 ids"):
        _count([[1, 20]])


@pytest.mark.parametrize(
    "other",
    [
        Statistics("u", torch.zeros(VOCABULARY), torch.zeros(64)),
        Statistics("t", torch.zeros(VOCABULARY + 1), torch.zeros(64)),
        Statistics("t", torch.zeros(VOCABULARY), torch.zeros(128)),
        Statistics("t", torch.zeros(VOCABULARY), torch.zeros(64)),
        Statistics("t", torch.zeros(VOCABULARY), torch.zeros(64), triples=torch.zeros(64)),
    ],
)
def test_statistics_of_another_kind_are_not_added(other: Statistics) -> None:
    """Another tokenizer, vocabulary or number of buckets."""
    with pytest.raises(ExpertError, match="cannot be added: count again"):
        _count([[1]]) + other


def test_features_are_added_where_both_have_them() -> None:
    """A sum of one alone would count for all."""
    counted = _count([[1]])
    with_features = dataclasses.replace(counted, features=_features(0))
    total = (with_features + with_features).features
    assert total is not None
    assert (total.count, torch.equal(total.gram, 2 * _features(0).gram)) == (100, True)
    assert (with_features + counted).features is None


def test_features_of_another_recipe_are_not_added() -> None:
    """The sentence names both."""
    other = FeatureSums("other", 1, torch.zeros(4), torch.zeros(4, 4))
    with pytest.raises(ExpertError, match="'recipe' cannot be added to 'other'"):
        _features(0) + other


def test_suppression_hides_rare_counts() -> None:
    """Counts below the threshold become zero, others stay; the strongest suppression is remembered."""
    counted = _count([[1, 1, 1], [2, 2], [3]])
    hidden = counted.suppress(3).suppress(2)
    assert hidden.unigrams.nonzero().flatten().tolist() == [1]
    assert (hidden.unigrams[1].item(), hidden.suppressed_below, counted.suppressed_below) == (3, 3, 0)
    assert _same(counted.suppress(0), counted)


@settings(deadline=None)
@given(documents_of_all_kinds, st.booleans(), st.integers(0, 4))
def test_statistics_are_saved_and_loaded(
    tmp_path_factory: pytest.TempPathFactory, documents: Documents, with_features: bool, threshold: int
) -> None:
    """The file holds all of them."""
    counted = _count(documents)
    features = _features(1) if with_features else None
    saved = dataclasses.replace(counted, features=features).suppress(threshold)
    path = tmp_path_factory.mktemp("statistics") / "s"
    saved.save(path)
    loaded = Statistics.load(path)
    assert _same(loaded, saved)
    assert (loaded.features is not None) == with_features
    if loaded.features is not None and features is not None:
        assert (loaded.features.recipe, loaded.features.count) == ("recipe", 50)
        assert torch.equal(loaded.features.gram, features.gram)


def test_equal_statistics_give_equal_bytes(tmp_path: Path) -> None:
    """So that a file's sha256 tells whether anything changed."""
    for name in "ab":
        _count([[1, 2, 3]]).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("with_features", [False, True])
def test_arrays_that_were_sent_give_the_same_statistics(with_features: bool) -> None:
    """Facts and arrays are all of them; arrays that nobody may write to are read too."""
    counted = _count([[1, 2, 3, 3], [4]])
    sent = dataclasses.replace(counted, suppressed_below=3, features=_features(1) if with_features else None)
    facts, arrays = sent.to_arrays()
    for values in arrays.values():
        values.setflags(write=False)
    received = Statistics.from_arrays(facts, arrays)
    assert _same(received, sent)
    assert (received.features is None) == (sent.features is None)
    if received.features is not None and sent.features is not None:
        assert torch.equal(received.features.gram, sent.features.gram)


def test_arrays_lie_as_their_bytes_are_written(tmp_path: Path) -> None:
    """Sums that are a view of something larger are saved as they read, not as they lie in memory."""
    counted, wide = _count([[1]]), torch.arange(32).reshape(4, 8)
    features = FeatureSums("recipe", 1, wide[:, 3], wide[:, ::2])
    Statistics("t", counted.unigrams, counted.pairs, features=features).save(tmp_path / "s")
    loaded = Statistics.load(tmp_path / "s").features
    assert loaded is not None
    assert (loaded.sum.tolist(), loaded.gram.tolist()) == (wide[:, 3].tolist(), wide[:, ::2].tolist())


@pytest.mark.parametrize(
    ("facts", "arrays"),
    [
        ({"vocabulary": "many"}, {}),
        ({"suppressed_below": None}, {}),
        ({}, {"unigrams.index": np.array([20], np.int32)}),
        ({}, {"unigrams.count": np.array([-1])}),
        ({}, {"unigrams.count": np.array(["1"])}),
        ({}, {"unigrams.count": np.array([1.0])}),
    ],
)
def test_a_strangers_arrays_are_read_strictly(facts: dict[str, Any], arrays: dict[str, Any]) -> None:
    """As a stranger's file: the sentence says that they are no statistics."""
    own, counts = _count([[1]]).to_arrays()
    with pytest.raises(ExpertError, match=r"these are no router statistics \(.*\): count again"):
        Statistics.from_arrays({**own, **facts}, {**counts, **arrays})


ENDLESS = dict.fromkeys(("unigrams", "pairs", "triples"), "inf")
METADATA: dict[str, Any] = {
    "format": 1,
    "tokenizer": "t",
    "vocabulary": 20,
    "pair_bits": 6,
    "triple_bits": 7,
    "suppressed_below": 0,
}
SUMS: dict[str, Any] = {"features.recipe": "recipe", "features.count": 1}


def _save(tensors: dict[str, Tensor], path: Path, facts: Any) -> None:
    save_file(tensors, path, metadata=None if facts is None else {"moehub": json.dumps(facts)})


def _set(name: str, value: Tensor) -> Callable[[dict[str, Tensor]], Any]:
    return lambda tensors: tensors.update({name: value})


@pytest.mark.parametrize(
    ("change", "metadata"),
    [
        (_set("unigrams.index", torch.tensor([20], dtype=torch.int32)), {}),
        (_set("unigrams.index", torch.tensor([-1], dtype=torch.int32)), {}),
        (_set("unigrams.count", torch.tensor([-5])), {}),
        (_set("unigrams.count", torch.tensor([0.5])), {}),
        (_set("unigrams.count", torch.tensor([1, 2])), {}),
        (
            lambda tensors: tensors.update({"pairs.index": torch.tensor([3, 3]), "pairs.count": torch.ones(2).long()}),
            {},
        ),
        (lambda tensors: tensors.pop("pairs.index"), {}),
        (None, {"vocabulary": "many"}),
        (None, {"vocabulary": 0}),
        (None, {"vocabulary": None}),
        (None, {"tokenizer": ["t"]}),
        (None, {"suppressed_below": -1}),
        (None, {"vocabulary": 10**12}),
        (None, {"pair_bits": 60}),
        (None, {"pair_bits": -1}),
        (lambda tensors: tensors.pop("triples.count"), {}),
        (_set("triples.index", torch.tensor([128], dtype=torch.int32)), {}),
        (None, {"triple_bits": 60}),
        (None, {"triple_bits": "7"}),
        (None, {"private": {"epsilon": 1.0}}),
        (None, {"private": {"epsilon": 1.0, "delta": 1e-6, "clip": 9, "sigma": {"unigrams": 1.0}}}),
        (None, {"private": {"epsilon": 1.0, "delta": 1e-6, "clip": 9, "sigma": ENDLESS}}),
        (None, SUMS),
        (lambda tensors: tensors.update({"features.sum": torch.ones(3), "features.gram": torch.ones(3, 3)}), SUMS),
        (
            lambda tensors: tensors.update(
                {"features.sum": torch.ones(3).long(), "features.gram": torch.ones(3, 4).long()}
            ),
            SUMS,
        ),
        (
            lambda tensors: tensors.update(
                {"features.sum": torch.ones(3).long(), "features.gram": torch.ones(3, 3).long()}
            ),
            {**SUMS, "features.count": -1},
        ),
    ],
)
def test_a_strangers_file_is_read_strictly(tmp_path: Path, change: Any, metadata: dict[str, Any]) -> None:
    """Indices out of range or doubled, counts that are none, sizes without end, sums of no shape."""
    path = tmp_path / "s"
    _count([[1]]).save(path)
    tensors = load_file(path)
    if change is not None:
        change(tensors)
    _save(tensors, path, {**METADATA, **metadata})
    with pytest.raises(ExpertError, match=r"holds no router statistics .*: pull the expert again"):
        Statistics.load(path)


def test_a_file_without_triples_is_read(tmp_path: Path) -> None:
    """Experts that were published before triples were counted stay readable."""
    path, counted = tmp_path / "s", dataclasses.replace(_count([[1, 2, 2]]), triples=None)
    counted.save(path)
    _save(load_file(path), path, {name: fact for name, fact in METADATA.items() if name != "triple_bits"})
    assert _same(Statistics.load(path), counted)


def test_unchanged_file_passes_the_strict_reading(tmp_path: Path) -> None:
    """The cases above fail for what they change alone."""
    path = tmp_path / "s"
    _count([[1]]).save(path)
    _save(load_file(path), path, METADATA)
    assert _same(Statistics.load(path), _count([[1]]))


@pytest.mark.parametrize(
    "damage", ["missing", "truncated", "garbage", "no metadata", "metadata of no kind", "new format"]
)
def test_damaged_file_is_one_sentence(tmp_path: Path, damage: str) -> None:
    """Missing, cut off, of another kind, or of a later format."""
    path = tmp_path / "s"
    _count([[1, 2]]).save(path)
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-3])
    elif damage == "garbage":
        path.write_text("statistics")
    elif damage == "metadata of no kind":
        _save(load_file(path), path, ["format"])
    else:
        _save(load_file(path), path, {**METADATA, "format": 2} if damage == "new format" else None)
    sentence = r"has format 2, expected 1: update moehub" if damage == "new format" else "holds no router statistics"
    with pytest.raises(ExpertError, match=sentence):
        Statistics.load(path)
