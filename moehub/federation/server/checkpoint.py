"""What is being run and how far it has come, on disk: a server that was killed goes on from here.

In the output folder, `federation.json` says what is being run and is written once; `rounds/NNNN` is the checkpoint
after lap NNNN (`state.json` and DOMAIN.safetensors), whole or not there, of which the last two are kept.
"""

import contextlib
import dataclasses
import errno
import json
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from moehub import config, files
from moehub.console import console
from moehub.errors import ConfigError, FederationError, listed
from moehub.federation.form import Form
from moehub.federation.server.state import Participant, Progress, State
from moehub.federation.settings import FederationConfig, flatten

RUN = "federation.json"
ROUNDS = "rounds"
_STATE = "state.json"
_WEIGHTS = ".safetensors"
_FORMAT = 1
_KEPT = 2
_FREE = frozenset({"base", "rounds", "deadline", "quorum", "retries", "wait", "min_nodes"})
"""Settings that may change between interruption and resumption. The base's digests decide about the base."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of the run in an output folder."""

    output: Path

    def begin(self, settings: FederationConfig, form: Form) -> str:
        """Forget what was run here before, write down what is being run, and return the name of the run."""
        if (self.output / RUN).exists():
            console.print(f"beginning anew: the run in {self.output} is removed", markup=False)
        (self.output / RUN).unlink(missing_ok=True)
        shutil.rmtree(self.output / ROUNDS, ignore_errors=True)
        run = secrets.token_hex(6)
        values = {"format": _FORMAT, "run": run, "settings": _fingerprint(settings, form)}
        files.write_text(self.output / RUN, files.to_json(values))
        return run

    def resume(self, settings: FederationConfig, form: Form) -> tuple[str, State] | None:
        """Return the name of the run in this folder and how far it has come, or None if there is none.

        Raises:
            FederationError: it is another run, and everything that differs is listed; or it cannot be read.
        """
        try:
            before = json.loads((self.output / RUN).read_text(encoding="utf-8"))
            run, was = str(before["run"]), dict(before["settings"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FederationError(
                f"{self.output / RUN} cannot be read ({error}): leave out --resume to begin anew"
            ) from error
        _require_same(self.output, was, _fingerprint(settings, form))
        return run, self._last()

    def save(self, state: State) -> None:
        """Write a checkpoint whole, or not at all, and remove those that are no longer needed."""
        with files.new_folder(self._folder(state.lap)) as building:
            for domain, weights in state.weights.items():
                save_file(weights, building / f"{domain}{_WEIGHTS}")
            files.write_text(building / _STATE, _written(state))
        for old in self._folders()[_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)

    def amend(self, state: State) -> None:
        """Write again how far the run has come, where the weights are those of the last checkpoint."""
        files.write_text(self._folder(state.lap) / _STATE, _written(state))

    def _last(self) -> State:
        for folder in self._folders():
            try:
                return _read(folder)
            except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
                console.print(f"the checkpoint {folder} is damaged ({error})", markup=False, soft_wrap=True)
        if self._folders():
            raise FederationError(
                f"no checkpoint in {self.output / ROUNDS} can be read: leave out --resume to begin anew"
            )
        return State()

    def _folders(self) -> list[Path]:
        """Return the folders of the checkpoints, the last one first."""
        found = [path for path in (self.output / ROUNDS).glob("*") if path.is_dir() and path.name.isdecimal()]
        return sorted(found, key=lambda path: int(path.name), reverse=True)

    def _folder(self, lap: int) -> Path:
        return self.output / ROUNDS / f"{lap:04d}"


@contextlib.contextmanager
def kept_when_full(output: Path) -> Iterator[None]:
    """Turn the ways in which a full disk shows into one sentence.

    Raises:
        FederationError: the disk is full; everything that was saved before is still there.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
        if not full and "os error 28" not in str(error):
            raise
        raise FederationError(
            f"the disk that holds {output} is full: free some space and go on with --resume; "
            "every finished round and every reply that was saved is kept"
        ) from error


def _fingerprint(settings: FederationConfig, form: Form) -> dict[str, Any]:
    """Return what every round depends on."""
    flat = {name: value for name, value in flatten(settings).items() if name not in _FREE}
    shape = json.loads(form.to_json())
    base = shape.pop("base")
    return {**flat, **shape, "base.digest": base["digest"], "base.tokenizer": base["tokenizer"]}


def _require_same(output: Path, was: dict[str, Any], now: dict[str, Any]) -> None:
    differing = [
        f"{name} was {_short(was.get(name))}, now it is {_short(now.get(name))}"
        for name in sorted({*was, *now})
        if was.get(name) != now.get(name)
    ]
    if differing:
        raise FederationError(
            listed(
                f"the run in {output} cannot be resumed, because it is another one "
                "(give what you gave before, or leave out --resume to begin anew):",
                differing,
            )
        )


def _written(state: State) -> str:
    domains = {name: dataclasses.asdict(each) for name, each in state.domains.items()}
    values = {"lap": state.lap, "seconds": state.seconds, "domains": domains, "weights": sorted(state.weights)}
    return files.to_json({"format": _FORMAT, **values})


def _read(folder: Path) -> State:
    values = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    domains = {name: _progress(each, str(folder)) for name, each in values["domains"].items()}
    weights = {name: load_file(folder / f"{name}{_WEIGHTS}") for name in sorted(values["weights"])}
    return State(int(values["lap"]), float(values["seconds"]), domains, weights)


def _progress(values: dict[str, Any], source: str) -> Progress:
    participants = {
        key: config.from_mapping(Participant, each, source=source) for key, each in values["participants"].items()
    }
    return config.from_mapping(Progress, {**values, "participants": participants}, source=source)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:24]}…"
