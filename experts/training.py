"""Training one expert: examples → packed rows → LoRA → expert folder.

Kill it at any moment: nothing looks like an expert before it is one, and `resume` goes on from the last
checkpoint. Under `accelerate launch` every process trains and the first one writes.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moehub import base as bases
from moehub.card import Card, Metrics, Stage, check_name
from moehub.console import console
from moehub.experts import adaptation, checkpoints, loop
from moehub.experts.checkpoints import Checkpoint
from moehub.experts.counting import count
from moehub.experts.evaluation import evaluate_loss
from moehub.experts.examples import Example, digest
from moehub.experts.folder import Expert, open_expert
from moehub.experts.loop import OnStep
from moehub.experts.material import Material, prepare
from moehub.experts.packing import Row, keeps_apart
from moehub.experts.publication import check_place, diverged, publish, versions
from moehub.experts.settings import TrainConfig
from moehub.experts.statistics import Statistics

__all__ = ["TrainConfig", "train"]


def train(
    base: bases.Base,
    domain: str,
    examples: Sequence[Example],
    output: Path,
    config: TrainConfig | None = None,
    *,
    name: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_step: OnStep | None = None,
) -> Expert:
    """Train an expert of `base` for `domain` on `examples`, write it to the folder `output`, and return it.

    Raises:
        ConfigError: the settings do not fit the base.
        DataError: there is nothing to learn, or an example does not fit.
        ExpertError: the name or the domain cannot be one.
        TrainingError: something else stands at `output`, the training diverged, or it cannot be resumed.
    """
    config = config or TrainConfig()
    check_name("domain", domain)
    name = check_name("name", name or domain)
    version = check_place(output, overwrite=overwrite)
    with adaptation.quiet():
        tokenizer = base.load_tokenizer()
        material = prepare(tokenizer, examples, config, longest=bases.context_length(base.load_config()))
        folder = checkpoints.working_folder(output)
        settings = loop.arguments(folder, config)
        since = _start(base, examples, config, settings, resume=resume)
        if settings.process_index == 0:
            _say_left_out(material)
        model = adaptation.load(base, config).to(settings.device)
        rows, held_out = material.rows(join=keeps_apart(model))
        model = adaptation.adapt(model, config)
        done = loop.run(model, rows, config, settings, title=f"training {name}", since=since, on_step=on_step)
        if settings.process_index == 0:
            card = Card(
                name=name,
                domain=domain,
                base=base.pin(),
                rank=config.rank,
                alpha=config.alpha,
                targets=adaptation.targets(model),
                license=config.license,
                stages=(_stage(material, done),),
                metrics=_measure(model, held_out),
                files={},
                version=version,
                packages=versions(),
            )
            counted = count(material, config, card.base.tokenizer, len(tokenizer), model.get_input_embeddings().weight)
            _say_nothing_left(counted)
            card = dataclasses.replace(card, private=counted.private)
            with checkpoints.kept_when_full(folder):
                publish(output, weights=adaptation.state(model), config=config, statistics=counted, card=card)
            checkpoints.remove(folder)
        settings.distributed_state.wait_for_everyone()
    return open_expert(output)


def _say_left_out(material: Material) -> None:
    if material.left_out:
        named = ", ".join(material.left_out[:3]) + (", …" if len(material.left_out) > 3 else "")
        console.print(
            f"{len(material.left_out)} example(s) longer than {material.context_length} tokens "
            f"were skipped or cut: {named}",
            markup=False,
            soft_wrap=True,
        )


def _say_nothing_left(counted: Statistics) -> None:
    if counted.private is not None and not int(counted.unigrams.sum()):
        console.print(
            f"the noise hides all of this text ({counted.private}), so no gate can be made of its counts: "
            "train on more examples, or with a larger --private",
            markup=False,
            soft_wrap=True,
        )


def _start(
    base: bases.Base, examples: Sequence[Example], config: TrainConfig, settings: Any, *, resume: bool
) -> Checkpoint | None:
    """Return the checkpoint to go on from; where there is none, make the working folder new."""
    folder = Path(settings.output_dir)
    run = checkpoints.fingerprint(
        base=bases.weights_digest(base.folder),
        examples=map(digest, examples),
        config=config,
        processes=settings.world_size,
    )
    since = checkpoints.last(folder, run) if resume else None
    settings.distributed_state.wait_for_everyone()
    if settings.process_index == 0:
        if resume and since is None:
            console.print(
                f"there is no checkpoint in {folder} to resume from: starting at the beginning",
                markup=False,
                soft_wrap=True,
            )
        elif folder.exists() and since is None:
            console.print(f"starting anew: removing the unfinished training in {folder}", markup=False, soft_wrap=True)
        if since is None:
            checkpoints.begin(folder, run)
    settings.distributed_state.wait_for_everyone()
    return since


def _measure(model: Any, held_out: Sequence[Row]) -> Metrics | None:
    expert_loss, tokens = evaluate_loss(model, held_out)
    if not tokens:
        console.print("nothing was held out, so the card has no metrics: give more text, or a larger holdout")
        return None
    if not math.isfinite(expert_loss):
        raise diverged(f"the held-out loss is {expert_loss}")
    with model.disable_adapter():
        base_loss, _ = evaluate_loss(model, held_out)
    return Metrics(base_loss=base_loss, expert_loss=expert_loss, tokens=tokens)


def _stage(material: Material, done: Checkpoint) -> Stage:
    return Stage(
        material.kind, tokens=done.tokens, steps=done.step, examples=len(material.documents), seconds=done.seconds
    )
