"""The tags of a repo: what its card says, and what the Hugging Face client expects a hub to add."""

from collections.abc import Mapping, Sequence
from typing import Any

from moehub.card import ADAPTER_CONFIG
from moehub.hub.parcel import MOE_CONFIG
from moehub.hubserver.store.trees import Tree


def tags_of(card: Mapping[str, Any], tree: Tree, base: str | None) -> list[str]:
    """Return the tags that the Hugging Face client expects a hub to derive."""
    library = first(card.get("library_name")) or (
        "peft" if ADAPTER_CONFIG in tree else "transformers" if MOE_CONFIG in tree else None
    )
    relation = first(card.get("base_model_relation")) or ("adapter" if ADAPTER_CONFIG in tree else "finetune")
    found = [library, "safetensors" if any(path.endswith(".safetensors") for path in tree) else None]
    found += [*_all(card.get("tags")), *_all(card.get("language"))]
    found += [f"dataset:{each}" for each in _all(card.get("datasets"))]
    for each in _all(card.get("base_model")) or _all(base):
        found += [f"base_model:{each}", f"base_model:{relation}:{each}"]
    found += [f"license:{each}" for each in _all(card.get("license"))[:1]]
    found.append(first(card.get("pipeline_tag")))
    return list(dict.fromkeys(tag for tag in found if tag))


def domain_in(tags: Sequence[str]) -> str | None:
    """Return the domain that tags name, if one does."""
    return next((tag.removeprefix("domain:") for tag in tags if tag.startswith("domain:")), None)


def _all(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [str(each)[:200] for each in values[:200] if isinstance(each, str | int | float) and str(each)]


def first(value: Any) -> str | None:
    """Return the text in a value of a card, or the first of several; None where there is none."""
    return next(iter(_all(value)), None)
