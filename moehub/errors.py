"""Everything that moehub raises on purpose.

    MoehubError                 one sentence for a person: what was wrong, the value, what was expected, the cure
    ├── ConfigError             a configuration file, `--set` or an option contradicts itself or the format
    ├── DataError               training or evaluation text that cannot be used
    ├── BaseModelError          a base that cannot be found, is no causal language model, or is not the one pinned
    ├── TrainingError           a training that diverged, or that cannot be started or resumed where it was asked to
    ├── ExpertError             a folder that is no expert, or one that was damaged or tampered with
    ├── MergeError              experts that do not fit together, or a MoE folder that cannot be changed that way
    ├── RouterError             a router that is unknown or lacks what it needs
    ├── AdmissionError          an expert that the admission gate refuses
    ├── SigningError            a key that cannot be used, or a signature that does not hold
    ├── AnsweringError          a model that cannot answer or judge, or an endpoint that refuses
    ├── SandboxError            strangers' code that cannot be run on this machine without danger
    ├── HubError                a hub that is missing, refuses, or serves something else than it promised
    └── FederationError         a federation or a node that cannot be started, resumed or finished

The command line shows the sentence and exits with 1; `--debug` shows the traceback too.
"""

from collections.abc import Sequence


class MoehubError(Exception):
    """Base of every error that moehub raises on purpose; its text is a sentence for a person."""


class ConfigError(MoehubError):
    """A configuration that contradicts itself or the format."""


class DataError(MoehubError):
    """Text that cannot be trained or evaluated on."""


class BaseModelError(MoehubError):
    """A base model that cannot be used."""


class TrainingError(MoehubError):
    """A training that diverged, or that cannot be started or resumed where it was asked to."""


class ExpertError(MoehubError):
    """A folder that is no expert, or no longer the one that was published."""


class MergeError(MoehubError):
    """Experts that do not fit together."""


class RouterError(MoehubError):
    """A router that is unknown, or lacks the statistics it needs."""


class AdmissionError(MoehubError):
    """An expert that the admission gate refuses."""


class SigningError(MoehubError):
    """A key that cannot be used, or a signature that does not hold."""


class AnsweringError(MoehubError):
    """A model that cannot answer or judge, or an endpoint that refuses."""


class SandboxError(MoehubError):
    """Code of strangers that cannot be run here without danger."""


class HubError(MoehubError):
    """A hub that cannot be reached, refuses, or serves something else than it promised."""


class FederationError(MoehubError):
    """A federation or a node that cannot be started, resumed or finished."""


def listed(summary: str, faults: Sequence[str]) -> str:
    """Return `summary` with every fault on a line of its own, so that one run reports them all."""
    return "\n".join([summary, *(f"  - {fault}" for fault in faults)])
