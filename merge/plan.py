"""The compatibility plan: may these experts become one MoE, and if not, everything that stands in the way."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moehub.card import BasePin
from moehub.errors import MergeError, listed
from moehub.experts.adapter import read_adapter
from moehub.experts.statistics import Statistics
from moehub.merge.entrance import Entrant
from moehub.merge.source import Source
from moehub.router.method import Contributor, Method, parse
from moehub.router.settings import RouterSettings


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
    refused: Sequence[Entrant] = (),
    top_k_was_asked_for: bool = False,
) -> Plan:
    """Return the plan for `sources` that the gate admitted, together with `known` experts that were checked before.

    What the gate refused is told among the faults, and so that all are told at once, the others are planned anyhow.

    Raises:
        RouterError: the router's name is unknown.
    """
    everyone = tuple(sorted([*sources, *known], key=lambda source: source.expert.name))
    methods = parse(settings.method)
    experts = len(everyone) + len(refused)
    faults = _name_faults(everyone, experts) + _top_k_faults(experts, null, settings, asked=top_k_was_asked_for)
    faults += [refusal for entrant in refused for refusal in entrant.refusals]
    for source in sorted(sources, key=lambda source: source.expert.name):
        lacks = (method.lacks(source.statistics) for method in methods)
        faults += [f"{source.expert.name}: {lack}" for lack in lacks if lack is not None]
    # Those that were checked before agree with each other: one speaks for all.
    counted = _counted([*sources, *known[:1]], null, methods)
    faults += _null_faults(null, base, methods) + _bucket_faults(counted)
    notes = _notes(everyone, null, methods) + _triple_notes(counted)
    return Plan(base, everyone, null, settings, tuple(faults), tuple(notes))


def _name_faults(everyone: Sequence[Source], experts: int) -> list[str]:
    if not experts:
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


def _null_faults(null: Null | None, base: BaseModel, methods: Sequence[Method]) -> list[str]:
    if null is None or any(method.kind == "layer" for method in methods):
        return []
    faults = [f"the null expert: {lack}" for method in methods if (lack := method.lacks(null.statistics)) is not None]
    if null.statistics.tokenizer != base.pin.tokenizer:
        faults.append("the null expert's statistics were counted with another tokenizer: give its text to --null")
    return faults


def _counted(everyone: Sequence[Source], null: Null | None, methods: Sequence[Method]) -> dict[str, Statistics]:
    """Return the statistics that make the gate, by their owner; none where it is made of something else."""
    if any(method.kind == "layer" for method in methods):
        return {}
    found = {source.expert.name: source.statistics for source in everyone if source.statistics is not None}
    return found if null is None else found | {"null": null.statistics}


def _bucket_faults(counted: Mapping[str, Statistics]) -> list[str]:
    faults = []
    for kind in ("pair", "triple"):
        bits = {name: int(getattr(one, f"{kind}_bits")) for name, one in counted.items()}
        # Triples are not used where somebody has none.
        if all(bits.values()) and len(set(bits.values())) > 1:
            named = ", ".join(f"{name} 2^{bits[name]}" for name in sorted(bits))
            faults.append(
                f"{kind}s were counted in different numbers of buckets ({named}): "
                f"train them with the same --set {kind}_bits"
            )
    return faults


def _triple_notes(counted: Mapping[str, Statistics]) -> list[str]:
    lacking = sorted(name for name, one in counted.items() if one.triples is None)
    if not lacking or len(lacking) == len(counted):
        return []
    were = "was" if len(lacking) == 1 else "were"
    return [f"triples are not used: {', '.join(lacking)} {were} published without"]


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
