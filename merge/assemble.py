"""Write a MoE folder from a plan, and change one: the folder appears whole or stays as it was.

Nothing is trained and no weight is computed: the experts' files are taken over byte for byte, and the gate's
tables come from their statistics in closed form. Equal sets of experts give equal bytes.
"""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moehub import digests, files
from moehub.base import Base
from moehub.card import CARD_FILE, EXPERT_FILES, README, STATISTICS_FILE
from moehub.errors import MergeError
from moehub.experts.folder import Expert
from moehub.hub.measured import MEASURED_FILE
from moehub.hub.model_card import render_moe
from moehub.hub.parcel import MOE_SIGNATURE
from moehub.merge.configuration import MoehubConfig
from moehub.merge.lock import LOCK_FILE, Lock, LockedExpert, LockedNull
from moehub.merge.null import NULL_FOLDER
from moehub.merge.plan import Plan, contributor
from moehub.merge.source import Source
from moehub.merge.tuned import TUNED_FILE, Tuned
from moehub.router.method import flatten, is_face, parse
from moehub.router.settings import RouterSettings

CONFIG_FILE = "config.json"
ROUTER_FILE = "router.safetensors"
BASE_FOLDER, EXPERTS_FOLDER = "base", "experts"
_MADE_ANEW = frozenset({CONFIG_FILE, ROUTER_FILE, LOCK_FILE, README, MOE_SIGNATURE, MEASURED_FILE, TUNED_FILE})
"""What a change does not take over; signature, evaluation and tuning would no longer hold."""
TEXT_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)
"""What a base says about text: the tokenizer, and how to generate."""
_LOCAL_KEYS = ("_name_or_path", "transformers_version", "architectures")
"""Keys of a base's configuration that say where and by what it was saved, not what it is."""


def assemble(plan: Plan, base: Base, output: Path, *, embed_base: bool = False) -> None:
    """Write the MoE that `plan` describes to `output`, in the place of whatever stood there.

    Raises:
        MergeError: the plan has faults.
    """
    plan.require()
    with files.new_folder(output) as folder:
        for name in TEXT_FILES:
            if (base.folder / name).is_file():
                shutil.copyfile(base.folder / name, folder / name)
        if embed_base:
            (folder / BASE_FOLDER).mkdir()
            for path in _base_files(base.folder):
                shutil.copyfile(path, folder / BASE_FOLDER / path.name)
        if plan.null is not None:
            (folder / NULL_FOLDER).mkdir()
            plan.null.statistics.save(folder / NULL_FOLDER / STATISTICS_FILE)
        for source in plan.sources:
            _take_expert(source.expert, folder / EXPERTS_FOLDER / source.expert.name)
        fresh = [source.expert.name for source in plan.sources]
        save_file(make_tables(plan, kept={}, fresh=fresh), folder / ROUTER_FILE)
        _write_descriptions(plan, folder, embed_base=embed_base)


def reassemble(plan: Plan, moe: Path, *, fresh: Sequence[str], embed_base: bool) -> None:
    """Replace the MoE in `moe` by the one that `plan` describes; only the experts named in `fresh` are read.

    The others' files are linked from the old folder to the new one, and their tables are taken over where a
    contributor's tables depend on nothing but itself.
    """
    plan.require()
    names = {source.expert.name for source in plan.sources}
    with files.new_folder(moe) as folder:
        for path in files.files_below(moe):
            top = path.parts[0]
            if top == EXPERTS_FOLDER and (path.parts[1] not in names or path.parts[1] in fresh):
                continue
            if path.name in _MADE_ANEW and len(path.parts) == 1:
                continue
            _link(moe / path, folder / path)
        for source in plan.sources:
            if source.expert.name in fresh:
                _take_expert(source.expert, folder / EXPERTS_FOLDER / source.expert.name)
        save_file(make_tables(plan, kept=kept_tables(moe), fresh=fresh), folder / ROUTER_FILE)
        _write_descriptions(plan, folder, embed_base=embed_base)


def read_tables(moe: Path) -> dict[str, Tensor]:
    """Return the gate's tables.

    Raises:
        MergeError: the file is missing or damaged.
    """
    try:
        return load_file(moe / ROUTER_FILE)
    except (OSError, SafetensorError) as error:
        raise MergeError(
            f"{moe / ROUTER_FILE} cannot be read ({error}): make the MoE again with `moehub merge {moe / LOCK_FILE}`"
        ) from error


def kept_tables(moe: Path) -> dict[str, Tensor]:
    """Return the gate's tables that a change takes over: all, or none where an older moehub made them by other rules.

    Raises:
        MergeError: the file is missing or damaged.
    """
    tables = read_tables(moe)
    made_with = json.loads((moe / CONFIG_FILE).read_text(encoding="utf-8"))["router"]
    known = {setting.name for setting in dataclasses.fields(RouterSettings)}
    return tables if known <= made_with.keys() else {}


def comparable(config: dict[str, Any]) -> dict[str, Any]:
    """Return a base's `config.json` without what only says where and by what it was saved."""
    return {key: value for key, value in config.items() if key not in _LOCAL_KEYS}


def make_tables(plan: Plan, *, kept: Mapping[str, Tensor], fresh: Collection[str]) -> dict[str, Tensor]:
    """Return the gate's tables of the MoE that `plan` describes, as they stand in `router.safetensors`.

    Args:
        plan: experts, null and router.
        kept: the tables of the MoE that is changed; empty for a new one.
        fresh: the experts that are not in it yet. Only theirs are solved, where a contributor's tables depend on
            nothing but itself; others are solved anew for everybody.
    """
    names = {source.expert.name for source in plan.sources}
    null = plan.null.statistics if plan.null is not None else None
    tensors: dict[str, Tensor] = {}
    for method in parse(plan.settings.method):
        wanted = fresh if method.local and kept else names
        tables = method.solve(
            [contributor(source) for source in plan.sources if source.expert.name in wanted], null, plan.settings
        )
        tensors |= flatten(method.name, tables)
        if method.local:
            mine = f"{method.name}/"
            tensors |= {
                name: tensor
                for name, tensor in kept.items()
                if name.startswith(mine) and (is_face(owner := name.split("/")[1]) or owner in names - set(fresh))
            }
    return tensors


def _write_descriptions(plan: Plan, folder: Path, *, embed_base: bool) -> None:
    experts = [
        LockedExpert(
            name=source.expert.name,
            source=source.reference,
            commit=source.commit,
            card=files.sha256(folder / EXPERTS_FOLDER / source.expert.name / CARD_FILE),
        )
        for source in plan.sources
    ]
    lock = Lock(
        base=plan.base.pin,
        location=plan.base.location,
        embed_base=embed_base,
        router=plan.settings,
        experts=tuple(experts),
        null=None if plan.null is None else LockedNull(plan.null.source, plan.null.sha256),
    )
    _write(folder / LOCK_FILE, lock.to_json())
    _write(folder / CONFIG_FILE, files.to_json(_config(plan, experts, embed_base=embed_base)))
    write_card(folder, lock, plan.sources)


def write_card(folder: Path, lock: Lock, sources: Sequence[Source], tuned: Tuned | None = None) -> None:
    """Write the README.md of a MoE, made from its lock, its experts' cards and how its gate was tuned."""
    card = render_moe(
        name="+".join(source.expert.name for source in sources),
        base=lock.base,
        experts=[(source.expert.card, source.pinned) for source in sources],
        router=lock.router.to_dict(),
        tuned=None if tuned is None else {**tuned.numbers, **dataclasses.asdict(tuned.facts)},
    )
    _write(folder / README, card)


def _write(path: Path, text: str) -> None:
    """Write a text file of a folder that is flushed as a whole."""
    path.write_text(text, encoding="utf-8", newline="")


def _config(plan: Plan, experts: Sequence[LockedExpert], *, embed_base: bool) -> dict[str, Any]:
    pin, base_config = plan.base.pin, dict(plan.base.config)
    shared = ("bos_token_id", "eos_token_id", "pad_token_id", "dtype", "tie_word_embeddings", "vocab_size")
    return {
        "model_type": MoehubConfig.model_type,
        "architectures": ["MoehubForCausalLM"],
        "base": {
            "reference": pin.reference,
            "location": BASE_FOLDER if embed_base else plan.base.location,
            "revision": pin.revision,
            "digest": pin.digest,
            "tokenizer": pin.tokenizer,
        },
        "base_config": base_config,
        "experts": [
            {
                "name": source.expert.name,
                "domain": source.expert.card.domain,
                "license": source.expert.card.license,
                "card": locked.card,
            }
            for source, locked in zip(plan.sources, experts, strict=True)
        ],
        "router": plan.settings.to_dict(),
        "null": plan.null is not None,
        **{key: base_config[key] for key in shared if key in base_config},
    }


def _base_files(folder: Path) -> list[Path]:
    kinds = {".json", ".safetensors", ".model", ".jinja", ".txt"}
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in kinds)


def _take_expert(expert: Expert, destination: Path) -> None:
    destination.mkdir(parents=True)
    for name in sorted(EXPERT_FILES):
        if (expert.folder / name).is_file():
            shutil.copyfile(expert.folder / name, destination / name)
            if name in expert.card.files:  # the gate has compared these bytes with the card
                digests.note_sha256(destination / name, expert.card.files[name])


def _link(source: Path, destination: Path) -> None:
    """Give the file a second name, or copy it where the file system has no links."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        os.link(source, destination)
        return
    shutil.copyfile(source, destination)
