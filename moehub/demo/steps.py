"""The steps of the road, one function each."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from moehub import base as bases
from moehub.base import Base
from moehub.console import console
from moehub.demo import base as small
from moehub.demo.config import DemoConfig
from moehub.demo.corpora import Corpora, Corpus
from moehub.demo.place import Place
from moehub.experts import training
from moehub.experts.examples import Text
from moehub.hub import Hub
from moehub.merge import merging

_ORGANISATION = "demo"


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
    documents = [*text.generic.train]
    for corpus in text.contributors:
        documents += first(corpus.train, config.base_share)
    settings = dataclasses.replace(config.base, seed=config.seed)
    small.copy_base(small.small_base(documents, settings), place.base)
    return bases.find(str(place.base))


def train(base: Base, corpus: Corpus, output: Path, config: DemoConfig, *, given: bool) -> None:
    """Train one contributor's expert; `given` says that the base is not the small one."""
    settings = dataclasses.replace(
        config.expert,
        seed=config.seed,
        dtype="bfloat16" if small.bf16_is_quick() else config.expert.dtype,
        learning_rate=config.given_base_rate if given else config.expert.learning_rate,
    )
    training.train(base, corpus.name, [Text(document, corpus.name) for document in corpus.train], output, settings)


def push(hub: Hub, trained: Path, names: Sequence[str]) -> None:
    """Publish the experts that stand in the folder `trained`."""
    for name in names:
        hub.push(trained / name, f"{_ORGANISATION}/{name}", message=f"The {name} expert of the demo")


def pull(hub: Hub, place: Place, names: Sequence[str]) -> None:
    """Fetch the experts to the place."""
    for name in names:
        hub.pull(f"{_ORGANISATION}/{name}", None, place.expert(name))


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
