"""Step 9: whether the counts can be those of a text, and of the text that the card says it was trained on.

Suppressing counts below s took away at most s − 1 from each; of one contributor's only from those that are zero now.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from moehub.admission.at_hand import AtHand
from moehub.admission.check import Fault, NotAtHandError, check
from moehub.admission.policy import Policy
from moehub.admission.sampling import shares_of
from moehub.admission.subject import Subject
from moehub.card import Card
from moehub.experts.privacy import budget, spent
from moehub.experts.statistics import Statistics, pair_bucket

_COUNT = "count the statistics of the text that it was trained on, as `moehub train-expert` does"
_LEAST_KINDS = 256
"""Fewer different tokens may well be all as frequent."""
_PEAKS = 64
"""Buckets that are looked at: those of the highest counts."""
_ROUNDED = 1.001
"""How much more ρ than (ε, δ) allow may be stated: numbers are rounded."""


@check(9)
def something_counted(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Its statistics, where it has any, count something: the gate knows nothing of an expert without."""
    if subject.statistics is not None and not int(subject.statistics.unigrams.sum()):
        yield Fault("its router statistics count nothing", "lower suppress_below, or train it on more text")


@check(9)
def counted_vocabulary(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """It counts as many kinds of tokens as everybody with the same tokenizer.

    Raises:
        NotAtHandError: nobody's counts with that tokenizer are at hand.
    """
    found = subject.statistics
    if found is None:
        return
    beside = [*at_hand.others.values(), *([] if at_hand.null is None else [at_hand.null])]
    usual = {one.vocabulary for one in beside if one.tokenizer == found.tokenizer}
    if not usual:
        raise NotAtHandError("nobody's counts with its tokenizer are at hand: give generic text with --null")
    if found.vocabulary not in usual:
        yield Fault(f"it counts {found.vocabulary} kinds of tokens, the others {min(usual)}", _COUNT)


@check(9)
def suppressed_counts(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """No count is below the threshold under which counts were suppressed, as its statistics say."""
    found = subject.statistics
    # Contributors who train together may each have a threshold of their own; the highest of them is named.
    if found is None or subject.card.federation is not None:
        return
    for name, counts in found.counts.items():
        low = int(((counts > 0) & (counts < found.suppressed_below)).sum())
        if low:
            yield Fault(
                f"{low} counts of {name} are below {found.suppressed_below}, which they say is suppressed", _COUNT
            )


@check(9)
def stated_privacy(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Noise in its counts is as large as the privacy takes that card and statistics promise alike."""
    found = subject.statistics
    if found is None:
        return
    said, counted = subject.card.private, found.private
    if said != counted:
        sides = " and ".join(
            f"{where} {one or 'no noise'}" for where, one in (("the card says", said), ("they", counted))
        )
        yield Fault(f"of noise in its counts {sides}", _COUNT)
    if counted is not None and found.features is not None:
        yield Fault("it says that its counts are private and publishes sums of features, which carry no noise", _COUNT)
    if counted is not None and spent(counted) > budget(counted.epsilon, counted.delta) * _ROUNDED:
        yield Fault(f"the noise in its counts is less than {counted} takes", _COUNT)


@check(9)
def pair_total(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """There are about as many pairs as tokens: each token but a document's first ends one.

    Raises:
        NotAtHandError: the counts carry noise.
    """
    found = _exact(subject)
    if found is None:
        return
    (tokens, lost_tokens), (pairs, lost_pairs) = (
        _total(found, counts, subject.card) for counts in (found.unigrams, found.pairs)
    )
    documents = sum(stage.examples for stage in subject.card.stages)
    if pairs > tokens + lost_tokens:
        yield Fault(f"it counts {pairs} pairs of neighbouring tokens in a text of {tokens} tokens", _COUNT)
    if pairs + lost_pairs + documents < tokens:
        yield Fault(f"it counts only {pairs} pairs in {documents} documents of {tokens} tokens together", _COUNT)


@check(9)
def triple_total(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """There are as many triples as tokens, where triples were counted: each token ends one.

    Raises:
        NotAtHandError: the counts carry noise.
    """
    found = _exact(subject)
    if found is None or found.triples is None:
        return
    (tokens, lost_tokens), (triples, lost_triples) = (
        _total(found, counts, subject.card) for counts in (found.unigrams, found.triples)
    )
    if triples > tokens + lost_tokens or triples + lost_triples < tokens:
        yield Fault(f"it counts {triples} triples that end in one of {tokens} tokens", _COUNT)


@check(9)
def pair_peaks(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """No bucket of pairs, of the fullest ones, holds more than its pairs' own tokens allow.

    Raises:
        NotAtHandError: the counts carry noise.
    """
    found = _exact(subject)
    if found is None:
        return
    counts, places = found.pairs.topk(min(_PEAKS, len(found.pairs)))
    most = found.unigrams + _lost(found, found.unigrams, subject.card)
    for count, place in zip(counts.tolist(), places.tolist(), strict=True):
        allowed = _most_pairs(most, place, len(found.pairs))
        if count > allowed:
            yield Fault(f"it counts a pair {count} times whose tokens allow {allowed}", _COUNT)
            return


@check(9)
def counts_trained_on(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The text that was counted is not out of all proportion to what its card says it was trained on."""
    found = subject.statistics
    if found is None:
        return
    tokens, trained = int(found.unigrams.sum()), sum(stage.tokens for stage in subject.card.stages)
    if tokens > policy.most_tokens_per_trained * max(trained, 1):
        yield Fault(
            f"it counts {tokens} tokens but was trained on {trained}, expected at most "
            f"{policy.most_tokens_per_trained:g} for each of those",
            _COUNT,
        )


@check(9)
def even_counts(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Its tokens are not all about as frequent: such counts fit no text, and draw all that is rare to an expert."""
    found = subject.statistics
    if found is None:
        return
    kinds, even = int((found.unigrams > 0).sum()), evenness(found.unigrams)
    if kinds >= _LEAST_KINDS and even > policy.most_evenness:
        yield Fault(
            f"its {kinds} different tokens are {even:.1%} as even as if all were as frequent, expected at most "
            f"{policy.most_evenness:.0%}",
            _COUNT,
        )


def evenness(counts: Tensor) -> float:
    """Return the entropy of counts over that of as many that are all the same, 0 to 1."""
    shares = shares_of(counts[counts > 0])
    return float(-(shares * shares.log()).sum()) / math.log(len(shares)) if len(shares) > 1 else 0.0


def _exact(subject: Subject) -> Statistics | None:
    """Return its statistics, or None where it has none.

    Raises:
        NotAtHandError: they carry noise, which no text counts.
    """
    if subject.statistics is not None and subject.statistics.private is not None:
        raise NotAtHandError("its counts carry noise, so they are no text's: only what comes of them can be judged")
    return subject.statistics


def _total(statistics: Statistics, counts: Tensor, card: Card) -> tuple[int, int]:
    """Return how much is counted, and the most that suppression took from it."""
    return int(counts.sum()), int(_lost(statistics, counts, card).sum())


def _lost(statistics: Statistics, counts: Tensor, card: Card) -> Tensor:
    """Return the most that suppression took from each count: one contributor's own only where nothing is left."""
    contributors = card.federation.nodes if card.federation else 1
    return max(statistics.suppressed_below - 1, 0) * (contributors - (counts > 0).long())


def _most_pairs(most: Tensor, place: int, buckets: int) -> int:
    """Return how often the pairs of one bucket can occur together, given how often each token can."""
    every = torch.arange(len(most))
    # Whatever the first token is, the second is one of those that differ by a multiple of the buckets.
    second = (place - pair_bucket(every, torch.zeros_like(every), buckets)) % buckets
    folded = torch.zeros(buckets, dtype=most.dtype).index_add(0, every % buckets, most)
    return int(torch.minimum(most, folded[second]).sum())
