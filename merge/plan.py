"""The compatibility plan: may these experts become one MoE, and if not, everything that stands in the way."""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moehub.card import BasePin
from moehub.errors import ExpertError, MergeError, listed
from moehub.experts.adapter import Adapter, config_faults, read_adapter, read_config
from moehub.experts.linears import linear_shapes
from moehub.experts.statistics import Statistics
from moehub.merge.source import Source
from moehub.router.method import Contributor, Method, parse
from moehub.router.settings import RouterSettings

_FORBIDDING = ("-nd", "no-derivatives", "proprietary", "all-rights-reserved")
"""Marks of licences that forbid adaptations, in SPDX identifiers and as the hubs write them."""


@dataclass(frozen=True)
class BaseModel:
    """What the plan needs to know of the base: no weights."""

    pin: BasePin
    location: str
    """What `from_pretrained` takes to find it."""
    config: Mapping[str, Any]
    """Its `config.json`, without what only says where it was saved (`moehub.merge.assemble.comparable`)."""


@dataclass(frozen=True)
class Null:
    """The null expert's statistics and where they came from."""

    source: str
    sha256: str
    statistics: Statistics


@dataclass(frozen=True)
class Plan:
    """Experts in canonical order with everything that was found out about them."""

    base: BaseModel
    sources: tuple[Source, ...]
    null: Null | None
    settings: RouterSettings
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    def require(self) -> None:
        """Raise if anything stands in the way.

        Raises:
            MergeError: every fault, listed.
        """
        if self.faults:
            raise MergeError(listed("these experts cannot become one MoE:", self.faults))


def contributor(source: Source) -> Contributor:
    """Return what one expert brings to the gate; its adapter is read when a method asks for it."""
    return Contributor(source.expert.name, source.statistics, lambda: read_adapter(source.expert).pairs)


def make_plan(
    base: BaseModel,
    sources: Sequence[Source],
    *,
    null: Null | None,
    settings: RouterSettings,
    known: Sequence[Source] = (),
    top_k_was_asked_for: bool = False,
) -> Plan:
    """Return the plan for `sources`, checked, together with `known` experts that were checked before.

    Raises:
        RouterError: the router's name is unknown.
    """
    everyone = tuple(sorted([*sources, *known], key=lambda source: source.expert.name))
    methods = parse(settings.method)
    shapes = linear_shapes(base.config)
    faults = _name_faults(everyone) + _top_k_faults(len(everyone), null, settings, asked=top_k_was_asked_for)
    for source in sorted(sources, key=lambda source: source.expert.name):
        faults += [f"{source.expert.name}: {fault}" for fault in _faults(source, base, shapes, methods)]
    # Those that were checked before agree with each other: one speaks for all.
    faults += _null_faults(null, base, methods) + _pair_faults([*sources, *known[:1]], null, methods)
    return Plan(base, everyone, null, settings, tuple(faults), tuple(_notes(everyone, null, methods)))


def _name_faults(everyone: Sequence[Source]) -> list[str]:
    if not everyone:
        return ["there is no expert: name at least one with --expert"]
    counts = Counter(source.expert.name for source in everyone)
    return [
        f"{count} experts are called {name!r}, and names are unique in a MoE: train one with another --name, or drop it"
        for name, count in counts.items()
        if count > 1
    ]


def _top_k_faults(experts: int, null: Null | None, settings: RouterSettings, *, asked: bool) -> list[str]:
    choices = experts + (null is not None)
    if not asked or settings.top_k <= choices:
        return []
    counted = f"{experts} experts" + (" and the null expert" if null is not None else "")
    return [f"--top-k {settings.top_k} is more than the {counted} there are: choose at most {choices}"]


def _faults(
    source: Source, base: BaseModel, shapes: Mapping[str, tuple[int, int]], methods: Sequence[Method]
) -> list[str]:
    faults = _pin_faults(source, base) + config_faults(read_config(source.expert.folder))
    faults += _licence_faults(source.expert.card.license)
    for check in (
        lambda: _statistics_faults(source.statistics, base, methods),
        lambda: _shape_faults(read_adapter(source.expert), shapes),
    ):
        try:
            faults += check()
        except ExpertError as error:
            faults.append(str(error))
    return faults


def _statistics_faults(statistics: Statistics | None, base: BaseModel, methods: Sequence[Method]) -> list[str]:
    faults = [lack for method in methods if (lack := method.lacks(statistics)) is not None]
    if statistics is not None and statistics.tokenizer != base.pin.tokenizer:
        faults.append("its router statistics were counted with another tokenizer than the base's: train it again")
    return faults


def _pin_faults(source: Source, base: BaseModel) -> list[str]:
    pin = source.expert.card.base
    if pin.digest != base.pin.digest:
        trained, expected = f"{pin.reference} ({pin.digest[:12]})", f"{base.pin.reference} ({base.pin.digest[:12]})"
        return [f"it was trained on the base {trained}, expected {expected}: train it on this base"]
    if pin.tokenizer != base.pin.tokenizer:
        return ["it was trained with another tokenizer than the base's: train it with the base's own"]
    return []


def _licence_faults(licence: str) -> list[str]:
    if any(mark in licence.lower() for mark in _FORBIDDING):
        return [f"its licence {licence} forbids adaptations such as a merge: ask its publisher, or leave it out"]
    return []


def _shape_faults(adapter: Adapter, shapes: Mapping[str, tuple[int, int]]) -> list[str]:
    faults = []
    for linear, (A, B) in adapter.pairs.items():
        expected = shapes.get(linear)
        if expected is None:
            faults.append(f"it targets {linear!r}, which is no linear of the base: train it on this base")
        elif (B.shape[0], A.shape[1]) != expected:
            found = f"{B.shape[0]} × {A.shape[1]}"
            faults.append(f"its update of {linear!r} is {found}, expected {expected[0]} × {expected[1]}: wrong base")
    return faults


def _null_faults(null: Null | None, base: BaseModel, methods: Sequence[Method]) -> list[str]:
    if null is None or any(method.kind == "layer" for method in methods):
        return []
    faults = [f"the null expert: {lack}" for method in methods if (lack := method.lacks(null.statistics)) is not None]
    if null.statistics.tokenizer != base.pin.tokenizer:
        faults.append("the null expert's statistics were counted with another tokenizer: give its text to --null")
    return faults


def _pair_faults(everyone: Sequence[Source], null: Null | None, methods: Sequence[Method]) -> list[str]:
    if any(method.kind == "layer" for method in methods):
        return []
    bits = {} if null is None else {"null": null.statistics.pair_bits}
    for source in everyone:
        with contextlib.suppress(ExpertError):
            bits |= {} if source.statistics is None else {source.expert.name: source.statistics.pair_bits}
    if len(set(bits.values())) <= 1:
        return []
    named = ", ".join(f"{name} 2^{bits[name]}" for name in sorted(bits))
    return [f"pairs were counted in different numbers of buckets ({named}): train them with the same --set pair_bits"]


def _notes(everyone: Sequence[Source], null: Null | None, methods: Sequence[Method]) -> list[str]:
    notes = []
    if null is None and all(method.kind == "evidence" for method in methods):
        notes.append(
            "no null expert: some expert answers every token, also of text that belongs to none of them, where the "
            "base alone would be better. Give generic text with --null FILE"
        )
    licences = sorted({source.expert.card.license for source in everyone})
    if len(licences) > 1:
        notes.append(f"the experts' licences differ ({', '.join(licences)}): the MoE is bound by all of them")
    if any("-nc" in licence.lower() for licence in licences):
        notes.append("a licence allows non-commercial use only: so does the MoE's")
    return notes
