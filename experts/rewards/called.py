"""Rewards that are a person's own functions, by their dotted name."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from moehub.errors import ConfigError, TrainingError
from moehub.experts.examples import Task
from moehub.experts.rewards.reward import Scores, text_of

Function: TypeAlias = Callable[..., "float | None"]
"""`function(prompt: str, answer: str, fields: Mapping[str, Any], **options) -> float | None`."""


@dataclass(frozen=True)
class Called:
    """A function that says how good one answer is."""

    name: str
    """`module.function`."""
    function: Function = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Passed to it by keyword."""

    def __call__(self, tasks: Sequence[Task], answers: Sequence[str]) -> Scores:
        """Return what the function says about each answer.

        Raises:
            TrainingError: it raises something; the sentence says over which task.
        """
        return [self._value(task, answer) for task, answer in zip(tasks, answers, strict=True)]

    def _value(self, task: Task, answer: str) -> float | None:
        try:
            return self.function(text_of(task.prompt), answer, task.fields, **self.options)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise TrainingError(f"the reward {self.name} fails at an answer to {task.origin}: {reason}") from error


def find(name: str, options: Mapping[str, Any]) -> Called:
    """Return the reward that a function is.

    Raises:
        ConfigError: there is no such function, or it does not take what it will be given.
    """
    module, _, attribute = name.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        cure = "install it, or name its folder in PYTHONPATH"
        raise ConfigError(f"{name} cannot be imported ({error}): {cure}") from error
    except AttributeError as error:
        raise ConfigError(f"{name} is not there: {module} has no {attribute}") from error
    except Exception as error:
        raise ConfigError(f"{name} cannot be imported ({type(error).__name__}: {error}): mend {module}") from error
    if not callable(function):
        raise ConfigError(f"{name} is {type(function).__name__}, expected a function of prompt, answer and fields")
    _demand_signature(name, function, options)
    return Called(name, function, dict(options))


def _demand_signature(name: str, function: Function, options: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built in C: it is found out when it is called
        return
    try:
        signature.bind("", "", {}, **options)
    except TypeError as error:
        takes = f"{name}{signature}"
        raise ConfigError(f"{takes} does not take (prompt, answer, fields) and its options: {error}") from error
