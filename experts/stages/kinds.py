"""The stages by name: what they are set by, what they read, and what makes them ready."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moehub.errors import ConfigError
from moehub.experts import data
from moehub.experts.examples import Practice, Preference, Rated, Task
from moehub.experts.rewards import Opener
from moehub.experts.settings import TrainConfig
from moehub.experts.stages.settings import PreferenceConfig, ReinforceConfig, RewardConfig
from moehub.experts.stages.stage import Stage

AUTO = "auto"
"""Documents are pretrained on, and anything else fine-tuned on."""


@dataclass(frozen=True)
class Kind:
    """A stage before its data is read."""

    name: str
    config: type[TrainConfig]
    read: Callable[[Sequence[Path]], Sequence[Practice]]
    """Files → what the stage learns from."""


KINDS = {
    kind.name: kind
    for kind in (
        Kind(AUTO, TrainConfig, data.read),
        Kind("pretrain", TrainConfig, data.read),
        Kind("sft", TrainConfig, data.read),
        Kind("dpo", PreferenceConfig, data.read_preferences),
        Kind("kto", PreferenceConfig, data.read_rated),
        Kind("reward", RewardConfig, data.read_preferences),
        Kind("rl", ReinforceConfig, data.read_tasks),
    )
}


def find(name: str) -> Kind:
    """Return the stage of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in KINDS:
        raise ConfigError(f"there is no stage {name!r}, expected one of {', '.join(KINDS)}")
    return KINDS[name]


def make(
    name: str,
    tokenizer: Any,
    practice: Sequence[Any],
    config: TrainConfig,
    *,
    longest: int,
    opener: Opener | None = None,
) -> Stage:
    """Return the stage `name` with its material ready.

    Args:
        name: as in `KINDS`.
        tokenizer: the base's.
        practice: what its `Kind.read` returned.
        config: of the class that its `Kind` names.
        longest: the base's own context in tokens.
        opener: opens the models that rewards ask (`moehub.experts.rewards`); only `rl` needs it.

    Raises:
        ConfigError: the settings are another stage's, or do not fit the base.
        DataError: there is nothing to learn.
    """
    kind = find(name)
    if type(config) is not kind.config:
        mine, theirs = kind.config.__name__, type(config).__name__
        raise ConfigError(f"the settings are a {theirs}, but stage {name} takes a {mine}: give those")
    match config:
        case PreferenceConfig():
            from moehub.experts.stages.preference import PreferenceStage

            judged: list[Preference | Rated] = list(practice)
            return PreferenceStage(tokenizer, judged, config, longest=longest, kind=name)
        case RewardConfig():
            from moehub.experts.stages.reward import RewardStage

            return RewardStage(tokenizer, list(practice), config, longest=longest)
        case ReinforceConfig():
            from moehub.experts.stages.reinforce import ReinforceStage

            if opener is None:
                raise ConfigError("stage rl takes an opener, which opens the models that rewards ask: give one")
            tasks: list[Task] = list(practice)
            return ReinforceStage(tokenizer, tasks, config, longest=longest, opener=opener)
        case _:
            from moehub.experts.stages.text import TextStage

            return TextStage(tokenizer, practice, config, longest=longest, kind=name)
