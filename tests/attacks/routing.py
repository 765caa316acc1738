"""Step 9: counts that no text has, and counts that would give an expert tokens that are not its own.

Each begins with a good expert; sums are kept consistent as far as the attack allows.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from moehub.admission.at_hand import AtHand
from moehub.admission.sampling import expected_pairs
from moehub.card import STATISTICS_FILE, Privacy, read_card
from moehub.experts.folder import seal
from moehub.experts.statistics import Statistics, pair_bucket
from tests.attacks import Attack
from tests.attacks.forging import Make
from tests.attacks.honest import another, everything_at_hand, honest, null, routing_at_hand
from tests.world import World

Change = Callable[[Statistics, World], Statistics]


def with_statistics(change: Change, *, trained: int = 1) -> Make:
    """Return what makes an expert with other statistics than the honest one's.

    Args:
        change: makes them.
        trained: how many times as many tokens its card says that it was trained on.
    """

    def make(folder: Path, world: World) -> Path:
        shutil.copytree(honest(world), folder)
        card = read_card(folder)
        change(Statistics.load(folder / STATISTICS_FILE), world).save(folder / STATISTICS_FILE)
        stages = tuple(replace(stage, tokens=stage.tokens * trained) for stage in card.stages)
        seal(folder, replace(card, stages=stages))
        return folder

    return make


def nothing_at_hand(_: World) -> AtHand:
    """Return what is at hand where nothing is."""
    return AtHand()


def counts_at_hand(world: World) -> AtHand:
    """Return what is at hand where there are generic counts and nothing else."""
    return AtHand(null=null(world))


def evidence_at_hand(world: World) -> AtHand:
    """Return what is at hand beside an expert of the same domain, where nobody thought of generic text."""
    found = everything_at_hand(world)
    neighbour = Statistics.load(honest(world) / STATISTICS_FILE)
    return replace(found, canary=None, null=None, others={**found.others, "neighbour": neighbour})


def _counts(found: Statistics, unigrams: Tensor, pairs: Tensor) -> Statistics:
    """Return counts with nearly as many pairs as tokens, as if the rest had been suppressed, and without features."""
    wanted = 0.9 * int(unigrams.sum()) / max(int(pairs.sum()), 1)
    return Statistics(found.tokenizer, unigrams.long(), (pairs.double() * wanted).long()).suppress(3)


def _like(found: Statistics, source: Statistics) -> Statistics:
    """Return somebody's counts, as many as the expert counted itself."""
    share = int(found.unigrams.sum()) / int(source.unigrams.sum())
    return _counts(found, (source.unigrams * share).round(), source.pairs)


def _nothing(found: Statistics, _: World) -> Statistics:
    return Statistics(found.tokenizer, torch.zeros_like(found.unigrams), torch.zeros_like(found.pairs))


def _more_kinds(found: Statistics, _: World) -> Statistics:
    return replace(found, unigrams=torch.cat([found.unigrams, torch.zeros(1, dtype=torch.int64)]))


def _unsuppressed(found: Statistics, _: World) -> Statistics:
    return replace(found, suppressed_below=int(found.unigrams[found.unigrams > 0].median()) + 1)


def _too_many_pairs(found: Statistics, _: World) -> Statistics:
    return Statistics(found.tokenizer, found.unigrams, _product(5 * found.unigrams, len(found.pairs)))


def _no_pairs(found: Statistics, _: World) -> Statistics:
    return Statistics(found.tokenizer, found.unigrams * 10, torch.zeros_like(found.pairs))


def _many_triples(found: Statistics, _: World) -> Statistics:
    return replace(found, triples=5 * found.counts["triples"])


def _no_triples(found: Statistics, _: World) -> Statistics:
    return replace(found, triples=torch.zeros(256, dtype=torch.int64))


def _hidden_by(sigma: float) -> Change:
    """Return what says that noise hides each document, whatever is true of it."""

    def said(found: Statistics, _: World) -> Statistics:
        private = Privacy(1.0, 1e-6, 64, dict.fromkeys(found.counts, sigma))
        return replace(found, private=private, features=None)

    return said


def _one_token(found: Statistics, _: World) -> Statistics:
    unigrams = found.unigrams.clone()
    unigrams[int(unigrams.argmax())] += 50 * int(unigrams.sum())
    return Statistics(found.tokenizer, unigrams, found.pairs)


def _one_pair(found: Statistics, _: World) -> Statistics:
    """Move all pairs to a bucket of rare tokens."""
    rare = int((found.unigrams == 0).nonzero()[0])
    place = int(pair_bucket(torch.tensor(rare), torch.tensor(rare), len(found.pairs)))
    pairs = torch.zeros_like(found.pairs)
    pairs[place] = int(found.unigrams.sum())
    return Statistics(found.tokenizer, found.unigrams, pairs)


def _times(factor: int) -> Change:
    return lambda found, _: Statistics(
        found.tokenizer, found.unigrams * factor, found.pairs * factor, suppressed_below=factor
    )


def _even(found: Statistics, _: World) -> Statistics:
    unigrams = torch.full_like(found.unigrams, max(1, int(found.unigrams.sum()) // len(found.unigrams)))
    return _counts(found, unigrams, _product(unigrams, len(found.pairs)))


def _even_where_rare(found: Statistics, world: World) -> Statistics:
    """Count what generic text hardly has, so that whatever is unusual comes here."""
    generic = null(world).unigrams
    unigrams = (generic <= generic.median()) * 6
    return _counts(found, unigrams, _product(unigrams, len(found.pairs)))


def _product(unigrams: Tensor, buckets: int) -> Tensor:
    """Return as many pairs as if tokens did not depend on each other."""
    found = expected_pairs(Statistics("", unigrams, torch.zeros(buckets, dtype=torch.int64)))
    return (found * int(unigrams.sum())).round().long()


def _with_null(share: float) -> Change:
    """Return the honest counts with generic ones among them."""

    def mixed(found: Statistics, world: World) -> Statistics:
        generic = null(world)
        factor = share * int(found.unigrams.sum()) / int(generic.unigrams.sum())
        return _counts(
            found, found.unigrams + (generic.unigrams * factor).long(), found.pairs + (generic.pairs * factor).long()
        )

    return mixed


def _generic_tokens(found: Statistics, world: World) -> Statistics:
    unigrams = _like(found, null(world)).unigrams
    return _counts(found, unigrams, _product(unigrams, len(found.pairs)))


def _anothers(factor: int) -> Change:
    def copied(_: Statistics, world: World) -> Statistics:
        source = replace(Statistics.load(another(world) / STATISTICS_FILE), features=None)
        return source.with_counts({kind: counts * factor for kind, counts in source.counts.items()})

    return copied


def _most_frequent(found: Statistics, world: World) -> Statistics:
    """Count the most frequent tokens of generic text alone, as often as they come there."""
    generic = null(world).unigrams
    places = generic.topk(min(50, int((generic > 0).sum()) // 8)).indices
    unigrams = torch.zeros_like(found.unigrams)
    unigrams[places] = generic[places]
    return _counts(found, unigrams, _product(unigrams, len(found.pairs)))


def _pool(found: Statistics, world: World) -> Statistics:
    """Count everybody's text but its own domain's."""
    source = Statistics.load(another(world) / STATISTICS_FILE)
    generic = null(world)
    return _counts(found, source.unigrams + generic.unigrams // 3, source.pairs + generic.pairs // 3)


def _impossible(name: str, code: str, change: Change, at_hand: Callable[[World], AtHand] = nothing_at_hand) -> Attack:
    return Attack(name, code, with_statistics(change), at_hand)


def _greedy(name: str, change: Change) -> Attack:
    return Attack(name, "neutral-share", with_statistics(change, trained=1000), routing_at_hand)


def _displaced(name: str, change: Change) -> Attack:
    return Attack(name, "domain-evidence", with_statistics(change, trained=1000), evidence_at_hand)


ATTACKS = [
    _impossible("statistics that count nothing", "something-counted", _nothing),
    _impossible("one kind of tokens more", "counted-vocabulary", _more_kinds, counts_at_hand),
    _impossible("counts that were said to be suppressed", "suppressed-counts", _unsuppressed),
    _impossible("noise that the card knows nothing of", "stated-privacy", _hidden_by(100.0)),
    _impossible("less noise than it promises", "stated-privacy", _hidden_by(1.0)),
    _impossible("more pairs than tokens", "pair-total", _too_many_pairs),
    _impossible("tokens without pairs", "pair-total", _no_pairs),
    _impossible("one token counted fifty times as often as all", "pair-total", _one_token),
    _impossible("more triples than tokens", "triple-total", _many_triples),
    _impossible("triples that are zero", "triple-total", _no_triples),
    _impossible("all pairs in one bucket", "pair-peaks", _one_pair),
    _impossible("ten thousand times as many counts", "counts-trained-on", _times(10_000)),
    _impossible("all tokens even", "even-counts", _even),
    _impossible("all rare tokens even", "even-counts", _even_where_rare),
    _greedy("the null's own counts", lambda _, world: replace(null(world), features=None)),
    _greedy("the null's counts, scaled", lambda found, world: _like(found, null(world))),
    _greedy("three times as many of the null's counts as its own", _with_null(3.0)),
    _greedy("mostly the null's counts", _with_null(5.0)),
    _greedy("the null's tokens without its pairs", _generic_tokens),
    _displaced("another expert's counts", _anothers(1)),
    _displaced("another expert's counts, fifty times", _anothers(50)),
    _displaced("the most frequent tokens alone", _most_frequent),
    _displaced("everybody's counts but its own", _pool),
]
