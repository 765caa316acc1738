"""Two attacks on published counts: was this document among the text, and which number stood behind this name?

The attacker knows the tokenizer, how counts are published, and the counts of other text of the domain. Both attacks
are likelihood ratios (`benchmarks.privacy.likelihood`). Membership sums that of a document over all of its buckets. A
canary is a name with a number of eight digits, which an attacker who knows the name, and how often the canary stands in
its document, reads off the counts digit by digit: a beam of the most probable beginnings. Each publication holds one
canary of each number of repeats; counts remember no more than two tokens, so several would hide one another.

Shapes: T tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from benchmarks.privacy.likelihood import Published
from benchmarks.privacy.protection import Publish, exact
from moehub.experts import privacy
from moehub.experts.statistics import Statistics, pair_bucket, triple_bucket

REPEATS = (1, 2, 3, 5, 10)
"""How often a canary stands in its document."""
_TRIALS = 20
"""Publications, each with new names, numbers and noise."""
_DIGITS = 8
_BEAM = 1000
_PSEUDO = 0.5
"""Added to the attacker's own counts: what it never saw may be."""
_SYLLABLES = ("ba", "do", "ri", "mel", "tan", "ku", "sor", "ven", "li", "gha", "pe", "zo", "wick", "nor", "fa", "del")


@dataclass(frozen=True)
class Canary:
    """A person's name with a number, which stands so often in one document."""

    name: str
    number: str
    repeats: int

    @property
    def sentence(self) -> str:
        """The secret, as it stands in the text."""
        return f"{self.name} {self.number}. "


@dataclass(frozen=True)
class Outcome:
    """How the attacks on one publication went."""

    recovered: dict[int, float]
    """Repeats → share of the canaries whose number came out first."""
    membership: float
    """Area under the curve of the membership test: ½ is chance."""


class Victim:
    """A contributor with canaries among its documents, and an attacker with other text of the domain."""

    def __init__(self, name: str, tokenizer: Any, documents: Sequence[Tensor], *, seed: int) -> None:
        """Share documents among the contributor, those that it never had, and the attacker: a third each."""
        self.name, self.tokenizer, vocabulary = name, tokenizer, len(tokenizer)
        self.vocabulary = vocabulary
        draw = Random(f"privacy {seed}")  # noqa: S311 (a benchmark's own drawing)
        shuffled = draw.sample(list(documents), len(documents))
        third = len(shuffled) // 3
        self.members, self.strangers, known = shuffled[:third], shuffled[third : 2 * third], shuffled[2 * third :]
        self.trials = [[_canary(draw, repeats) for repeats in REPEATS] for _ in range(_TRIALS)]
        reference = exact(known, vocabulary)
        scale = sum(map(len, self.members)) / sum(map(len, known))
        self.expected = {kind: (counts.double() + _PSEUDO) * scale for kind, counts in reference.counts.items()}
        self.digits = torch.cat([self._ids(digit) for digit in "0123456789"])

    def attacked(self, publish: Publish) -> Outcome:
        """Return how the attacks go once the text's counts are published so."""
        hits: dict[int, list[bool]] = {repeats: [] for repeats in REPEATS}
        for canaries in self.trials:
            planted = [self._ids(canary.sentence * canary.repeats) for canary in canaries]
            found = publish([*self.members, *planted], self.vocabulary)
            seen = self._seen(found)
            for canary in canaries:
                hits[canary.repeats].append(self._read(seen, canary) == canary.number)
        inside, outside = (
            torch.tensor([self._score(found, seen, ids) for ids in some]) for some in (self.members, self.strangers)
        )
        return Outcome({repeats: sum(some) / len(some) for repeats, some in hits.items()}, area(inside, outside))

    def _ids(self, text: str) -> Tensor:
        return torch.tensor(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _seen(self, found: Statistics) -> dict[str, Published]:
        sigma: Mapping[str, float] = {} if found.private is None else found.private.sigma
        hides = found.suppressed_below > 1 or found.private is not None
        return {
            kind: Published(_restored(counts, sigma.get(kind)), self.expected[kind], sigma.get(kind, 0.0), hides)
            for kind, counts in found.counts.items()
        }

    def _read(self, seen: Mapping[str, Published], canary: Canary) -> str:
        """Return the number that the counts make most probable behind the canary's name."""
        known = self._ids(f"{canary.name} ")[-2:]
        tails = torch.stack([known])
        scores, digits = torch.zeros(1, dtype=torch.float64), torch.zeros(1, 0, dtype=torch.int64)
        for _ in range(_DIGITS):
            grown = (scores[:, None] + self._gains(seen, tails, canary.repeats)).flatten()
            scores, best = grown.topk(min(_BEAM, len(grown)))
            came, digit = best // len(self.digits), best % len(self.digits)
            tails = torch.stack([tails[came, 1], self.digits[digit]], 1)
            digits = torch.cat([digits[came], digit[:, None]], 1)
        return "".join(map(str, digits[0].tolist()))

    def _gains(self, seen: Mapping[str, Published], tails: Tensor, repeats: int) -> Tensor:
        """Return the log ratio of every digit behind each two tokens [N, 2], float64 [N, 10]."""
        before, previous = tails[:, :1], tails[:, 1:]
        places = {
            "pairs": pair_bucket(previous, self.digits, len(seen["pairs"].counts)),
            "triples": triple_bucket(before, previous, self.digits, len(seen["triples"].counts)),
        }
        ratios = [seen[kind].ratio(place, torch.full_like(place, repeats)) for kind, place in places.items()]
        return torch.stack(ratios).sum(0)

    def _score(self, found: Statistics, seen: Mapping[str, Published], ids: Tensor) -> float:
        clip = 0 if found.private is None else found.private.clip
        total = 0.0
        for kind, counts in exact([ids], self.vocabulary, clip=clip).counts.items():
            used = counts.nonzero()[:, 0]
            total += float(seen[kind].ratio(used, counts[used]).sum())
        return total


def _restored(counts: Tensor, sigma: float | None) -> Tensor:
    """Return counts as they were before they were made smaller: the least that is published gives the factor away."""
    shown = counts[counts > 0]
    if sigma is None or not len(shown):
        return counts
    return (counts * max(1.0, privacy.least(sigma, len(counts)) / int(shown.min()))).round().long()


def area(inside: Tensor, outside: Tensor) -> float:
    """Return the chance that a member's score is above a stranger's, ties counted half."""
    above = (inside[:, None] > outside).double() + 0.5 * (inside[:, None] == outside)
    return float(above.mean())


def _canary(draw: Random, repeats: int) -> Canary:
    first, last = ("".join(draw.choices(_SYLLABLES, k=3)).title() for _ in range(2))
    return Canary(f"{first} {last}", "".join(draw.choices("0123456789", k=_DIGITS)), repeats)
