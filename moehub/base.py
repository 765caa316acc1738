"""The base: a Hugging Face causal LM, pinned by repo, revision and a digest of its weights.

The only module that loads a base or its tokenizer. torch and transformers are imported on first use.
"""

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moehub import digests
from moehub.card import BasePin
from moehub.console import progress
from moehub.errors import BaseModelError
from moehub.tensorfile import Span, spans

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_CHUNK = 1 << 24
_LONG = 2_000_000_000
"""Weights of more bytes than this take seconds to read: a bar is shown."""
_REFUSALS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ArithmeticError)
"""What transformers raises about a folder that holds something else than it should."""


@dataclass(frozen=True)
class Base:
    """A base on this machine's disk."""

    folder: Path
    """Where its files are: a local folder, or a snapshot in the hub's cache."""
    reference: str
    """Repo id, or the folder's name."""
    revision: str | None
    """Commit, where it came from a hub."""

    @property
    def location(self) -> str:
        """What `from_pretrained` takes to find the base again: the repo id, or the folder's absolute path."""
        return self.reference if self.revision is not None else str(self.folder)

    def pin(self) -> BasePin:
        """Return the base's identity: reference, revision and both digests."""
        return BasePin(
            reference=self.reference,
            revision=self.revision,
            digest=weights_digest(self.folder),
            tokenizer=tokenizer_digest(self.load_tokenizer()),
        )

    def require(self, digest: str, *, otherwise: str) -> None:
        """Refuse another base than the one with these weights; `otherwise` says what that means for whom.

        Raises:
            BaseModelError: the weights have another digest.
        """
        mine = weights_digest(self.folder)
        if mine != digest:
            raise BaseModelError(
                f"the base in {self.folder} has digest {mine[:12]}, expected {digest[:12]}: {otherwise}; "
                "name the right one with --base"
            )

    def load_config(self) -> "PretrainedConfig":
        """Return the base's configuration.

        Raises:
            BaseModelError: it is no causal language model that transformers knows without remote code.
        """
        from huggingface_hub.errors import StrictDataclassError
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_CAUSAL_LM_MAPPING,
            MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        )

        try:
            config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
        except (*_REFUSALS, StrictDataclassError) as error:
            raise BaseModelError(
                f"cannot read the configuration of the base in {self.folder}: {_first_line(error)}"
            ) from error
        known = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not getattr(config, "is_encoder_decoder", False)
        # BERT and its like are in the mapping too, for those who made decoders of them: the saved class decides.
        head, saved = str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)), config.architectures or ()
        if not known or (saved and not any(name == head or name.endswith("ForCausalLM") for name in saved)):
            raise BaseModelError(
                f"the base {self.reference} is a {config.model_type!r} model, expected a causal language model "
                "such as llama, qwen3 or gemma2: choose another --base"
            )
        return config

    def load_model(
        self, *, dtype: "torch.dtype | str" = "auto", rating: bool = False, **options: Any
    ) -> "PreTrainedModel":
        """Return the base with its weights.

        Args:
            dtype: of the weights.
            rating: with a new head of one number, at random, in the place of the one that gives the next token.
            options: for `from_pretrained` (as `device_map`).

        Raises:
            BaseModelError: the weights are missing, truncated, or of another architecture.
        """
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

        self.load_config()
        kind, more = (AutoModelForSequenceClassification, {"num_labels": 1}) if rating else (AutoModelForCausalLM, {})
        try:
            model, report = kind.from_pretrained(
                self.folder,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **more,
                **options,
            )
        except (*_REFUSALS, SafetensorError) as error:
            raise BaseModelError(
                f"cannot load the weights of the base {self.reference} from {self.folder}: {_first_line(error)}. "
                "Download or save it again, as safetensors"
            ) from error
        if missing := sorted(name for name in report["missing_keys"] if not (rating and name == "score.weight")):
            # transformers would fill them with random numbers.
            raise BaseModelError(
                f"the weights of the base {self.reference} in {self.folder} lack {missing[0]} "
                f"({len(missing)} tensors in all): download or save it again"
            )
        return model

    def load_tokenizer(self) -> "PreTrainedTokenizerBase":
        """Return the base's tokenizer.

        Raises:
            BaseModelError: there is none beside the weights.
        """
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)
        except _REFUSALS as error:
            raise BaseModelError(
                f"cannot load the tokenizer of the base in {self.folder}: {_first_line(error)}"
            ) from error


def find(reference: str, *, revision: str | None = None, endpoint: str | None = None) -> Base:
    """Return the base that a local folder or a hub's `org/name[@revision]` names, downloading it if need be.

    Raises:
        BaseModelError: there is no such folder or repo.
    """
    folder = Path(reference).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BaseModelError(f"{folder} is no base: it has no config.json, expected a folder saved by transformers")
        return Base(folder.absolute(), folder.absolute().name, None)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    name, _, pinned = reference.partition("@")
    try:
        snapshot = snapshot_download(
            name,
            revision=pinned or revision,
            endpoint=endpoint,
            allow_patterns=["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"],
        )
    except (OSError, HFValidationError) as error:
        raise BaseModelError(
            f"there is no folder {reference} and no hub serves a model of that name ({_first_line(error)}): "
            "expected a folder with config.json, or org/name on a hub that can be reached"
        ) from error
    return Base(Path(snapshot), name, Path(snapshot).name)


def weights_digest(folder: Path) -> str:
    """Return one sha256, in hex, over the name, dtype, shape and bytes of every tensor, in the order of names.

    It does not depend on how the weights are cut into files. A folder whose weights did not change
    since the last call is not read again (`moehub.digests`).

    Raises:
        BaseModelError: there are no safetensors weights, or a file is damaged.
    """
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise BaseModelError(
            f"{folder} holds no .safetensors weights: save the base with save_pretrained(..., safe_serialization=True)"
        )
    return digests.remembered("tensors", shards, lambda: _digest_tensors(shards))


def _digest_tensors(shards: list[Path]) -> str:
    digest = hashlib.sha256()
    found = sorted(((name, shard, span) for shard in shards for name, span in _spans(shard).items()), key=_place)
    size = sum(span.end - span.begin for *_, span in found)
    bar = progress("reading the base's weights", size, in_bytes=True) if size > _LONG else nullcontext(_silent)
    with bar as advance:
        for name, shard, span in found:
            digest.update(f"{name}\0{span.dtype}\0{span.shape}\n".encode())
            for chunk in _bytes(shard, span.begin, span.end):
                digest.update(chunk)
                advance(len(chunk))
    return digest.hexdigest()


def _place(found: tuple[str, Path, Span]) -> tuple[str, Path]:
    return found[:2]


def _bytes(shard: Path, begin: int, end: int) -> Iterator[bytes]:
    with shard.open("rb") as file:
        file.seek(begin)
        left = end - begin
        while left > 0:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:
                raise BaseModelError(f"{shard} is truncated: download the base again")
            left -= len(chunk)
            yield chunk


def _silent(_steps: int = 1, _note: str = "") -> None:
    """Show nothing: the work is short."""


def _spans(shard: Path) -> dict[str, Span]:
    try:
        return spans(shard)
    except ValueError as error:
        raise BaseModelError(f"{shard} is no safetensors file ({error}): download the base again") from error


def tokenizer_digest(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return one sha256, in hex, of everything that decides which ids a text becomes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        parts: Any = sorted(tokenizer.get_vocab().items())
    else:
        parts = json.loads(backend.to_str())
        # These two change with every call that pads or truncates; they do not change what a token is.
        parts.pop("padding", None)
        parts.pop("truncation", None)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def configuration(values: Mapping[str, Any]) -> "PretrainedConfig":
    """Return a base's configuration from its `config.json`; nothing is looked up or downloaded."""
    # Not at the top: transformers imports who calls this when it imports its auto classes.
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[values["model_type"]].from_dict(dict(values))


def context_length(config: "PretrainedConfig") -> int:
    """Return the longest sequence, in tokens, that the base was made for (2048 where it does not say)."""
    text = config.get_text_config()
    return int(getattr(text, "max_position_embeddings", None) or 2048)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence what transformers and PEFT say about loading and about each other, so that ours can be read."""
    from transformers.utils import logging as chatter

    level, shown = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(peft|transformers)(\.|$)")
            yield
    finally:
        chatter.set_verbosity(level)
        if shown:
            chatter.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])
