import dataclasses
import math
import shutil
from pathlib import Path

import pytest
import torch

from moehub.admission.gate import examine
from moehub.admission.plausibility import evenness
from moehub.admission.registry import registered
from moehub.card import STATISTICS_FILE, Federated, Stage, read_card
from moehub.experts import privacy
from moehub.experts.folder import seal
from moehub.experts.statistics import Statistics, count
from tests.attacks.honest import honest, routing_at_hand
from tests.world import World

CODES = (
    *("something-counted", "counted-vocabulary", "suppressed-counts", "pair-total", "triple-total", "pair-peaks"),
    "even-counts",
)
CHECKS = tuple(one for one in registered() if one.code in (*CODES, "counts-trained-on"))


def codes(
    world: World, folder: Path, counted: Statistics, *, documents: int = 1, federation: Federated | None = None
) -> set[str]:
    """Return why the good expert with these counts is refused."""
    shutil.copytree(honest(world), folder)
    counted.save(folder / STATISTICS_FILE)
    stage = Stage("pretrain", tokens=int(counted.unigrams.sum()) + 1, steps=1, examples=documents, seconds=1.0)
    card = dataclasses.replace(read_card(folder), stages=(stage,), federation=federation, private=counted.private)
    seal(folder, card)
    return {refusal.code for refusal in examine(folder, routing_at_hand(world), checks=CHECKS).refusals}


def text(world: World, seed: int, *, documents: int = 6, length: int = 700) -> Statistics:
    """Return the counts of drawn text, whose tokens are about as uneven as words are."""
    vocabulary = routing_at_hand(world).null.vocabulary  # type: ignore[union-attr]
    generator = torch.Generator().manual_seed(seed)
    chances = 1 / torch.arange(1.0, vocabulary + 1)
    drawn = [torch.multinomial(chances, length, replacement=True, generator=generator) for _ in range(documents)]
    tokenizer = read_card(honest(world)).base.tokenizer
    return count(drawn, tokenizer=tokenizer, vocabulary=vocabulary, pair_bits=10, triple_bits=10)


@pytest.mark.parametrize("threshold", [0, 1, 2, 3, 5, 20])
def test_true_counts_are_admitted_however_much_was_suppressed(world: World, tmp_path: Path, threshold: int) -> None:
    """What suppression takes away from tokens and from pairs is allowed for."""
    assert codes(world, tmp_path / "expert", text(world, 1).suppress(threshold), documents=6) == set()


@pytest.mark.parametrize("thresholds", [(3, 3, 3), (0, 3, 10)])
def test_counts_of_contributors_together_are_admitted(
    world: World, tmp_path: Path, thresholds: tuple[int, ...]
) -> None:
    """Each contributor suppresses its own, by thresholds of their own; the sums are no lie."""
    parts = [text(world, seed).suppress(threshold) for seed, threshold in enumerate(thresholds)]
    together = parts[0] + parts[1] + parts[2]
    federation = Federated(nodes=3, rounds=1, aggregation="ffa")
    assert codes(world, tmp_path / "expert", together, documents=18, federation=federation) == set()


def test_one_pair_too_many_is_noticed(world: World, tmp_path: Path) -> None:
    """Without suppression the bounds are exact: a document of n tokens has n - 1 pairs."""
    true = text(world, 2, documents=3)
    assert int(true.unigrams.sum()) - int(true.pairs.sum()) == 3
    assert codes(world, tmp_path / "true", true, documents=3) == set()
    assert codes(world, tmp_path / "fewer", true, documents=2) == {"pair-total"}
    most = true.pairs.clone()
    most[true.pairs.argmin()] += 4
    more = dataclasses.replace(true, pairs=most)
    assert codes(world, tmp_path / "more", more, documents=3) == {"pair-total"}


def test_one_triple_too_many_or_too_few_is_noticed(world: World, tmp_path: Path) -> None:
    """Without suppression there are as many as tokens, whatever the documents; with it, some may be missing."""
    true = text(world, 2, documents=3)
    triples = true.counts["triples"].clone()
    assert int(triples.sum()) == int(true.unigrams.sum())
    place = int(triples.argmax())
    for change in (1, -1):
        triples[place] = true.counts["triples"][place] + change
        found = dataclasses.replace(true, triples=triples)
        assert codes(world, tmp_path / str(change), found, documents=3) == {"triple-total"}
    assert codes(world, tmp_path / "suppressed", true.suppress(3), documents=3) == set()
    assert codes(world, tmp_path / "none", dataclasses.replace(true, triples=None), documents=3) == set()


def test_a_pair_comes_no_oftener_than_its_tokens(world: World, tmp_path: Path) -> None:
    """Two tokens that alternate make two buckets as full as themselves, and no fuller."""
    tokenizer, vocabulary = read_card(honest(world)).base.tokenizer, text(world, 0).vocabulary
    ids = torch.tensor([5, 9] * 500)
    true = count([ids], tokenizer=tokenizer, vocabulary=vocabulary, pair_bits=10)
    assert codes(world, tmp_path / "true", true) == set()
    first, second = true.pairs.topk(2).indices
    pairs = true.pairs.clone()
    pairs[first], pairs[second] = 510, 489
    assert codes(world, tmp_path / "moved", dataclasses.replace(true, pairs=pairs)) == {"pair-peaks"}


def test_a_count_below_the_threshold_is_noticed(world: World, tmp_path: Path) -> None:
    """Statistics that say that nothing below 3 was published hold nothing below 3."""
    found = text(world, 3).suppress(3)
    place = int((found.unigrams == 0).nonzero()[0])
    unigrams = found.unigrams.clone()
    unigrams[place] = 2
    assert codes(world, tmp_path / "expert", dataclasses.replace(found, unigrams=unigrams), documents=6) == {
        "suppressed-counts"
    }


def test_evenness_is_between_nothing_and_one() -> None:
    """One kind of tokens is not even at all, as many of each kind are; zeros do not count."""
    assert evenness(torch.tensor([0, 7, 0])) == 0.0
    assert evenness(torch.tensor([3, 0, 3, 3])) == pytest.approx(1.0)
    assert evenness(torch.tensor([1, 3])) == pytest.approx((0.25 * math.log(4) + 0.75 * math.log(4 / 3)) / math.log(2))


def test_counts_with_noise_are_admitted(world: World, tmp_path: Path) -> None:
    """They are no text's, so what holds of a text is not asked of them; it is said that it was not."""
    tokenizer, vocabulary = read_card(honest(world)).base.tokenizer, text(world, 0).vocabulary
    chances = 1 / torch.arange(1.0, vocabulary + 1)
    documents = [torch.multinomial(chances, 40, replacement=True) for _ in range(2000)]
    sizes = {"vocabulary": vocabulary, "pair_bits": 10, "triple_bits": 10}
    noisy = privacy.count(documents, tokenizer=tokenizer, **sizes, epsilon=5.0, delta=1e-6, clip=64)
    assert codes(world, tmp_path / "expert", noisy, documents=2000) == set()
    skipped = {one.code: one.reason for one in examine(tmp_path / "expert", routing_at_hand(world)).skipped}
    for code in ("pair-total", "triple-total", "pair-peaks"):
        assert "carry noise" in skipped[code]


def test_few_kinds_of_tokens_may_be_even(world: World, tmp_path: Path) -> None:
    """A small text of a few kinds of tokens, each about as frequent, is no attack."""
    tokenizer, vocabulary = read_card(honest(world)).base.tokenizer, text(world, 0).vocabulary
    even = count([torch.arange(200).repeat(5)], tokenizer=tokenizer, vocabulary=vocabulary, pair_bits=10)
    assert codes(world, tmp_path / "expert", even) == set()
    all_even = count([torch.arange(vocabulary).repeat(5)], tokenizer=tokenizer, vocabulary=vocabulary, pair_bits=10)
    assert codes(world, tmp_path / "all", all_even) == {"even-counts"}
