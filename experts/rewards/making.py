"""Rewards from settings, together: made, checked against the tasks, and added up."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from moehub import config
from moehub.answering.answerer import Answerer
from moehub.errors import ConfigError, DataError, MoehubError, TrainingError, listed
from moehub.experts.examples import Task
from moehub.experts.rewards import called
from moehub.experts.rewards.exact import Exact
from moehub.experts.rewards.hedged import Hedged
from moehub.experts.rewards.judged import ByModel, YesNo
from moehub.experts.rewards.reward import OfField, Opener, Reward, RewardModel, Scores, Weighted
from moehub.experts.rewards.shape import Format, Length
from moehub.experts.rewards.tested import UnitTests

_MOST_FAULTS = 10


class _Kind(Protocol):
    """Options that open a reward."""

    def open(self, opener: Opener) -> Reward: ...


KINDS: dict[str, type[_Kind]] = {kind.name: kind for kind in (YesNo, ByModel, UnitTests, Exact, Hedged, Length, Format)}
"""The rewards that have names; whatever has a dot in its name is a function."""


class _Nobody:
    """Opens no model."""

    def answerer(self, reference: str) -> Answerer:
        raise ConfigError(f"it asks the model {reference}, and models cannot be asked here: leave it out")

    def reward_model(self, folder: str) -> RewardModel:
        raise ConfigError(f"it asks the reward model {folder}, and models cannot be asked here: leave it out")


@dataclass(frozen=True)
class Scored:
    """What rewards say about answers."""

    total: list[float]
    """For each answer the sum of weight × value over the rewards that say something; 0 where none does."""
    parts: dict[str, Scores]
    """Label of a reward → its values, without its weight."""


def make(settings: Mapping[str, Any], *, opener: Opener | None) -> tuple[Weighted, ...]:
    """Return the rewards that settings name: label → weight, or weight and options.

    A label is the name of a reward (`KINDS`), or `module.function`; with `kind: NAME` among the options, it is any.
    Without an `opener`, a reward that asks a model is a fault.

    Raises:
        ConfigError: unknown rewards, wrong options, or models that cannot be opened; all faults are listed.
    """
    made: list[Weighted] = []
    faults: list[str] = []
    for label, value in settings.items():
        try:
            made.append(_weighted(str(label), value, opener or _Nobody()))
        except MoehubError as error:
            faults.append(f"{label}: " + " ".join(line.strip().removeprefix("- ") for line in str(error).splitlines()))
    if not settings:
        faults.append(f"there are none; expected at least one of {', '.join(KINDS)} or module.function, with a weight")
    if faults:
        raise ConfigError(listed("the rewards cannot be used:", faults))
    return tuple(made)


def _weighted(label: str, value: Any, opener: Opener) -> Weighted:
    options = dict(value) if isinstance(value, Mapping) else {"weight": value}
    weight, name = options.pop("weight", 1.0), options.pop("kind", label)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise ConfigError(f"weight = {weight!r}, expected a number, or options with `weight`")
    if name in KINDS:
        reward = config.from_mapping(KINDS[name], options, source="what is set").open(opener)
    elif isinstance(name, str) and "." in name.strip("."):
        reward = called.find(name, options)
    else:
        raise ConfigError(f"there is no reward {name!r}; expected one of {', '.join(KINDS)}, or module.function")
    return Weighted(label, float(weight), reward)


def check(weighted: Sequence[Weighted], tasks: Sequence[Task]) -> None:
    """Make sure, before anything is trained, that the tasks have what the rewards read.

    Raises:
        DataError: a field is in no task, or holds what a reward cannot use; the faults of all rewards are listed.
    """
    faults = [fault for each in weighted for fault in _faults(each, tasks)]
    if faults:
        left = len(faults) - _MOST_FAULTS
        more = [f"and {left} more"] if left > 0 else []
        raise DataError(listed("the tasks do not fit the rewards:", [*faults[:_MOST_FAULTS], *more]))


def _faults(weighted: Weighted, tasks: Sequence[Task]) -> list[str]:
    reward = weighted.reward
    if not isinstance(reward, OfField):
        return []
    known = [task for task in tasks if reward.known(task)]
    if not known:
        fields = sorted({str(name) for task in tasks for name in task.fields})
        has = f"they have {', '.join(fields)}" if fields else "they have no fields beside the prompt"
        return [f"{weighted.label} reads the field {reward.field!r}, which none of the {len(tasks)} tasks has: {has}"]
    complaints = ((task.origin, reward.complaint(task.fields[reward.field])) for task in known)
    return [f"{origin}: the field {reward.field!r} {told}" for origin, told in complaints if told is not None]


def combine(weighted: Sequence[Weighted], tasks: Sequence[Task], answers: Sequence[str]) -> Scored:
    """Return what rewards say about one answer to each task, and their weighted sums.

    Raises:
        TrainingError: a reward gives no number, or not one for each answer.
        MoehubError: what a reward asks cannot be asked.
    """
    if len(tasks) != len(answers):
        raise ValueError(f"{len(tasks)} tasks and {len(answers)} answers")
    parts = {each.label: _values(each, tasks, answers) for each in weighted}
    total = [0.0] * len(tasks)
    for each in weighted:
        for index, value in enumerate(parts[each.label]):
            total[index] += each.weight * value if value is not None else 0.0
    return Scored(total, parts)


def _values(weighted: Weighted, tasks: Sequence[Task], answers: Sequence[str]) -> Scores:
    values = weighted.reward(tasks, answers)
    if len(values) != len(tasks):
        raise TrainingError(f"the reward {weighted.label} gave {len(values)} values for {len(tasks)} answers")
    return [_finite(weighted.label, task, value) for task, value in zip(tasks, values, strict=True)]


def _finite(label: str, task: Task, value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise TrainingError(f"the reward {label} gave {value!r:.40} for an answer to {task.origin}, expected a number")
    return number
