"""The steps of the road, one function each."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from moehub import base as bases
from moehub import files
from moehub.base import Base
from moehub.console import console
from moehub.demo import base as small
from moehub.demo.config import DemoConfig
from moehub.demo.corpora import Corpora, Corpus
from moehub.demo.hub import ORGANISATION
from moehub.demo.place import Place
from moehub.errors import FederationError
from moehub.experts import training
from moehub.experts.examples import Text, split
from moehub.experts.settings import TrainConfig
from moehub.federation.push import EXPERTS
from moehub.federation.settings import FederationConfig, Gathering, NodeConfig
from moehub.hub import Hub
from moehub.merge import merging


class Clock:
    """Says which step begins, and remembers how long each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str, headline: str) -> Iterator[None]:
        """Show `headline` and count what follows as the step `name`."""
        console.print(f"[bold]{headline}[/bold]")
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 3)


def provide_base(place: Place, text: Corpora, config: DemoConfig, given: str | None) -> Base:
    """Return the base that was given, or else the small one; a full copy of it stands at the place."""
    if given is not None:
        found = bases.find(given)
        found.load_config()
        small.copy_base(found.folder, place.base)
        return found
    small.copy_base(small_base(text, config), place.base)
    return bases.find(str(place.base))


def small_base(text: Corpora, config: DemoConfig) -> Path:
    """Return the folder of the small base, trained on prose and a little of each contributor's text.

    What the experts hold out to be measured on is none of it: who has seen it cannot be compared there.
    """
    documents = [*text.generic.train]
    for corpus in text.contributors:
        learned, _ = split([Text(document) for document in corpus.train], config.expert.holdout)
        documents += first([one.text for one in learned if isinstance(one, Text)], config.base_share)
    return small.small_base(documents, dataclasses.replace(config.base, seed=config.seed))


def train(base: Base, corpus: Corpus, output: Path, config: DemoConfig, *, given: bool) -> None:
    """Train one contributor's expert; `given` says that the base is not the small one."""
    rate = config.given_base_rate if given else config.expert.learning_rate
    examples = [Text(document, corpus.name) for document in corpus.train]
    training.train(base, corpus.name, examples, output, _expert(config, rate))


def federate(
    base: Base, contributors: Sequence[Corpus], output: Path, texts: Path, config: DemoConfig, *, given: bool
) -> Path:
    """Let several nodes of each domain train its expert together, and return the folder of the experts.

    Each node's text is written to the folder `texts`.

    Raises:
        FederationError: a domain ended without an expert.
    """
    from moehub.federation.deploy import launch

    share, expert = config.share, config.expert
    nodes = [node for corpus in contributors for node in _nodes(corpus, texts, share.nodes)]
    settings = FederationConfig(
        base=base.location,
        rounds=share.rounds,
        steps=max(1, (expert.max_steps or 1) // (share.nodes * share.rounds)),
        aggregation=share.aggregation,
        train=dataclasses.replace(
            _expert(config, config.given_base_rate if given else share.learning_rate), max_steps=None
        ),
    )
    outcome = launch.up(Gathering(settings, tuple(nodes)), output)
    if outcome.failure or outcome.gave_up:
        raise FederationError(outcome.failure or outcome.gave_up[0].reason)
    return output / EXPERTS


def _nodes(corpus: Corpus, texts: Path, count: int) -> list[NodeConfig]:
    """Deal the documents to `count` nodes in turn."""
    nodes = []
    for number in range(count):
        name = f"{corpus.name}-{number + 1}"
        lines = [json.dumps({"text": document}) + "\n" for document in corpus.train[number::count]]
        files.write_text(texts / f"{name}.jsonl", "".join(lines))
        nodes.append(NodeConfig(corpus.name, (texts / f"{name}.jsonl",), name=name))
    return nodes


def _expert(config: DemoConfig, rate: float) -> TrainConfig:
    return dataclasses.replace(
        config.expert,
        seed=config.seed,
        dtype="bfloat16" if small.bf16_is_quick() else config.expert.dtype,
        learning_rate=rate,
    )


def push(hub: Hub, trained: Path, names: Sequence[str]) -> None:
    """Publish the experts that stand in the folder `trained`."""
    for name in names:
        hub.push(trained / name, f"{ORGANISATION}/{name}", message=f"The {name} expert of the demo")


def pull(hub: Hub, place: Place, names: Sequence[str]) -> None:
    """Fetch the experts to the place."""
    for name in names:
        hub.pull(f"{ORGANISATION}/{name}", None, place.expert(name))


def merge(base: Base, place: Place, names: Sequence[str], config: DemoConfig) -> None:
    """Merge the experts at the place, with the null expert, into the MoE."""
    recipe = merging.Recipe(
        base=base.location,
        experts=tuple(str(place.expert(name)) for name in names),
        null=str(place.generic),
        router=config.router,
    )
    with merging.prepare(recipe) as prepared:
        prepared.write(place.moe)


def add(place: Place, name: str) -> None:
    """Add an expert to the MoE."""
    with merging.prepare_change(place.moe, add=[str(place.expert(name))]) as change:
        change.write()


def remove(place: Place, name: str) -> None:
    """Take an expert out of the MoE."""
    with merging.prepare_change(place.moe, remove=[name]) as change:
        change.write()


def first(documents: Sequence[str], characters: int) -> list[str]:
    """Return the first documents of `characters` characters or a little more."""
    taken: list[str] = []
    for document in documents:
        if sum(map(len, taken)) >= characters:
            break
        taken.append(document)
    return taken
