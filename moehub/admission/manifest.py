"""Step 4: what the expert says about itself, in its adapter's configuration and in its card."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from moehub.admission import lora
from moehub.admission.at_hand import AtHand
from moehub.admission.check import Fault, NotAtHandError, check
from moehub.admission.policy import Policy
from moehub.admission.strict import Document, StrictJsonError, quoted
from moehub.admission.subject import Subject
from moehub.card import ADAPTER_CONFIG, CARD_FILE, EXPERT, Card, pin_faults
from moehub.errors import ExpertError
from moehub.experts.adapter import config_faults

_AGAIN = "publish the expert again as moehub wrote it"
_TRAIN = "train the expert again with `moehub train-expert`"
_LONGEST = 256
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST = 1 << 53
_SIGNED = frozenset({"stages.measured.before", "stages.measured.after", "stages.measured.kl"})
"""What may be below zero: rewards are."""
_FORBIDDING = ("-nd", "no-derivatives", "proprietary", "all-rights-reserved")
"""Marks of licences that forbid adaptations, in SPDX identifiers and as the hubs write them."""


@check(4)
def config_json(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The adapter's configuration is one JSON object in which no key stands twice."""
    yield from _json_faults(subject, ADAPTER_CONFIG)


@check(4)
def config_key(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The adapter's configuration holds the keys that PEFT writes for LoRA, and no others."""
    for key in sorted(subject.config.keys() - lora.KEYS):
        yield Fault(f"{ADAPTER_CONFIG} holds {quoted(key)}, which PEFT does not write for LoRA", _AGAIN)
    for key in lora.REQUIRED if subject.config else ():
        if key not in subject.config:
            yield Fault(f"{ADAPTER_CONFIG} lacks {key}", _AGAIN)


@check(4)
def config_gadget(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Nothing in the adapter's configuration imports a module, reads a file or looks something up."""
    for key, rule in lora.GADGETS.items():
        if key in subject.config and not rule.holds(subject.config[key]):
            found = f"{key} = {quoted(subject.config[key])} in {ADAPTER_CONFIG} may import or read something else"
            yield Fault(f"{found}, expected {rule.expected}", "publish it without")


@check(4)
def config_value(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Every value in the adapter's configuration has the type and form of that key."""
    for key, rule in lora.FORMS.items():
        if key in subject.config and not rule.holds(subject.config[key]):
            found = f"{key} = {quoted(subject.config[key])} in {ADAPTER_CONFIG}"
            yield Fault(f"{found}, expected {rule.expected}", _TRAIN)


@check(4)
def unsupported_adapter(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """It is a LoRA that adds s·B·A to linears, or a DoRA of that, and changes nothing else of the base."""
    for fault in config_faults(subject.config) if subject.config else ():
        yield Fault.parse(fault)


@check(4)
def rank_limit(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Its rank is at least 1 and no larger than all experts of a MoE can be padded to."""
    for rank in _ranks(subject):
        if not 1 <= rank <= policy.most_rank:
            found = f"its rank is {quoted(rank)}, expected 1 to {policy.most_rank}"
            yield Fault(found, "train it with another --set rank")


@check(4)
def scale_limit(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Its alpha/r is above 0 and no larger than trainings use: a huge alpha makes a tiny adapter destroy the base."""
    alphas = [subject.config.get("lora_alpha"), *_mapping(subject, "alpha_pattern").values()]
    rank = min((one for one in _ranks(subject) if one > 0), default=1)
    divisor = math.sqrt(rank) if subject.config.get("use_rslora") is True else rank
    for alpha in alphas:
        if lora.is_number(alpha) and not 0 < (scale := float(alpha) / divisor) <= policy.most_scale:
            found = f"its alpha {quoted(alpha)} scales it by {scale:.6g}"
            expected = f"expected more than 0 and at most {policy.most_scale:g}"
            yield Fault(f"{found}, {expected}", "train it with a smaller alpha")


@check(4)
def card_json(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The card is one JSON object in which no key stands twice."""
    yield from _json_faults(subject, CARD_FILE)


@check(4)
def card_fields(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The card has the fields of format 1, of their types, and plain names."""
    try:
        if isinstance(subject.card_document.value, dict):
            _ = subject.card
    except StrictJsonError:
        return
    except ExpertError as error:
        # Several are listed below a summary, a line for each.
        summary, *listed = str(error).splitlines()
        for line in listed or [summary]:
            found = Fault.parse(line.removeprefix("  - "))
            yield Fault(f"{CARD_FILE}: {found.sentence:.300}", f"{found.cure:.300}")


@check(4)
def card_values(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The card's numbers are such as trainings give, its texts short and printable, its digests digests."""
    card = _card(subject)
    if card is None:
        return
    for where, value in _leaves(dataclasses.asdict(card), ""):
        if not _is_plausible(value, signed=where in _SIGNED):
            yield Fault(f"{where} = {quoted(value)} in {CARD_FILE} is no plausible value", _AGAIN)
    for where, digest in (("base.digest", card.base.digest), ("base.tokenizer", card.base.tokenizer)):
        if not _DIGEST.fullmatch(digest):
            yield Fault(f"{where} = {quoted(digest)} in {CARD_FILE}, expected a sha256 in hex", _AGAIN)
    if card.version < 1:
        yield Fault(f"version = {card.version} in {CARD_FILE}, expected 1 or more", _AGAIN)
    if card.base.reference.startswith(("/", "~", ".")) or "\\" in card.base.reference:
        found = f"base.reference = {quoted(card.base.reference)} in {CARD_FILE} is a path of its publisher's machine"
        yield Fault(f"{found}, expected a repo or the name of a folder", _AGAIN)


@check(4)
def pinned_files(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The card pins every file by its sha256, and the files are those that it pins."""
    card = _card(subject)
    for fault in pin_faults(subject.folder, card) if card is not None else ():
        yield Fault.parse(fault)


@check(4)
def card_agreement(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The card says the same as the adapter's configuration: rank, alpha and targets."""
    card, config = _card(subject), subject.config
    if card is None or not config:
        return
    for key, said in (("r", card.rank), ("lora_alpha", card.alpha), ("target_modules", _ordered(card.targets))):
        if key in config and lora.FORMS[key].holds(config[key]):
            found = _ordered(config[key]) if key == "target_modules" else config[key]
            if found != said:
                sentence = f"the card says {quoted(said)}, {ADAPTER_CONFIG} says {key} = {quoted(found)}"
                yield Fault(sentence, _AGAIN)


@check(4)
def base(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """It was trained on the base that it is checked for, with that base's tokenizer.

    Raises:
        NotAtHandError: no base is at hand.
    """
    if at_hand.pin is None:
        raise NotAtHandError("no base is at hand to compare it with: name one with --base")
    card = _card(subject)
    if card is None:
        return
    if card.base.digest != at_hand.pin.digest:
        trained = f"{quoted(card.base.reference)} ({card.base.digest[:12]!a})"
        expected = f"{at_hand.pin.reference} ({at_hand.pin.digest[:12]})"
        yield Fault(f"it was trained on the base {trained}, expected {expected}", "train it on this base")
    elif card.base.tokenizer != at_hand.pin.tokenizer:
        yield Fault("it was trained with another tokenizer than the base's", "train it with the base's own")


@check(4)
def purpose(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """It answers: a reward model only rates what others answer."""
    card = _card(subject)
    if card is not None and card.purpose != EXPERT:
        found = f"it is a {quoted(card.purpose)} model, which rates answers and gives none, expected an expert"
        yield Fault(found, "train an expert with it (`--stage rl`), and merge that")


@check(4)
def licence(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Its licence allows adaptations: a merge is one."""
    card = _card(subject)
    if card is not None and any(mark in card.license.lower() for mark in _FORBIDDING):
        found = f"its licence {quoted(card.license)} forbids adaptations such as a merge"
        yield Fault(found, "ask its publisher, or leave it out")


def _json_faults(subject: Subject, name: str) -> Iterator[Fault]:
    try:
        document: Document = subject.config_document if name == ADAPTER_CONFIG else subject.card_document
    except StrictJsonError as error:
        yield Fault(f"{name} is no JSON ({error})", _AGAIN)
        return
    if not isinstance(document.value, dict) or not document.value:
        yield Fault(f"{name} is {quoted(document.value)}, expected a JSON object", _AGAIN)
    if document.duplicates:
        yield Fault(f"{name} holds {quoted(document.duplicates[0])} twice", _AGAIN)


def _card(subject: Subject) -> Card | None:
    """Return the card, or None where `card_json` and `card_fields` refuse it."""
    try:
        return subject.card
    except ExpertError:
        return None


def _mapping(subject: Subject, key: str) -> Mapping[str, object]:
    value = subject.config.get(key)
    return value if isinstance(value, dict) else {}


def _ranks(subject: Subject) -> list[int]:
    found = [subject.config.get("r"), *_mapping(subject, "rank_pattern").values()]
    return [rank for rank in found if type(rank) is int]


def _ordered(targets: object) -> list[str]:
    return [targets] if isinstance(targets, str) else sorted(set(targets))  # type: ignore[call-overload]  # names


def _leaves(value: Any, where: str) -> Iterator[tuple[str, object]]:
    """Yield every value of nested mappings and lists, and every key, with where it stands."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield f"a key of {where}" if where else "a key", key
            yield from _leaves(each, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each, where)
    else:
        yield where, value


def _is_plausible(value: object, *, signed: bool = False) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST and value.isprintable()
    if isinstance(value, int | float):
        return (-_MOST if signed else 0) <= value <= _MOST
    return value is None
