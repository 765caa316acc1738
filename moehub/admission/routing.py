"""Step 9: what the gate would give the expert: of generic text little, and of its own domain no less than is right."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice

from torch import Tensor

from moehub.admission.at_hand import AtHand
from moehub.admission.canary import domain_text, probe_of
from moehub.admission.check import Fault, NotAtHandError, check
from moehub.admission.policy import Policy
from moehub.admission.sampling import drawn
from moehub.admission.shares import SUBJECT, Share, Table, padded
from moehub.admission.subject import Subject
from moehub.experts.statistics import Statistics
from moehub.router.method import NULL

_COUNT = "count the statistics of its own domain's text alone, and more of it"
_COMPANY = 16
"""Others that it stands beside, at most."""
_ROWS = 8
"""Texts that the generic tokens are drawn as."""


@check(9)
def neutral_share(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Generic text goes to the null expert, not to it: beside the null alone, and beside the others too.

    Raises:
        NotAtHandError: no generic counts of its tokenizer.
    """
    for where, share in neutral_shares(subject, at_hand, policy).items():
        everywhere = share.chosen > policy.most_neutral_chosen and share.weight > policy.least_chosen_weight
        if share.weight > policy.most_neutral_weight or everywhere:
            yield Fault(
                f"{where} it gets {share.weight:.0%} of the weight and answers {share.chosen:.0%} of the tokens, "
                f"expected at most {policy.most_neutral_weight:.0%} and {policy.most_neutral_chosen:.0%}",
                _COUNT,
            )
            return


@check(9)
def domain_evidence(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Nobody else's counts explain text of its domain far better than its own.

    Raises:
        NotAtHandError: no text of its domain, no base to cut it into tokens, or nobody to compare with.
    """
    if subject.statistics is None:
        return
    best, nats = behind(subject, at_hand, policy)
    if nats > policy.most_behind:
        yield Fault(
            f"the counts of {best} explain text of its domain {subject.card.domain} by {nats:.2f} nats per token "
            f"better than its own, expected at most {policy.most_behind:g}",
            "publish it with the statistics of the text that it was trained on, and name its domain rightly",
        )


def neutral_shares(subject: Subject, at_hand: AtHand, policy: Policy) -> dict[str, Share]:
    """Return what the expert gets of generic text, by what it stands beside and which text it is.

    Raises:
        NotAtHandError: no generic counts of its tokenizer.
    """
    mine = subject.statistics
    if mine is None:
        return {}
    # More company only takes shares away: some is enough, and a hub may have thousands.
    beside = dict(islice(sorted(_others(mine, at_hand).items()), _COMPANY))
    company = _alike(mine, {NULL: _null(mine, at_hand)} | beside)
    mine, null = company.pop(SUBJECT), company.pop(NULL)
    tables = {"the null": Table(mine, {}, null), "the null and the others": Table(mine, company, null)}
    return {
        f"on {text}, beside {beside},": table.shares(ids, mask)[SUBJECT]
        for text, (ids, mask) in _neutral(subject, at_hand, null, policy).items()
        for beside, table in tables.items()
    }


def behind(subject: Subject, at_hand: AtHand, policy: Policy) -> tuple[str, float]:
    """Return whose counts explain text of the expert's domain best but for its own, and by how many nats per token.

    Raises:
        NotAtHandError: no text of its domain, no base to cut it into tokens, or nobody to compare with.
    """
    mine = subject.statistics
    if mine is None or (at_hand.null is None and not at_hand.others):
        raise NotAtHandError("there is nobody to compare with: name generic text with --null or a MoE with --beside")
    rows = probe_of(subject, at_hand).rows(domain_text(at_hand), policy.canary_tokens)
    generic = {} if at_hand.null is None else {NULL: _null(mine, at_hand)}
    company = _alike(mine, generic | _others(mine, at_hand))
    mine, null = company.pop(SUBJECT), company.pop(NULL, None)
    evidence = Table(mine, company, null).evidence(*padded(rows))
    own = evidence.pop(SUBJECT)
    best = max(evidence, key=lambda name: evidence[name])
    return best, evidence[best] - own


@lru_cache(maxsize=2)
def _generic(null: Statistics, tokens: int) -> Tensor:
    """Return tokens drawn from generic counts, int64 [R, T]; the same counts serve many experts."""
    return drawn(null, rows=_ROWS, length=tokens // _ROWS)


def _null(mine: Statistics, at_hand: AtHand) -> Statistics:
    found = at_hand.null
    if found is None:
        raise NotAtHandError("no counts of generic text are at hand: name a file or folder with --null")
    if not _comparable(mine, found) or not int(found.unigrams.sum()):
        raise NotAtHandError("the generic text was counted with another tokenizer: count it with the base's")
    return found


def _others(mine: Statistics, at_hand: AtHand) -> dict[str, Statistics]:
    return {name: one for name, one in at_hand.others.items() if _comparable(mine, one)}


def _comparable(mine: Statistics, other: Statistics) -> bool:
    return (mine.tokenizer, mine.vocabulary) == (other.tokenizer, other.vocabulary)


def _alike(mine: Statistics, others: Mapping[str, Statistics]) -> dict[str, Statistics]:
    """Return all with the kinds of counts that all have, in as few buckets as the least has."""
    everyone = {SUBJECT: mine} | dict(others)
    kinds = [kind for kind in mine.counts if all(kind in one.counts for one in everyone.values())]
    least = {kind: min(len(one.counts[kind]) for one in everyone.values()) for kind in kinds}
    return {name: _folded(one, least) for name, one in everyone.items()}


def _folded(found: Statistics, sizes: Mapping[str, int]) -> Statistics:
    """Return counts in fewer buckets: a table folds exactly into one of half as many."""
    if {kind: len(counts) for kind, counts in found.counts.items()} == sizes:
        return found
    folded = found.with_counts({kind: found.counts[kind].view(-1, size).sum(0) for kind, size in sizes.items()})
    return dataclasses.replace(folded, faces=tuple(_folded(face, sizes) for face in found.faces))


def _neutral(
    subject: Subject, at_hand: AtHand, null: Statistics, policy: Policy
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Return generic texts by what they are: drawn from the null's counts, and the public text where it can be cut."""
    texts: dict[str, tuple[Tensor, Tensor | None]] = {"generic text": (_generic(null, policy.neutral_tokens), None)}
    if at_hand.canary is not None:
        with contextlib.suppress(NotAtHandError):
            texts["the public text"] = padded(probe_of(subject, at_hand).rows(at_hand.canary, policy.canary_tokens))
    return texts
