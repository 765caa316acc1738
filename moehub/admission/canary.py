"""Step 8: what the expert does to the base's loss, on public text and on text of its domain.

One forward pass over a few thousand tokens each. A publisher who knows the text can pass; nothing is said about text
that holds a trigger.
"""

from collections.abc import Iterator
from pathlib import Path

from moehub.admission.at_hand import AtHand
from moehub.admission.check import Fault, NotAtHandError, check
from moehub.admission.policy import Policy
from moehub.admission.probe import Losses, Probe, opened
from moehub.admission.subject import Subject
from moehub.base import weights_digest
from moehub.errors import BaseModelError

_TRAIN = "train it with a smaller learning rate, or for fewer steps"


@check(8)
def canary_loss(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The base answers public text hardly worse with it.

    Raises:
        NotAtHandError: no public text, or not the expert's base with its weights.
    """
    if at_hand.canary is None:
        raise NotAtHandError("no public text is at hand to measure on: name a file with --canary")
    found = measured(subject, at_hand, at_hand.canary, policy)
    if not found.rise <= policy.most_canary_rise:  # what is no number is refused too
        yield Fault(
            f"with it the base's loss on public text goes from {found.base:.3f} to {found.expert:.3f} "
            f"({found.rise:+.1%}), expected at most {policy.most_canary_rise:+.0%}",
            _TRAIN,
        )


@check(8)
def domain_gain(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The base answers text of its domain better with it.

    Raises:
        NotAtHandError: no text of the domain, or not the expert's base with its weights.
    """
    found = _on_domain(subject, at_hand, policy)
    if not -found.rise > policy.least_domain_gain:
        yield Fault(
            f"with it the base's loss on text of its domain {subject.card.domain} goes from {found.base:.3f} to "
            f"{found.expert:.3f} ({found.rise:+.1%}), expected to fall",
            "train it on more text of that domain, or name its domain rightly",
        )


@check(8)
def claimed_metrics(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The losses that its card claims are losses, and the expert's is lower than the base's."""
    metrics = subject.card.metrics
    if metrics is not None and not (0 < metrics.expert_loss < metrics.base_loss < float("inf") and metrics.tokens > 0):
        yield Fault(
            f"its card claims a loss of {metrics.expert_loss:.4g} against the base's {metrics.base_loss:.4g} over "
            f"{metrics.tokens} tokens, expected less than the base's, both above 0",
            "train it until it gains on text that was held out",
        )


@check(8)
def claimed_gain(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The gain that its card claims is not far above the one measured on text of its domain.

    Raises:
        NotAtHandError: no text of the domain, or not the expert's base with its weights.
    """
    found, metrics = _on_domain(subject, at_hand, policy), subject.card.metrics
    if metrics is None or not found.rise < 0:  # that it gains nothing is told already
        return
    claimed, gained = 1 - metrics.expert_loss / metrics.base_loss, -found.rise
    if claimed > 2 * gained + policy.most_claim_excess:
        yield Fault(
            f"its card claims that it lowers the loss by {claimed:.0%}, but on text of its domain it does by "
            f"{gained:.1%}",
            "measure it on text that it was not trained on, and publish it again",
        )


def probe_of(subject: Subject, at_hand: AtHand) -> Probe:
    """Return the expert's base, opened.

    Raises:
        NotAtHandError: it is not at hand with its weights.
    """
    if at_hand.base is None:
        raise NotAtHandError("no base with weights is at hand to measure with: name one with --base")
    if weights_digest(at_hand.base.folder) != subject.card.base.digest:
        raise NotAtHandError(
            f"the base at hand is not {subject.card.base.reference}, which it was trained on: name that with --base"
        )
    return opened(at_hand.base)


def domain_text(at_hand: AtHand) -> Path:
    """Return the file with text of the expert's domain.

    Raises:
        NotAtHandError: there is none.
    """
    if at_hand.domain_text is None:
        raise NotAtHandError("no text of its domain is at hand to measure on: name a file with --domain-text")
    return at_hand.domain_text


def measured(subject: Subject, at_hand: AtHand, text: Path, policy: Policy) -> Losses:
    """Return the losses on a text without the expert and with it.

    Raises:
        ExpertError: it does not fit the base.
        NotAtHandError: its base is not at hand with its weights, or with quantised ones that a DoRA cannot be put on.
    """
    probe = probe_of(subject, at_hand)
    try:
        return probe.measure(subject.adapter, probe.rows(text, policy.canary_tokens))
    except BaseModelError as error:
        raise NotAtHandError(str(error)) from error


def _on_domain(subject: Subject, at_hand: AtHand, policy: Policy) -> Losses:
    return measured(subject, at_hand, domain_text(at_hand), policy)
