"""Base, experts, statistics and the MoE of one seed: made once, kept in a folder, the same for every method.

Shapes: B batch, T tokens, E experts, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.quality import keeping
from benchmarks.quality import texts as gathered
from benchmarks.quality.rows import Held, held
from benchmarks.quality.setup import Setup
from benchmarks.quality.texts import Domain, Texts
from moehub import base as bases
from moehub.base import Base, tokenizer_digest
from moehub.demo.base import small_base
from moehub.experts import statistics
from moehub.experts.examples import Example, Text
from moehub.experts.faces import count_generic
from moehub.experts.statistics import Statistics
from moehub.experts.tokens import encode, fit
from moehub.experts.training import train
from moehub.merge import merging
from moehub.merge.model import MoehubForCausalLM
from moehub.router.layer import Routing

PAIR_BITS = TRIPLE_BITS = 18


@dataclass(frozen=True)
class World:
    """Everything that methods have in common, for one seed."""

    folder: Path
    texts: Texts
    setup: Setup
    base: Base
    seed: int

    @property
    def names(self) -> list[str]:
        """The experts in the MoE's order: that of their names."""
        return sorted(domain.name for domain in self.texts.domains)

    def domain(self, name: str) -> Domain:
        """Return a domain."""
        return self.texts.domain(name)

    def expert(self, name: str) -> Path:
        """Return the folder of one expert."""
        return self.folder / f"seed-{self.seed}" / "experts" / name

    def examples(self, name: str) -> list[Example]:
        """Return the text that this seed's contributor of a domain trains on."""
        return gathered.drawn(self.domain(name).train, self.setup.expert_characters, self.seed)

    @cached_property
    def tokenizer(self) -> Any:
        """The base's tokenizer."""
        return self.base.load_tokenizer()

    @cached_property
    def tune(self) -> dict[str, Held]:
        """What settings are chosen on."""
        return self._held("tune")

    @cached_property
    def test(self) -> dict[str, Held]:
        """What is reported."""
        return self._held("test")

    def _held(self, split: Any) -> dict[str, Held]:
        domains = tuple(self.domain(name) for name in self.names)
        return held(replace(self.texts, domains=domains), self.tokenizer, self.setup, split)

    def documents(self, name: str) -> list[Tensor]:
        """Return the tokens of what a contributor trains on, int64 [T] each, prompts included, too long ones cut."""
        longest = self.setup.expert.context_length or self.setup.base.context
        encoded = encode(self.tokenizer, self.examples(name))
        fitting, _ = fit(encoded, longest, too_long=self.setup.expert.too_long, longest=longest)
        return [one.seen for one in fitting]

    @cached_property
    def generic_documents(self) -> list[Tensor]:
        """The tokens of the generic text: a sample of what the base was trained on, as one has of the web."""
        sample = takewhile(lambda one: one[0] <= self.setup.null_characters, _lengths(self.texts.base))
        return [one.seen for one in encode(self.tokenizer, [Text(text) for _, text in sample])]

    @cached_property
    def moe(self) -> MoehubForCausalLM:
        """The MoE of the default router, experts read from their files: shared by all methods."""
        return MoehubForCausalLM.from_pretrained(self.merged())

    @cached_property
    def stacked(self) -> MoehubForCausalLM:
        """The same with its experts stacked and frozen: gradients of a gate's weights flow through it quickly."""
        stacked = MoehubForCausalLM.from_pretrained(self.merged(), trainable=True, backend="dense")
        return stacked.requires_grad_(False)

    def merged(self) -> Path:
        """Return the folder of the MoE that `moehub merge` makes of the experts."""
        folder = self.folder / f"seed-{self.seed}" / "moe"
        if not folder.is_dir():
            recipe = merging.Recipe(
                base=str(self.base.folder),
                experts=tuple(str(self.expert(name)) for name in self.names),
                null=str(self.null()),
            )
            with merging.prepare(recipe) as prepared:
                prepared.write(folder)
        return folder

    def null(self) -> Path:
        """Return a folder with the statistics of generic text."""
        folder = self.folder / "null"
        path = folder / "router_stats.safetensors"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            count_generic(self.generic_documents, **self._how).save(path)
        return folder

    def count(self, documents: Sequence[Tensor]) -> Statistics:
        """Return the statistics of documents, nothing suppressed."""
        return statistics.count(documents, **self._how)

    @property
    def _how(self) -> dict[str, Any]:
        return {
            "tokenizer": tokenizer_digest(self.tokenizer),
            "vocabulary": len(self.tokenizer),
            "pair_bits": PAIR_BITS,
            "triple_bits": TRIPLE_BITS,
        }

    def forward(self, ids: Tensor, routing: Routing | None, **options: Any) -> Tensor:
        """Return the logits [B, T, V] of ids [B, T] with the experts that `routing` names; None: of the base."""
        self.moe.board.routing = routing
        logits: Tensor = self.moe.base(input_ids=ids, use_cache=False, **options).logits
        return logits


def _lengths(texts: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield each text with the characters up to its end."""
    return zip(accumulate(map(len, texts)), texts, strict=True)


def build(folder: Path, data: Path | None, setup: Setup, *, base: str | None = None) -> list[World]:
    """Return the world of each seed, training what is not in `folder` yet.

    Raises:
        DataError: text is missing.
    """
    file = folder / "texts.json"
    if not file.is_file():
        keeping.save(gathered.gather(data, setup.sizes), file)
    texts = keeping.load(file)
    found = bases.find(base or str(small_base(texts.base, setup.base, cache=folder / "base")))
    worlds = [World(folder, texts, setup, found, seed) for seed in setup.seeds]
    for world in worlds:
        _train(world)
    return worlds


def _train(world: World) -> None:
    config = replace(world.setup.expert, seed=world.seed, pair_bits=PAIR_BITS, triple_bits=TRIPLE_BITS)
    for name in world.names:
        if not (world.expert(name) / "expert.json").is_file():
            train(world.base, name, world.examples(name), world.expert(name), config)
