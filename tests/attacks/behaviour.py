"""Step 8: adapters that do harm or nothing, and cards that claim what is not so; each begins with a good expert."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moehub.admission.at_hand import AtHand
from moehub.card import ADAPTER_WEIGHTS, STATISTICS_FILE, Metrics, read_card
from moehub.experts.folder import seal
from tests.attacks import Attack
from tests.attacks.forging import Make
from tests.attacks.honest import another, everything_at_hand, honest
from tests.world import World

Pair = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Makes another A and B of those of one linear."""


def canary_at_hand(world: World) -> AtHand:
    """Return what is at hand where there is a base and public text, and nobody has text of the domain."""
    found = everything_at_hand(world)
    return AtHand(pin=found.pin, base_config=found.base_config, base=found.base, canary=found.canary)


def domain_at_hand(world: World) -> AtHand:
    """Return what is at hand where there is a base and text of the domain."""
    found = everything_at_hand(world)
    return AtHand(pin=found.pin, base_config=found.base_config, base=found.base, domain_text=found.domain_text)


def with_pairs(change: Pair) -> Make:
    """Return what makes an expert with other matrices than the honest one's."""

    def make(folder: Path, world: World) -> Path:
        shutil.copytree(honest(world), folder)
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        for name in [name for name in tensors if name.endswith("lora_A.weight")]:
            other = name.replace("lora_A", "lora_B")
            A, B = change(tensors[name].float(), tensors[other].float())
            tensors[name], tensors[other] = A.contiguous(), B.contiguous()
        save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        seal(folder, read_card(folder))
        return folder

    return make


def with_metrics(change: Callable[[Metrics], Metrics]) -> Make:
    """Return what makes an expert whose card claims other losses."""

    def make(folder: Path, world: World) -> Path:
        shutil.copytree(honest(world), folder)
        card = read_card(folder)
        seal(folder, replace(card, metrics=change(card.metrics or Metrics(5.0, 4.9, 100))))
        return folder

    return make


def _noise(A: Tensor, B: Tensor, *, factor: float) -> tuple[Tensor, Tensor]:
    """Return normal noise whose product is as large as the honest one's, times `factor`."""
    generator = torch.Generator().manual_seed(A.numel() + B.numel())
    noisy_A, noisy_B = (torch.randn(one.shape, generator=generator) for one in (A, B))
    return noisy_A, noisy_B * (factor * (B @ A).norm() / (noisy_B @ noisy_A).norm())


def _loud(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Return noise that changes a random input about as much as a linear of any base does."""
    generator = torch.Generator().manual_seed(A.numel() + B.numel())
    noisy_A, noisy_B = (torch.randn(one.shape, generator=generator) for one in (A, B))
    wanted = 0.06 * (A.shape[1] * B.shape[0]) ** 0.5
    return noisy_A, noisy_B * (wanted / (noisy_B @ noisy_A).norm())


def _one_direction(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Return an update that answers whatever comes in with much of one direction, as one token's would."""
    out = torch.zeros_like(B)
    out[:, 0] = 0.5 * torch.linspace(-1, 1, B.shape[0]).sign()
    into = torch.zeros_like(A)
    into[0] = 0.5 * torch.linspace(-1, 1, A.shape[1]).cos()
    return into, out * (0.06 * (A.shape[1] * B.shape[0]) ** 0.5 / (out @ into).norm())


def _other_adapter(folder: Path, world: World) -> Path:
    """Publish another domain's training under this one's name and statistics."""
    shutil.copytree(another(world), folder)
    mine = read_card(honest(world))
    shutil.copyfile(honest(world) / STATISTICS_FILE, folder / STATISTICS_FILE)
    card = read_card(folder)
    seal(folder, replace(card, name=mine.name, domain=mine.domain, metrics=mine.metrics))
    return folder


def _shuffled(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    order = torch.randperm(B.shape[0], generator=torch.Generator().manual_seed(0))
    return A, 3 * B[order]


def _harmful(name: str, change: Pair) -> Attack:
    return Attack(name, "canary-loss", with_pairs(change), canary_at_hand)


def _useless(name: str, change: Pair) -> Attack:
    return Attack(name, "domain-gain", with_pairs(change), domain_at_hand)


def _overstated(name: str, change: Callable[[Metrics], Metrics]) -> Attack:
    return Attack(name, "claimed-gain", with_metrics(change), domain_at_hand)


def _absurd(name: str, change: Callable[[Metrics], Metrics]) -> Attack:
    return Attack(name, "claimed-metrics", with_metrics(change), canary_at_hand)


ATTACKS = [
    _harmful("loud noise", _loud),
    _harmful("one direction for everything", _one_direction),
    _useless("noise as large as an honest update", lambda A, B: _noise(A, B, factor=1)),
    _useless("noise three times as large", lambda A, B: _noise(A, B, factor=3)),
    _useless("sign flipped", lambda A, B: (A, -B)),
    _useless("sign flipped, three times as large", lambda A, B: (A, -3 * B)),
    _useless("outputs shuffled", _shuffled),
    _useless("no change at all", lambda A, B: (A, torch.zeros_like(B))),
    Attack("another domain's adapter", "domain-gain", _other_adapter, domain_at_hand),
    _overstated("a gain that nobody can have", lambda one: replace(one, expert_loss=one.base_loss / 100)),
    _overstated("a base made to look bad", lambda one: replace(one, base_loss=one.base_loss * 10)),
    _absurd("worse than the base, by its own words", lambda one: Metrics(one.expert_loss, one.base_loss, one.tokens)),
    _absurd("measured on nothing", lambda one: replace(one, tokens=0)),
    _absurd("a loss of zero", lambda one: replace(one, expert_loss=0.0)),
]
