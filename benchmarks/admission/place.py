"""Where the benchmark's files lie, and what the gate has at hand there."""

import dataclasses
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.admission.texts import Texts
from moehub import files
from moehub.admission.at_hand import AtHand
from moehub.base import Base, find, tokenizer_digest
from moehub.card import STATISTICS_FILE, read_card
from moehub.demo.base import copy_base
from moehub.experts import features, tokens
from moehub.experts.data import read
from moehub.experts.records import SEPARATOR
from moehub.experts.statistics import Statistics, count
from tests.world import World

_PAIR_BITS, _TRIPLE_BITS = 16, 18


@dataclass(frozen=True)
class Place:
    """A folder with everything in it, which other processes can open."""

    folder: Path

    @property
    def base(self) -> Base:
        """The base."""
        return find(str(self.folder / "base"))

    @property
    def generic(self) -> Path:
        """Prose for the null expert."""
        return self.folder / "generic.txt"

    @property
    def canary(self) -> Path:
        """Prose that nobody was trained on."""
        return self.folder / "canary.txt"

    def training(self, domain: str) -> Path:
        """Return the text that a domain's experts learn from."""
        return self.folder / "training" / f"{domain}.txt"

    def held_out(self, domain: str) -> Path:
        """Return text of a domain that no expert has seen."""
        return self.folder / "held-out" / f"{domain}.txt"

    def expert(self, name: str) -> Path:
        """Return the folder of an expert."""
        return self.folder / "experts" / name

    def at_hand(self, domain: str, beside: tuple[str, ...]) -> AtHand:
        """Return what a careful hub has at hand to check an expert of a domain, beside others that it has."""
        found = _at_hand(self.folder)
        others = {name: _statistics(self.expert(name) / STATISTICS_FILE) for name in beside}
        return dataclasses.replace(found, domain_text=self.held_out(domain), others=others)

    def world(self, names: tuple[str, ...]) -> World:
        """Return the experts under the names that attacks know them by; the first is the one that they change."""
        experts = {name: self.expert(one) for name, one in zip(("law", "code", "math"), names, strict=True)}
        texts = {name: self.held_out(read_card(folder).domain) for name, folder in experts.items()}
        return World(self.folder / "base", self.generic, experts, texts)


def fill(folder: Path, texts: Texts) -> Place:
    """Write base and texts into a folder, where they are not there yet, and return the place."""
    place = Place(folder)
    if not (folder / "base").is_dir():
        copy_base(texts.base.folder, folder / "base")
    kinds = {place.generic: texts.generic, place.canary: texts.canary}
    kinds |= {place.training(name): documents for name, documents in texts.domains.items()}
    kinds |= {place.held_out(name): documents for name, documents in texts.held_out.items()}
    for path, documents in kinds.items():
        files.write_text(path, f"\n{SEPARATOR}\n".join(documents))
    null = folder / "null" / STATISTICS_FILE
    if not null.is_file():
        null.parent.mkdir(exist_ok=True)
        _count(place).save(null)
    return place


@cache
def _at_hand(folder: Path) -> AtHand:
    place = Place(folder)
    return AtHand(
        pin=place.base.pin(),
        base_config=place.base.load_config().to_diff_dict(),
        base=place.base,
        canary=place.canary,
        null=Statistics.load(folder / "null" / STATISTICS_FILE),
    )


@cache
def _statistics(path: Path) -> Statistics:
    return Statistics.load(path)


def _count(place: Place) -> Statistics:
    tokenizer = place.base.load_tokenizer()
    documents = [one.seen for one in tokens.encode(tokenizer, read([place.generic]))]
    counted = count(
        documents,
        tokenizer=tokenizer_digest(tokenizer),
        vocabulary=len(tokenizer),
        pair_bits=_PAIR_BITS,
        triple_bits=_TRIPLE_BITS,
    )
    embedding = place.base.load_model().get_input_embeddings().weight
    sums = features.sums(documents, embedding, features.recipe_for(embedding.shape[1]))
    return dataclasses.replace(counted, features=sums)
