"""A chain of stages, each a training that starts from the adapter of the one before, from one YAML file.

    rank: 16                    settings above `stages` are every stage's
    stages:
      - {stage: pretrain, data: law.txt}
      - {stage: sft, data: [a.jsonl, b.jsonl], learning_rate: 1e-4}
      - {stage: reward, data: preferences.jsonl}
      - {stage: rl, data: questions.jsonl, rewards: {reward-model: 1}}

While it runs, the experts of the stages lie in `OUTPUT.stages`, beside the expert that the last of them becomes. A
reward model is a branch: it starts from the expert before it, and the next stage starts from there too; the reward
`reward-model` asks it if nothing else is said, and at the end it is kept as `OUTPUT.reward`.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moehub import base as bases
from moehub import config as strict
from moehub import files
from moehub.card import REWARD
from moehub.console import console
from moehub.errors import ConfigError, ExpertError, TrainingError, listed
from moehub.experts import checkpoints, loop
from moehub.experts.examples import Practice, digest
from moehub.experts.folder import Expert, open_expert
from moehub.experts.publication import check_place
from moehub.experts.rewards import Opener
from moehub.experts.settings import TrainConfig
from moehub.experts.stages import kinds
from moehub.experts.stages.settings import ReinforceConfig
from moehub.experts.training import train
from moehub.experts.watch import OnStep

STAGES = "stages"
_OWN = ("stage", "data")
_REWARD_MODEL = "reward-model"
_CHAIN = "chain.json"


@dataclass(frozen=True)
class Link:
    """One stage of a chain."""

    stage: str
    data: tuple[Path, ...]
    config: TrainConfig


def read(values: Mapping[str, Any], *, folder: Path, source: str) -> tuple[Link, ...]:
    """Return the stages of a YAML file's mapping; paths in it are relative to `folder`.

    Raises:
        ConfigError: it is no chain; what is wrong with each stage is listed.
    """
    stages = values.get(STAGES)
    shared = {name: value for name, value in values.items() if name != STAGES}
    if not isinstance(stages, list) or not stages:
        raise ConfigError(f"{source}: stages holds {str(stages)[:40]!r}, expected a list of stages")
    links: list[Link] = []
    faults: list[str] = []
    for number, stage in enumerate(stages, 1):
        try:
            links.append(_link(stage, shared, folder, f"{source}: stage {number}"))
        except ConfigError as error:
            faults.append(str(error))
    if not faults and links[-1].stage == REWARD:
        faults.append("the last stage is a reward model, which is no expert: put the stage behind it that is to use it")
    if faults:
        raise ConfigError(listed(f"{source} is no chain of stages:", faults))
    return tuple(links)


def _link(stage: Any, shared: Mapping[str, Any], folder: Path, source: str) -> Link:
    if not isinstance(stage, Mapping) or not all(name in stage for name in _OWN):
        raise ConfigError(f"{source} is {str(stage)[:60]!r}, expected a mapping with stage and data")
    kind = kinds.find(str(stage["stage"]))
    sources = stage["data"] if isinstance(stage["data"], list) else [stage["data"]]
    if not sources or not all(isinstance(one, str) for one in sources):
        raise ConfigError(f"{source}: data is {str(stage['data'])[:60]!r}, expected a file or a list of files")
    known = {field.name for field in dataclasses.fields(kind.config)}
    own = {name: value for name, value in stage.items() if name not in _OWN}
    # What is said for all stages may be a setting of some of them alone.
    every = {name: value for name, value in shared.items() if name in known or name not in _settings()}
    data = tuple(folder / Path(one).expanduser() for one in sources)
    return Link(kind.name, data, strict.from_mapping(kind.config, {**every, **own}, source=source))


def _settings() -> set[str]:
    """Return the names of the settings that some stage has."""
    return {field.name for kind in kinds.KINDS.values() for field in dataclasses.fields(kind.config)}


def train_all(
    base: bases.Base,
    domain: str,
    links: Sequence[Link],
    output: Path,
    *,
    name: str | None = None,
    start: Expert | None = None,
    opener: Opener | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_step: OnStep | None = None,
) -> Expert:
    """Train an expert through all stages, write it to the folder `output`, and return it.

    Args:
        base: the base.
        domain: what the text is about.
        links: the stages, in order.
        output: the expert's folder.
        name: the expert's; its domain where it is None.
        start: the expert that the first stage starts from.
        opener: opens the models that rewards ask.
        resume: leave out the stages that were finished, and go on with the one that was interrupted.
        overwrite: replace what stands at `output`.
        on_step: called after each optimizer step.

    Raises:
        MoehubError: as `moehub.experts.training.train`.
        TrainingError: another chain was begun there.
    """
    check_place(output, overwrite=overwrite)
    kept = checkpoints.beside(output, "reward")
    if any(link.stage == REWARD for link in links):
        check_place(kept, overwrite=overwrite)
    practices = [kinds.find(link.stage).read(link.data) for link in links]
    place = checkpoints.beside(output, "stages")
    _begin(place, base, links, practices, start, resume=resume)
    reward: Path | None = None
    for number, (link, practice) in enumerate(zip(links, practices, strict=True), 1):
        last = number == len(links)
        folder = output if last else place / f"{number}-{link.stage}"
        finished = None if last else _finished(folder)
        if loop.first_process():
            before = ", finished before" if finished else ""
            console.print(f"stage {number} of {len(links)}: {link.stage}{before}", markup=False)
        trained = finished or train(
            base,
            domain,
            practice,
            folder,
            _with_reward(link.config, reward),
            stage=link.stage,
            name=name,
            start=start,
            opener=opener,
            resume=resume,
            overwrite=overwrite,
            on_step=on_step,
        )
        resume = resume and finished is not None
        if link.stage == REWARD:
            reward = folder
        else:
            start = trained
    if loop.first_process():
        if reward is not None:
            shutil.rmtree(kept, ignore_errors=True)
            reward.replace(kept)
        shutil.rmtree(place, ignore_errors=True)
    return open_expert(output)


def _finished(folder: Path) -> Expert | None:
    """Return what an earlier run of this chain made of a stage; `_begin` removed that of other chains."""
    try:
        return open_expert(folder)
    except (ExpertError, OSError):
        return None


def _with_reward(config: TrainConfig, folder: Path | None) -> TrainConfig:
    """Return the settings, whose reward model is the chain's where they name none."""
    if not isinstance(config, ReinforceConfig) or _REWARD_MODEL not in config.rewards or folder is None:
        return config
    asked = config.rewards[_REWARD_MODEL]
    own = dict(asked) if isinstance(asked, Mapping) else {"weight": asked}
    return dataclasses.replace(config, rewards={**config.rewards, _REWARD_MODEL: {"model": str(folder), **own}})


def _begin(
    place: Path,
    base: bases.Base,
    links: Sequence[Link],
    practices: Sequence[Sequence[Practice]],
    start: Expert | None,
    *,
    resume: bool,
) -> None:
    """Make the folder of the stages new, or see that it is this chain's.

    Raises:
        TrainingError: it is another chain's; everything that differs is listed.
    """
    chain = {
        f"{number}-{link.stage}": {
            **checkpoints.fingerprint(
                base=bases.weights_digest(base.folder),
                examples=map(digest, practice),
                config=link.config,
                processes=1,
            ),
            "start": None if start is None else start.card.files,
        }
        for number, (link, practice) in enumerate(zip(links, practices, strict=True), 1)
    }
    chain = json.loads(files.to_json(chain))
    together = loop.launched()
    if resume and (place / _CHAIN).is_file():
        before = json.loads((place / _CHAIN).read_text(encoding="utf-8"))
        differing = [name for name in sorted({*before, *chain}) if before.get(name) != chain.get(name)]
        if differing:
            raise TrainingError(
                listed(
                    f"the chain in {place} cannot be gone on with, because these stages are others (give what you gave "
                    "before, or leave out --resume to start anew):",
                    differing,
                )
            )
        return
    # Under a launcher, every process has looked before one begins anew.
    together.wait_for_everyone()
    if together.is_main_process:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        files.write_text(place / _CHAIN, files.to_json(chain))
    together.wait_for_everyone()
