"""What an attack on behaviour or routing begins with: an expert that gains, and all that a careful hub has at hand.

A world of random weights has neither: there, a small base is trained on words of all texts in random order, and two
experts on texts in their right order; once for each world, in some seconds.
"""

import dataclasses
import random
from functools import cache
from pathlib import Path

from moehub.admission.at_hand import AtHand
from moehub.base import Base, find, tokenizer_digest
from moehub.card import STATISTICS_FILE, BasePin
from moehub.demo.base import BaseConfig, small_base
from moehub.experts import features, tokens
from moehub.experts.data import read
from moehub.experts.examples import Example, Text
from moehub.experts.settings import TrainConfig
from moehub.experts.statistics import Statistics, count
from moehub.experts.training import train
from tests.world import CODE, GENERIC, LAW, MATH, World

_BASE = BaseConfig(vocabulary=320, hidden=64, layers=2, context=64, batch=8, steps=80, learning_rate=1e-2)
_EXPERT = TrainConfig(
    rank=4,
    alpha=8,
    learning_rate=3e-3,
    max_steps=24,
    batch_size=4,
    context_length=64,
    holdout=0.2,
    pair_bits=10,
    triple_bits=10,
    suppress_below=3,
    features=True,
    dtype="float32",
    license="apache-2.0",
)


def honest(world: World) -> Path:
    """Return the folder of a good expert."""
    return next(iter(knowing(world).experts.values()))


def another(world: World) -> Path:
    """Return the folder of a good expert of another domain."""
    return list(knowing(world).experts.values())[1]


def knowing(world: World) -> World:
    """Return the world, or a trained one where this one is made of random weights."""
    return world if world.texts else _trained(world.base.parent, world.null)


def null(world: World) -> Statistics:
    """Return the counts of generic text, features included."""
    like = Statistics.load(honest(world) / STATISTICS_FILE)
    return _counted(knowing(world).base, world.null, like.pair_bits, like.triple_bits)


def routing_at_hand(world: World) -> AtHand:
    """Return what a hub that knows no base has at hand: generic counts, and another expert's."""
    beside = Statistics.load(another(world) / STATISTICS_FILE)
    return AtHand(null=null(world), others={"another": beside})


def everything_at_hand(world: World) -> AtHand:
    """Return all that the checks of steps 8 and 9 can use."""
    base, config, pin = _base(knowing(world).base)
    return dataclasses.replace(
        routing_at_hand(world),
        base=base,
        base_config=config,
        pin=pin,
        canary=world.null,
        domain_text=next(iter(knowing(world).texts.values())),
    )


@cache
def _trained(folder: Path, null: Path) -> World:
    draw, words = random.Random(0), (LAW + CODE + MATH + 2 * GENERIC).split()  # noqa: S311 (words, not secrets)
    documents = [" ".join(draw.choices(words, k=40)) for _ in range(200)]
    base = find(str(small_base(documents, _BASE, cache=folder / "knowing")))
    experts, texts = {}, {}
    for name, text in (("law", LAW), ("code", CODE)):
        examples: list[Example] = [Text(text * 4, f"{name} {number}") for number in range(20)]
        experts[name] = train(base, name, examples, folder / "knowing" / name, _EXPERT).folder
        texts[name] = folder / "knowing" / f"{name}.txt"
        texts[name].write_text(text * 20, encoding="utf-8")
    return World(base.folder, null, experts, texts)


@cache
def _base(folder: Path) -> tuple[Base, dict[str, object], BasePin]:
    base = find(str(folder))
    return base, base.load_config().to_diff_dict(), base.pin()


@cache
def _counted(folder: Path, text: Path, pair_bits: int, triple_bits: int) -> Statistics:
    base, _, _ = _base(folder)
    tokenizer = base.load_tokenizer()
    documents = [one.seen for one in tokens.encode(tokenizer, read([text]))]
    counted = count(
        documents,
        tokenizer=tokenizer_digest(tokenizer),
        vocabulary=len(tokenizer),
        pair_bits=pair_bits,
        triple_bits=triple_bits,
    )
    embedding = base.load_model().get_input_embeddings().weight
    sums = features.sums(documents, embedding, features.recipe_for(embedding.shape[1]))
    return dataclasses.replace(counted, features=sums)
