"""PEFT's own Arrow, `create_arrow_model`, with and without general knowledge subtracted.

Ostapenko et al. 2024, section 4, as PEFT has it: prototypes by 15 steps of power iteration in the adapter, from a
random vector (seeded here), the k largest |x·v| through a softmax, every expert computed. GenKnowSub subtracts, from
the A and B of every expert, those of an adapter that was trained on generic text (Bagherifard et al. 2025,
"GenKnowSub: Improving Modularity and Reusability of LLMs through General Knowledge Subtraction").
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.quality import texts
from benchmarks.quality.method import Method, Whole
from benchmarks.quality.tuning import Objective, Setting, choose, grid
from benchmarks.quality.world import PAIR_BITS, World
from moehub.base import quiet_transformers
from moehub.experts.training import train

ROWS = 1
"""Of each text for tuning: every expert is computed for every token."""
TOP_K = (1, 3)
TEMPERATURES = (0.3, 1.0)


def arrow(world: World) -> Whole:
    """Return Arrow."""
    return _chosen(world, None)


def without_general_knowledge(world: World) -> Whole:
    """Return Arrow on experts from which an adapter of generic text was subtracted."""
    return _chosen(world, general(world))


def general(world: World) -> Path:
    """Return the folder of an adapter trained on as much generic text as a contributor has, like a contributor's."""
    folder = world.folder / f"seed-{world.seed}" / "general"
    if not (folder / "expert.json").is_file():
        config = replace(world.setup.expert, seed=world.seed, pair_bits=PAIR_BITS)
        examples = texts.drawn(world.texts.generic.train, world.setup.expert_characters, world.seed)
        train(world.base, "general", examples, folder, config)
    return folder


def model(world: World, general: Path | None, *, top_k: int, temperature: float) -> Any:
    """Return the model that PEFT makes."""
    from peft import ArrowConfig, create_arrow_model

    config = ArrowConfig(top_k=top_k, router_temperature=temperature, use_gks=general is not None, rng_seed=0)
    with quiet_transformers():
        return create_arrow_model(
            world.base.load_model(),
            [str(world.expert(name)) for name in world.names],
            config,
            general_adapter_paths=None if general is None else [str(general)],
        ).eval()


def _chosen(world: World, general: Path | None) -> Whole:
    def make(setting: Setting) -> Whole:
        return Whole(model(world, general, **setting))

    return choose(Objective.of(world, ROWS), grid(top_k=TOP_K, temperature=TEMPERATURES), make)


ARROW = Method("peft arrow", "nothing", True, arrow)
WITHOUT_GENERAL = Method("peft arrow, genknowsub", "generic text", True, without_general_knowledge)
