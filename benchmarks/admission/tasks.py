"""The work, one expert a task, for processes of one thread each."""

import atexit
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file

from benchmarks.admission.good import Recipe, make
from benchmarks.admission.place import Place
from moehub.admission import canary, feature_evidence, plausibility, routing
from moehub.admission.at_hand import AtHand
from moehub.admission.gate import examine
from moehub.admission.policy import Policy
from moehub.admission.probe import opened
from moehub.admission.subject import Subject
from moehub.admission.verdict import Verdict
from moehub.card import ADAPTER_WEIGHTS, CARD_FILE, read_card
from moehub.console import console, progress
from moehub.experts.data import read
from moehub.experts.folder import open_expert, seal
from tests import attacks
from tests.attacks import Attack
from tests.world import World, make_world

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Trained:
    """An expert that was trained."""

    name: str
    domain: str
    gain: float
    """On what its publisher held out, as a share of the base's loss."""
    features: bool


@dataclass(frozen=True)
class Seen:
    """What the gate said about a good expert."""

    name: str
    verdict: Verdict
    values: dict[str, float]
    """Threshold of the policy → what was measured of the expert."""


@dataclass(frozen=True)
class Tried:
    """What the gate said about an attack."""

    attack: str
    code: str
    """Of the check that is meant for it."""
    refusals: tuple[str, ...]
    """The codes that it was refused with."""


def each(work: Callable[[T], R], items: Iterable[T], title: str, processes: int) -> Iterator[R]:
    """Yield what `work` returns for each item, in order, from processes that all have one thread."""
    items = list(items)
    context = get_context("spawn")
    with (
        ProcessPoolExecutor(processes, mp_context=context, initializer=_alone) as pool,
        progress(title, len(items)) as advance,
    ):
        for result in pool.map(work, items):
            advance()
            yield result


def train_one(item: tuple[Place, Recipe]) -> Trained:
    """Train an expert, if it is not there yet."""
    place, recipe = item
    folder = place.expert(recipe.name)
    if not (folder / CARD_FILE).is_file():
        texts = {recipe.domain: [getattr(one, "text", "") for one in read([place.training(recipe.domain)])]}
        make(recipe, place.base, texts, folder)
    expert = open_expert(folder)
    card = expert.card
    gain = 0.0 if card.metrics is None else 1 - card.metrics.expert_loss / card.metrics.base_loss
    return Trained(card.name, card.domain, gain, expert.statistics().features is not None)


def look(item: tuple[Place, str, str, tuple[str, ...]]) -> Seen:
    """Let the gate see a good expert, and measure what it compares with its thresholds."""
    place, name, domain, beside = item
    at_hand = place.at_hand(domain, beside)
    verdict = examine(place.expert(name), at_hand, name=name)
    return Seen(name, verdict, _values(place.expert(name), at_hand))


def look_rescaled(item: tuple[Place, str, str, tuple[str, ...]]) -> Seen:
    """Let the gate see a good expert in 16 bits, with A a thousand times as large and B a thousand times less."""
    place, name, domain, beside = item
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(place.expert(name), Path(scratch) / name))
        tensors = {
            key: (tensor * (1e3 if "lora_A" in key else 1e-3)).to(torch.bfloat16)
            for key, tensor in load_file(folder / ADAPTER_WEIGHTS).items()
        }
        save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        seal(folder, read_card(folder))
        return Seen(name, examine(folder, place.at_hand(domain, beside), name=name), {})


def attack(item: tuple[Place, int, tuple[str, ...], tuple[str, ...]]) -> Tried:
    """Let the gate see an attack that begins with the first of three good experts, and has all at hand."""
    place, number, names, beside = item
    chosen, world = attacks.registered()[number], place.world(names)
    at_hand = place.at_hand(read_card(world.experts["law"]).domain, beside)
    return _tried(chosen, world, at_hand)


def attack_form(number: int) -> Tried:
    """Let the gate see an attack that has nothing to do with what an expert learned: one of random weights will do."""
    chosen, world = attacks.registered()[number], _random()
    return _tried(chosen, world, chosen.offered(world))


def _tried(chosen: Attack, world: World, at_hand: AtHand) -> Tried:
    with tempfile.TemporaryDirectory() as scratch:
        verdict = examine(chosen.make(Path(scratch) / "expert", world), at_hand)
    return Tried(chosen.name, chosen.code, tuple(sorted({refusal.code for refusal in verdict.refusals})))


@cache
def _random() -> World:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make_world(folder)


def _values(folder: Path, at_hand: AtHand) -> dict[str, float]:
    subject, policy = Subject(folder), Policy()
    statistics, metrics = subject.statistics, subject.card.metrics
    if statistics is None or metrics is None or at_hand.canary is None or at_hand.base is None:
        raise ValueError(f"{folder} is no expert of this benchmark")
    shares = routing.neutral_shares(subject, at_hand, policy).values()
    gain = -canary.measured(subject, at_hand, canary.domain_text(at_hand), policy).rise
    values = {
        "most_canary_rise": canary.measured(subject, at_hand, at_hand.canary, policy).rise,
        "least_domain_gain": gain,
        "most_claim_excess": 1 - metrics.expert_loss / metrics.base_loss - 2 * max(gain, 0),
        "most_tokens_per_trained": int(statistics.unigrams.sum()) / sum(one.tokens for one in subject.card.stages),
        "most_evenness": plausibility.evenness(statistics.unigrams),
        "most_neutral_weight": max(share.weight for share in shares),
        "most_neutral_chosen": max(share.chosen for share in shares),
        "most_behind": routing.behind(subject, at_hand, policy)[1],
    }
    if statistics.features is not None and at_hand.null is not None and at_hand.null.features is not None:
        embedding = opened(at_hand.base).model.get_input_embeddings().weight
        values["most_feature_shift"] = feature_evidence.shift(statistics.unigrams, statistics.features, embedding)
        mine, usual = (feature_evidence.spread(one) for one in (statistics.features, at_hand.null.features))
        values["most_feature_spread"] = math.exp(abs(math.log(mine / usual)))
    return values


def _alone() -> None:
    torch.set_num_threads(1)
    console.quiet = True
