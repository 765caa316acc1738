"""What a training takes over from the expert that it starts from: shape, stages, curves, counts."""

import dataclasses
import json
from typing import Any

from moehub import base as bases
from moehub.card import CURVES_FILE, EXPERT, STATISTICS_FILE, Privacy, Stage
from moehub.errors import ExpertError
from moehub.experts import adaptation
from moehub.experts.folder import Expert
from moehub.experts.settings import TrainConfig
from moehub.experts.statistics import Statistics


def continued(config: TrainConfig, start: Expert, base: bases.Base) -> TrainConfig:
    """Return the settings with the shape of the start's adapter.

    Raises:
        BaseModelError: the start is an expert of another base.
        ConfigError: the settings ask for another shape.
        ExpertError: the start is no expert that can be trained on.
    """
    if start.card.purpose != EXPERT:
        raise ExpertError(
            f"{start.folder} is a {start.card.purpose} model, which gives no answers: start from the expert that it "
            "was trained from"
        )
    base.require(start.card.base.digest, otherwise=f"{start.name!r}, which the training starts from, is not its expert")
    return adaptation.continued(config, start.folder)


def stages(start: Expert | None) -> tuple[Stage, ...]:
    """Return the stages that came before."""
    return () if start is None else start.card.stages


def curves(start: Expert | None) -> list[dict[str, Any]]:
    """Return the curves of the stages that came before, as `training.json` holds them."""
    if start is None or not (start.folder / CURVES_FILE).is_file():
        return []
    try:
        found = json.loads((start.folder / CURVES_FILE).read_text(encoding="utf-8"))["stages"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []
    return found if isinstance(found, list) and all(isinstance(one, dict) for one in found) else []


def added(counted: Statistics, start: Expert) -> Statistics:
    """Return the counts of this stage's text together with those that the start was published with.

    Raises:
        ExpertError: they cannot be added.
    """
    if not (start.folder / STATISTICS_FILE).is_file():
        return counted
    before = start.statistics()
    if (before.private is None) != (counted.private is None):
        raise ExpertError(
            f"the counts of {start.name!r} carry {'noise' if before.private else 'no noise'} and these "
            f"{'noise' if counted.private else 'none'}: train all stages with --private, or none"
        )
    faults = [
        f"{name} was {getattr(before, name)}, now it is {getattr(counted, name)}"
        for name in ("pair_bits", "triple_bits", "vocabulary", "tokenizer")
        if getattr(before, name) != getattr(counted, name)
    ]
    if faults:
        raise ExpertError(f"the counts of {start.name!r} cannot be added to ({'; '.join(faults)}): use its settings")
    both = dataclasses.replace(before, private=None) + dataclasses.replace(counted, private=None)
    return dataclasses.replace(both, private=_composed(before.private, counted.private))


def _composed(one: Privacy | None, other: Privacy | None) -> Privacy | None:
    """Return what two releases hide together, also of a document that was in both: ε and δ add up."""
    if one is None or other is None:
        return None
    sigma = {kind: (value**2 + other.sigma.get(kind, 0.0) ** 2) ** 0.5 for kind, value in one.sigma.items()}
    return Privacy(one.epsilon + other.epsilon, one.delta + other.delta, max(one.clip, other.clip), sigma)
