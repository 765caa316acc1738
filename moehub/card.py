"""The card of an expert: `expert.json`, the manifest that says what the folder is and pins every byte of it.

Format 1. A stranger's card is untrusted input: the loader is strict and reports every fault at once.
"""

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moehub import config, digests, files
from moehub.errors import ConfigError, ExpertError

FORMAT = 1
EXPERT, REWARD = "expert", "reward"
"""What an adapter is for."""
LOW_RANK = ("lora", "rslora", "dora")
"""Methods that add B·A to linears: what a MoE is made of, and what a later stage can start from."""
CARD_FILE = "expert.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
STATISTICS_FILE = "router_stats.safetensors"
README = "README.md"
SIGNATURE_FILE = "expert.sig"
CURVES_FILE = "training.json"
CURVES_PLOT = "training.png"
EXPERT_FILES = frozenset(
    {ADAPTER_CONFIG, ADAPTER_WEIGHTS, STATISTICS_FILE, CURVES_FILE, CURVES_PLOT, CARD_FILE, README, SIGNATURE_FILE}
)
"""Nothing else travels: no pickles, no code, no training state."""
LARGEST = {ADAPTER_WEIGHTS: 8 << 30, STATISTICS_FILE: 768 << 20}
"""Bytes of a file, at most: rank 256 on all linears of a base of 70 billion parameters, in two bytes each; 2^24 pairs
of tokens and 2^24 triples that all occur, and features of 4096 dimensions."""
LARGEST_TEXT = 1 << 20
"""Bytes of any other file, at most: a card with thousands of contributors."""
PINNED_FILES = EXPERT_FILES - {CARD_FILE, README, SIGNATURE_FILE}
"""What the card pins where it is there: not itself, not the text made of it, not the signature made over it."""
NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
"""Names of experts and domains: they become folder names, tensor names and tags, so they stay plain."""


@dataclass(frozen=True)
class BasePin:
    """Which base an expert belongs to; the two digests decide, the reference is for people."""

    reference: str
    """Repo id on a hub, or the name of a local folder; never a path of somebody's machine."""
    digest: str
    """`moehub.base.weights_digest` of the base."""
    tokenizer: str
    """`moehub.base.tokenizer_digest` of the base's tokenizer."""
    revision: str | None = None
    """Commit on the hub, where the base came from one."""


@dataclass(frozen=True)
class Measured:
    """One number of a stage on examples that it was not trained on, before it and after it."""

    metric: str
    """`loss` in nats per token, `preference accuracy`, or `reward`, which the judges of its settings gave."""
    before: float
    after: float
    count: int
    """What the numbers are means over: tokens of a loss, pairs of a preference, prompts of a reward."""
    kl: float | None = None
    """How far the policy was from where it began in the last steps, in nats per token of its own answers."""


@dataclass(frozen=True)
class Stage:
    """One stage of training the expert went through."""

    kind: str
    """`pretrain` (plain text), `sft` (prompts and completions), `dpo`, `kto`, `reward` or `rl`."""
    tokens: int
    """Tokens that a loss was computed on, over all steps."""
    steps: int
    """Optimizer steps."""
    examples: int
    """Documents, conversations, preferences or prompts in the training split."""
    seconds: float
    """Wall time."""
    start: str | None = None
    """sha256 of the adapter that it began with; None: a new one."""
    measured: Measured | None = None
    """What it is worth on examples that were held out from it."""
    quantized: str | None = None
    """`nf4` or `int8` where the base was, in training and measuring; the adapter belongs to the whole base."""


@dataclass(frozen=True)
class Metrics:
    """What the expert is worth on text of its domain that it was not trained on, in nats per token."""

    base_loss: float
    expert_loss: float
    tokens: int
    """Number of held-out tokens that the losses are means over."""


@dataclass(frozen=True)
class Federated:
    """How several contributors trained one expert together."""

    nodes: int
    """Contributors whose training went into it."""
    rounds: int
    """Times that their adapters were aggregated."""
    aggregation: str
    """How: the name of a method in `moehub.federation.aggregation`."""
    contributors: tuple[str, ...] = ()
    """Names of the contributors who agreed to be named."""
    epsilon: float | None = None
    """Differential privacy of the adapter towards each contributor, at `delta`; None: none was asked for."""
    delta: float | None = None


@dataclass(frozen=True)
class Privacy:
    """What noise hides in the router statistics: whether any one document was counted. Nothing else has noise."""

    epsilon: float
    """ε, at `delta`."""
    delta: float
    clip: int
    """The most that the squares of one document's counts of one kind add up to."""
    sigma: dict[str, float] = field(hash=False)
    """Kind of counts → parameter of the discrete Gaussian that every bucket's noise was drawn from."""

    def __str__(self) -> str:
        """Return the guarantee as people write it."""
        return f"ε = {self.epsilon:g} at δ = {self.delta:g} for any one document"


@dataclass(frozen=True)
class Card:
    """The manifest of an expert folder."""

    name: str
    domain: str
    base: BasePin
    rank: int
    alpha: float
    targets: tuple[str, ...]
    """Names of the linears that carry an adapter, as PEFT's `target_modules`."""
    license: str
    """SPDX identifier, or `other`."""
    stages: tuple[Stage, ...]
    metrics: Metrics | None
    files: dict[str, str]
    """Name of every other file in the folder but the README and the signature → sha256 in hex."""
    version: int = 1
    """Grows by one with each publication of the same expert, so that an old one cannot be replayed."""
    format: int = FORMAT
    packages: dict[str, str] = field(default_factory=dict)
    """Name → version of the libraries that trained it."""
    federation: Federated | None = None
    """Where contributors trained it together; None: one contributor trained it alone."""
    private: Privacy | None = None
    """Of the router statistics, where they carry noise; the adapter carries none."""
    method: str = "lora"
    """What kind of adapter it is: `lora`, `rslora` or `dora`; or `prefix`, `p-tuning` or `ia3`, for use alone."""
    purpose: str = EXPERT
    """`expert`, or `reward`: a reward model, which rates answers and gives none."""

    def __post_init__(self) -> None:
        """Refuse names that could not be a folder, a tensor or a tag."""
        for what, value in (("name", self.name), ("domain", self.domain)):
            check_name(what, value)
        if self.format != FORMAT:
            raise ExpertError(
                f"the card of {self.name!r} has format {self.format}, this moehub reads format {FORMAT}: update moehub"
            )

    def to_json(self) -> str:
        """Return the card as the text of `expert.json`."""
        return files.to_json(dataclasses.asdict(self))


def check_name(what: str, value: str) -> str:
    """Return `value` if it may name an expert or a domain.

    Raises:
        ExpertError: it holds anything but lower-case letters, digits, dots, dashes and underscores.
    """
    if not NAME.fullmatch(value) or value == "null":
        raise ExpertError(
            f"{what} {value!r} cannot be used: at most 64 lower-case letters, digits, '.', '_' and '-', "
            "beginning and ending with a letter or digit, and not 'null'"
        )
    return value


def read_card(folder: Path) -> Card:
    """Return the card of an expert folder.

    Raises:
        ExpertError: there is no card, or it is no card of format 1.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        raise ExpertError(
            f"{folder} is no expert: it has no {CARD_FILE}. `moehub train-expert` makes one; "
            "an interrupted training goes on with --resume"
        )
    if path.stat().st_size > LARGEST_TEXT:
        raise ExpertError(f"{path} has more than {LARGEST_TEXT} bytes, which no card has: pull the expert again")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ExpertError(f"{path} is damaged ({error}): pull the expert again") from error
    return parse_card(values, source=str(path))


def parse_card(values: Any, *, source: str) -> Card:
    """Return the card held by parsed JSON; `source` names it in errors.

    Raises:
        ExpertError: unknown, missing or mistyped keys, all listed.
    """
    if not isinstance(values, dict):
        raise ExpertError(f"{source} holds a {type(values).__name__}, expected a mapping: pull the expert again")
    try:
        nested: dict[str, Any] = {"base": BasePin, "metrics": Metrics, "federation": Federated, "private": Privacy}
        parts = {
            key: config.from_mapping(kind, values[key], source=f"{source}: {key}")
            for key, kind in nested.items()
            if isinstance(values.get(key), dict)
        }
        if isinstance(values.get("stages"), list):
            parts["stages"] = tuple(_stage(stage, f"{source}: stages") for stage in values["stages"])
        return config.from_mapping(Card, {**values, **parts}, source=source)
    except ConfigError as error:
        raise ExpertError(str(error)) from error
    except OverflowError as error:
        raise ExpertError(f"{source} holds a number that is too large: pull the expert again") from error


def _stage(values: Any, source: str) -> Stage:
    if isinstance(values, dict) and isinstance(values.get("measured"), dict):
        values = {**values, "measured": config.from_mapping(Measured, values["measured"], source=f"{source}: measured")}
    return config.from_mapping(Stage, values, source=source)


def folder_faults(folder: Path, card: Card) -> list[str]:
    """Return one sentence for each file that is missing, changed, or has no business in an expert folder."""
    return [fault for path in sorted(folder.iterdir()) if (fault := _stray(path))] + pin_faults(folder, card)


def pin_faults(folder: Path, card: Card) -> list[str]:
    """Return one sentence for each file that the card does not pin, or that is not the one it pins."""
    faults = [
        f"the card does not pin {required}: train the expert again"
        for required in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
        if required not in card.files
    ]
    faults += [
        f"the card does not pin {name}, so it may be anything: remove it, or pull the expert again"
        for name in sorted(PINNED_FILES - card.files.keys())
        if (folder / name).exists()
    ]
    return faults + [fault for name, digest in sorted(card.files.items()) if (fault := _unpinned(folder, name, digest))]


def _stray(path: Path) -> str | None:
    if path.name.startswith("."):
        return None
    if path.is_symlink() and not path.exists():
        return f"{path.name} is a link that leads nowhere: pull the expert again"
    if path.name not in EXPERT_FILES:
        return f"{path.name} does not belong in an expert folder: remove it"
    return None


def _unpinned(folder: Path, name: str, digest: str) -> str | None:
    if name not in EXPERT_FILES:
        return f"the card pins {name!r:.80}, which does not belong in an expert folder"
    if not (folder / name).is_file():
        return f"{name} is missing: pull the expert again"
    if digests.sha256(folder / name) != digest:
        return f"{name} was changed after publication (its sha256 differs): pull the expert again"
    return None
