"""What a folder is: an expert, a MoE or a base, as facts that can be printed or read by a program."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from moehub import base as bases
from moehub import files
from moehub.card import CARD_FILE, EXPERT_FILES, STATISTICS_FILE, Card, folder_faults, read_card
from moehub.errors import BaseModelError, ExpertError, MergeError
from moehub.experts.statistics import Statistics
from moehub.merge.assemble import EXPERTS_FOLDER
from moehub.merge.load import is_moe, read_moe_config, read_tuned
from moehub.merge.lock import LOCK_FILE, read_lock
from moehub.merge.tuned import TUNED_FILE, TUNED_KEY


@dataclass(frozen=True)
class Report:
    """What was found in a folder."""

    kind: str
    """`expert`, `moe` or `base`."""
    path: str
    """The folder, absolute."""
    facts: Mapping[str, Any]
    """What there is to say, in an order for people; plain values that JSON can hold."""
    faults: tuple[str, ...] = field(default=())
    """What is not as it was published, one sentence each."""

    def to_json(self) -> str:
        """Return the report as JSON."""
        return files.to_json(dataclasses.asdict(self))


def inspect(folder: Path) -> Report:
    """Return what `folder` is.

    Raises:
        MoehubError: it is no expert, no MoE and no base, or its manifest cannot be read.
    """
    folder = folder.absolute()
    if (folder / CARD_FILE).is_file():
        return _expert(folder)
    if is_moe(folder):
        return _moe(folder)
    if (folder / "config.json").is_file():
        return _base(folder)
    raise ExpertError(
        f"{folder} is no expert (no {CARD_FILE}), no MoE (no {LOCK_FILE}) and no base (no config.json): "
        "expected a folder made by `moehub train-expert`, `moehub merge`, `moehub pull` or transformers"
    )


def _expert(folder: Path) -> Report:
    card = read_card(folder)
    faults = folder_faults(folder, card)
    statistics = folder / STATISTICS_FILE
    counted: dict[str, Any] = {}
    if statistics.is_file():
        try:
            counted = _statistics(Statistics.load(statistics))
        except ExpertError as error:
            faults.append(str(error))
    facts = {
        "card": dataclasses.asdict(card),
        "files": _files(folder, card),
        "bytes": sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        "statistics": counted or None,
    }
    return Report("expert", str(folder), facts, tuple(faults))


def _files(folder: Path, card: Card) -> list[dict[str, Any]]:
    """Return size and digest of each file, and whether the card vouches for it (None: it does not pin it)."""
    rows = []
    for name in sorted(EXPERT_FILES):
        if (folder / name).is_file():
            digest, expected = files.sha256(folder / name), card.files.get(name)
            verified = None if expected is None else digest == expected
            size = (folder / name).stat().st_size
            rows.append({"name": name, "bytes": size, "sha256": digest, "verified": verified})
    return rows


def _statistics(counted: Statistics) -> dict[str, Any]:
    return {
        "tokenizer": counted.tokenizer,
        "tokens": int(counted.unigrams.sum()),
        "distinct_tokens": int((counted.unigrams > 0).sum()),
        "vocabulary": counted.vocabulary,
        "pairs": int(counted.pairs.sum()),
        "distinct_pair_buckets": int((counted.pairs > 0).sum()),
        "pair_bits": counted.pair_bits,
        "distinct_triple_buckets": 0 if counted.triples is None else int((counted.triples > 0).sum()),
        "triple_bits": counted.triple_bits,
        "suppressed_below": counted.suppressed_below,
        "private": None if counted.private is None else dataclasses.asdict(counted.private),
        "features": None if counted.features is None else counted.features.recipe,
    }


def _moe(folder: Path) -> Report:
    config = read_moe_config(folder)
    faults: list[str] = []
    experts = []
    for entry in config.experts:
        row, found = _member(folder / EXPERTS_FOLDER / str(entry.get("name")), entry)
        experts.append(row)
        faults += found
    tuned = None
    try:
        tuned = read_tuned(config, folder)
        if tuned is not None and (not (file := folder / TUNED_FILE).is_file() or files.sha256(file) != tuned.sha256):
            faults.append(f"{TUNED_FILE} is not the one that the MoE was tuned with: pull it again, or tune it again")
    except MergeError as error:
        faults.append(str(error))
    try:
        lock: dict[str, Any] | None = dataclasses.asdict(read_lock(folder / LOCK_FILE))
    except MergeError as error:
        lock = None
        faults.append(str(error))
    facts = {
        "base": dict(config.base),
        "experts": experts,
        "null": config.null,
        "router": {key: value for key, value in config.router.items() if key != TUNED_KEY},
        "tuned": None if tuned is None else tuned.to_dict(),
        "bytes": sum((folder / name).stat().st_size for name in files.files_below(folder)),
        "lock": lock,
    }
    return Report("moe", str(folder), facts, tuple(faults))


def _member(folder: Path, entry: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the facts about one expert of a MoE, and its faults."""
    name = str(entry.get("name"))
    try:
        card = read_card(folder)
    except ExpertError as error:
        return {"name": name}, [str(error)]
    faults = [f"{name}: {fault}" for fault in folder_faults(folder, card)]
    if files.sha256(folder / CARD_FILE) != entry.get("card"):
        faults.append(f"{name} is not the expert that was merged (its card's sha256 differs): pull or merge again")
    row = {
        "name": name,
        "domain": card.domain,
        "license": card.license,
        "rank": card.rank,
        "bytes": sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        "card": entry.get("card"),
        "verified": not faults,
    }
    return row, faults


def _base(folder: Path) -> Report:
    found = bases.find(str(folder))
    config = found.load_config()
    facts = {
        "architecture": config.model_type,
        "parameters": _parameters(folder),
        "context": bases.context_length(config),
        "vocabulary": config.get_text_config().vocab_size,
        "digest": bases.weights_digest(folder),
        "tokenizer": bases.tokenizer_digest(found.load_tokenizer()),
        "bytes": sum((folder / name).stat().st_size for name in files.files_below(folder)),
    }
    return Report("base", str(folder), facts)


def _parameters(folder: Path) -> int:
    """Return the number of stored parameters; tied weights are stored once."""
    total = 0
    for shard in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(shard, framework="pt") as file:
                total += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (no mapping)
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            raise BaseModelError(f"{shard} cannot be read ({error}): download the base again") from error
    return total
