"""The verbs: tune a MoE, make an update for others to average, and average updates."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moehub import files, models
from moehub.errors import ConfigError, FederationError, MergeError, RouterError
from moehub.experts.examples import Example
from moehub.merge.load import load_parts, refuse_foreign
from moehub.merge.save import save_parts
from moehub.models import Opened
from moehub.router.arrow import ArrowGate
from moehub.router.tuned import Facts, open_gate
from moehub.tuning import material, training, updates
from moehub.tuning.settings import TuneConfig
from moehub.tuning.training import Outcome
from moehub.tuning.updates import Share


@dataclass(frozen=True)
class Preview:
    """What a tuning would do."""

    examples: int
    rows: int
    tokens: int
    steps: int
    held_out_rows: int
    held_out_tokens: int
    left_out: int
    learned: int
    """How many numbers of the gate are learned."""


def open_moe(reference: str, config: TuneConfig, *, experts: bool, base: str | None, backend: str) -> Opened:
    """Return the MoE of that name, where this machine computes best.

    Raises:
        RouterError: it is no MoE.
        MoehubError: it cannot be loaded.
    """
    folder = Path(reference).expanduser()
    if folder.is_dir() and (kind := models.kind_of(folder)) != "moe":
        raise RouterError(f"only the gate of a MoE can be tuned, and {reference} is no MoE but a {kind}: merge first")
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    half = config.dtype == "bfloat16" or (
        config.dtype == "auto" and not experts and device is not None and device.type == "cuda"
    )
    options: dict[str, Any] = {"dtype": torch.bfloat16 if half else torch.float32, "trainable": experts}
    if device is not None:
        options["device_map"] = str(device)
    opened = models.open_model(reference, base=base, backend=backend, **options)
    if opened.kind != "moe":
        raise RouterError(f"only the gate of a MoE can be tuned, and {reference} is no MoE but a {opened.kind}")
    return opened


def check_place(output: Path, *, overwrite: bool) -> None:
    """Refuse to write a MoE over something that is to stay.

    Raises:
        MergeError: something else than a MoE stands there, or a MoE and `overwrite` does not say that it may go.
    """
    refuse_foreign(output)
    if output.exists() and any(output.iterdir()) and not overwrite:
        raise MergeError(f"{output} is a MoE already: --overwrite replaces it, once the tuned one is finished")


def preview(opened: Opened, examples: Sequence[Example], config: TuneConfig) -> Preview:
    """Return what tuning a MoE on examples would do; its gate is opened and nothing is learned.

    Raises:
        ConfigError: the settings do not fit the base.
        DataError: there is nothing to learn, or nothing to measure on.
        RouterError: the gate cannot be tuned.
    """
    rows = material.prepare(opened, examples, config)
    gate = training.opened_gate(opened, config)
    return Preview(
        examples=len(examples),
        rows=len(rows.training),
        tokens=material.learned(rows.training),
        steps=rows.steps(config),
        held_out_rows=len(rows.held_out),
        held_out_tokens=material.learned(rows.held_out),
        left_out=len(rows.left_out),
        learned=sum(parameter.numel() for parameter in gate.learned().values()),
    )


def tune(
    opened: Opened, examples: Sequence[Example], output: Path, config: TuneConfig, *, experts: bool = False
) -> Outcome:
    """Tune a MoE on examples and write it to `output`; where that helped nothing, as it was, byte for byte.

    Raises:
        MergeError: something else than a MoE stands at `output`.
        MoehubError: as in `preview`, or the tuning diverged.
    """
    outcome, gate = training.tune(opened, material.prepare(opened, examples, config), config, experts=experts)
    parts, layers = opened.model.parts, opened.model.sparse_layers
    if outcome.kept:
        closed = gate.closed(training.facts(gate, outcome, experts=experts))
        save_parts(parts, layers, closed, output)
    elif output.resolve() != parts.folder.resolve():
        refuse_foreign(output)
        with files.new_folder(output) as folder:
            shutil.copytree(parts.folder, folder, dirs_exist_ok=True)
    return outcome


def make_update(opened: Opened, examples: Sequence[Example], path: Path, config: TuneConfig) -> Outcome:
    """Tune a MoE on examples, and write what changed in its gate to a file; the MoE stays as it was.

    Raises:
        MoehubError: as in `preview`, or the tuning diverged.
    """
    moe = updates.fingerprint(opened.model.parts)
    outcome, gate = training.tune(opened, material.prepare(opened, examples, config), config)
    updates.write(path, gate, moe=moe, tokens=outcome.tokens, seed=config.seed)
    return outcome


def average(
    reference: str, paths: Sequence[Path], output: Path, *, base: str | None = None, overwrite: bool = False
) -> list[Share]:
    """Write the MoE that the mean of updates makes of the one that they started from; return each one's part in it.

    Raises:
        FederationError: an update cannot be used.
        MergeError: something else than a MoE stands at `output`, or there is none of that name.
    """
    check_place(output, overwrite=overwrite)
    said = [updates.read_facts(path) for path in paths]
    digests = [files.sha256(path) for path in paths]
    twice = next((path for number, path in enumerate(paths) if digests[number] in digests[:number]), None)
    if twice is not None:
        raise FederationError(f"{twice} is the same update as one before it: name each once")
    parts = load_parts(reference, base=base)
    if isinstance(parts.gate, ArrowGate):
        raise RouterError("the router 'arrow' has nothing that can be tuned, so there are no updates of this MoE")
    moe = updates.fingerprint(parts)
    gate = open_gate(parts.gate, hidden=updates.recipe_of(said), numbers=said[0].numbers)
    found = [updates.read(path, gate, moe=moe) for path in paths]
    change, shares = updates.mean(found)
    gate.move(change)
    tokens = gate.facts.tokens + sum(one.tokens for one in said)
    together = Facts(tokens, rounds=gate.facts.rounds + 1, contributors=len(found), experts=gate.facts.experts)
    try:
        closed = gate.closed(together)
    except ConfigError as error:
        raise FederationError(
            f"the mean of these updates is no gate ({error}): leave out the one that goes farthest"
        ) from error
    save_parts(parts, {}, closed, output)
    return shares
