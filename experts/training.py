"""Training one expert through one stage: examples → batches → adapter → expert folder.

Kill it at any moment: nothing looks like an expert before it is one, and `resume` goes on from the last
checkpoint. Under `accelerate launch` every process trains and the first one writes.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moehub import base as bases
from moehub.card import ADAPTER_WEIGHTS, EXPERT, LOW_RANK, REWARD, Card, Measured, Metrics, check_name
from moehub.card import Stage as StageCard
from moehub.console import console
from moehub.experts import adaptation, checkpoints, lineage
from moehub.experts.checkpoints import Checkpoint
from moehub.experts.counting import count
from moehub.experts.curves import Curves
from moehub.experts.examples import Practice, digest
from moehub.experts.folder import Expert, open_expert
from moehub.experts.publication import check_place, publish, versions
from moehub.experts.rewards import Opener
from moehub.experts.settings import TrainConfig
from moehub.experts.stages import kinds
from moehub.experts.stages.stage import Measurement, Stage
from moehub.experts.statistics import Statistics
from moehub.experts.watch import OnStep

__all__ = ["TrainConfig", "train"]


def train(
    base: bases.Base,
    domain: str,
    examples: Sequence[Practice],
    output: Path,
    config: TrainConfig | None = None,
    *,
    stage: str = kinds.AUTO,
    name: str | None = None,
    start: Expert | None = None,
    opener: Opener | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_step: OnStep | None = None,
) -> Expert:
    """Train an expert of `base` for `domain` on `examples`, write it to the folder `output`, and return it.

    Args:
        base: the base.
        domain: what the text is about.
        examples: what the stage's `Kind.read` returns.
        output: the expert's folder.
        config: the stage's settings.
        stage: one of `moehub.experts.stages.kinds.KINDS`.
        name: the expert's; its domain where it is None.
        start: the expert whose adapter the training starts from; a new adapter where it is None.
        opener: opens the models that rewards ask (`moehub.experts.rewards.Opener`).
        resume: go on from the last checkpoint.
        overwrite: replace an expert that stands at `output`.
        on_step: called after each optimizer step.

    Raises:
        ConfigError: the settings do not fit the base or the start.
        DataError: there is nothing to learn, or an example does not fit.
        ExpertError: the name or the domain cannot be one, or the start cannot be trained on.
        TrainingError: something else stands at `output`, the training diverged, or it cannot be resumed.
    """
    config = config or kinds.find(stage).config()
    check_name("domain", domain)
    name = check_name("name", name or domain)
    version = check_place(output, overwrite=overwrite)
    if start is not None:
        config = lineage.continued(config, start, base)
    with adaptation.quiet():
        tokenizer = base.load_tokenizer()
        longest = bases.context_length(base.load_config())
        made = kinds.make(stage, tokenizer, examples, config, longest=longest, opener=opener)
        folder = checkpoints.working_folder(output)
        settings = made.arguments(folder)
        since = _begin(base, examples, made, settings, start, resume=resume)
        if settings.process_index == 0:
            _say_left_out(made)
        model = made.load(base)
        if not adaptation.is_quantized(model):
            model = model.to(settings.device)
        made.prepare(model)
        model = adaptation.adapt(model, config, None if start is None else start.folder, task=made.task)
        before = _before(made, model, start) if settings.process_index == 0 else None
        curves = Curves()
        done = made.run(model, settings, title=f"training {name}", since=since, on_step=on_step, curves=curves)
        if settings.process_index == 0:
            after = made.measure(model)
            text = _text_metrics(made, model, before, after, start)
            if after is None:
                console.print("nothing was held out, so the card has no metrics: give more text, or a larger holdout")
            trained = _stage_card(made, done, before, after, start, curves)
            card = Card(
                name=name,
                domain=domain,
                base=base.pin(),
                rank=config.rank if config.method in LOW_RANK else 0,
                alpha=config.alpha if config.method in LOW_RANK else 0.0,
                targets=adaptation.targets(model),
                license=config.license,
                stages=(*lineage.stages(start), trained),
                metrics=text,
                files={},
                version=version,
                packages=versions(),
                method=config.method,
                purpose=REWARD if made.kind == REWARD else EXPERT,
            )
            counted = _count(made, card, len(tokenizer), model, start)
            card = dataclasses.replace(card, private=None if counted is None else counted.private)
            with checkpoints.kept_when_full(folder):
                publish(
                    output,
                    weights=adaptation.state(model),
                    config=config,
                    statistics=counted,
                    card=card,
                    adapter=adaptation.model_config(model, card.base),
                    curves=[*lineage.curves(start), {"kind": made.kind, "curves": curves.thinned()}],
                )
            checkpoints.remove(folder)
        settings.distributed_state.wait_for_everyone()
    return open_expert(output)


def _say_left_out(made: Stage) -> None:
    if made.left_out:
        named = ", ".join(made.left_out[:3]) + (", …" if len(made.left_out) > 3 else "")
        console.print(
            f"{len(made.left_out)} example(s) longer than {made.context_length} tokens were skipped or cut: {named}",
            markup=False,
            soft_wrap=True,
        )


def _count(made: Stage, card: Card, vocabulary: int, model: Any, start: Expert | None) -> Statistics | None:
    """Return the router statistics of the text of this stage and of those before it; a reward model has none."""
    if card.purpose == REWARD:
        return None
    embedding = model.get_input_embeddings().weight
    counted = count(made.documents, made.config, card.base.tokenizer, vocabulary, embedding)
    if start is not None:
        counted = lineage.added(counted, start)
    if counted.private is not None and not int(counted.unigrams.sum()):
        console.print(
            f"the noise hides all of this text ({counted.private}), so no gate can be made of its counts: "
            "train on more examples, or with a larger --private",
            markup=False,
            soft_wrap=True,
        )
    return counted


def _begin(
    base: bases.Base, examples: Sequence[Practice], made: Stage, settings: Any, start: Expert | None, *, resume: bool
) -> Checkpoint | None:
    """Return the checkpoint to go on from; where there is none, make the working folder new."""
    folder = Path(settings.output_dir)
    run = checkpoints.fingerprint(
        base=bases.weights_digest(base.folder),
        examples=map(digest, examples),
        config=made.config,
        processes=settings.world_size,
    )
    run |= {"stage": made.kind, "start": None if start is None else start.card.files[ADAPTER_WEIGHTS]}
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


def _before(made: Stage, model: Any, start: Expert | None) -> Measurement | None:
    """Return what the model is worth before the training: the start's adapter, or the base alone."""
    if start is not None or made.kind == REWARD:
        return made.measure(model)
    with model.disable_adapter():
        return made.measure(model)


def _text_metrics(
    made: Stage, model: Any, before: Measurement | None, after: Measurement | None, start: Expert | None
) -> Metrics | None:
    """Return the losses of base and expert on text that was held out from this stage, where it has text."""
    if made.kind == REWARD:
        return None
    if before is not None and after is not None and after.metric == "loss" and start is None:
        return Metrics(base_loss=before.value, expert_loss=after.value, tokens=after.count)
    mine = made.text_loss(model)
    if mine is None:
        return None
    with model.disable_adapter():
        base = made.text_loss(model)
    return None if base is None else Metrics(base_loss=base[0], expert_loss=mine[0], tokens=mine[1])


def _stage_card(
    made: Stage,
    done: Checkpoint,
    before: Measurement | None,
    after: Measurement | None,
    start: Expert | None,
    curves: Curves,
) -> StageCard:
    measured = None
    if before is not None and after is not None:
        measured = Measured(
            after.metric, before.value, after.value, after.count, curves.latest("kl") if made.kind == "rl" else None
        )
    return StageCard(
        made.kind,
        tokens=done.tokens,
        steps=done.step,
        examples=made.examples,
        seconds=done.seconds,
        start=None if start is None else start.card.files[ADAPTER_WEIGHTS],
        measured=measured,
        quantized=None if made.config.quantize == "none" else made.config.quantize,
    )
