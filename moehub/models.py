"""Open what a person names: a base, an expert on its base, or a MoE."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from moehub import base as bases
from moehub.base import Base
from moehub.card import CARD_FILE, REWARD
from moehub.errors import BaseModelError, ExpertError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from moehub.experts.folder import Expert

Kind = Literal["base", "expert", "moe"]


@dataclass(frozen=True)
class Opened:
    """A model with its tokenizer, ready to be used."""

    kind: Kind
    name: str
    model: Any
    """A causal language model of transformers, or PEFT's wrapper of one."""
    tokenizer: "PreTrainedTokenizerBase"


def kind_of(folder: Path) -> Kind:
    """Return what a folder holds, judged by its files alone."""
    from moehub.merge.load import is_moe

    if (folder / CARD_FILE).is_file():
        return "expert"
    return "moe" if is_moe(folder) else "base"


def open_model(reference: str, *, base: str | None = None, **options: Any) -> Opened:
    """Return the model that a folder or a hub's `org/name[@revision]` names.

    Args:
        reference: a base, an expert or a MoE.
        base: where the base of an expert or a MoE is, if not where it says.
        options: passed to `from_pretrained`, as `dtype`, `device_map`, and for a MoE `backend`, `resident`, `tuned` and
            `trainable`.

    Raises:
        MoehubError: there is nothing of that name, or it is damaged.
    """
    folder = Path(reference).expanduser()
    folder = folder if folder.is_dir() else bases.find(reference).folder
    kind = kind_of(folder)
    with bases.quiet_transformers():
        if kind == "moe":
            return _open_moe(folder, base, options)
        for name in ("backend", "resident", "tuned", "trainable"):
            options.pop(name, None)
        if kind == "expert":
            return _open_expert(folder, base, options)
        found = bases.find(str(folder))
        return Opened("base", folder.name, found.load_model(**options), found.load_tokenizer())


def _open_moe(folder: Path, base: str | None, options: dict[str, Any]) -> Opened:
    from moehub.merge.model import MoehubForCausalLM

    model = MoehubForCausalLM.from_pretrained(folder, base_location=base, **options)
    return Opened("moe", folder.name, model, Base(folder, folder.name, None).load_tokenizer())


def _open_expert(folder: Path, base: str | None, options: dict[str, Any]) -> Opened:
    from peft import PeftModel

    from moehub.experts.folder import open_expert

    expert = open_expert(folder)
    if expert.card.purpose == REWARD:
        raise ExpertError(
            f"{folder} is a reward model, which rates answers and writes none: the reward `reward-model` of "
            "`moehub train-expert --stage rl` asks it"
        )
    found = _base_of(expert, base)
    # PEFT says so at each forward of P-tuning, which numbers its tokens itself.
    warnings.filterwarnings("ignore", message="Position ids are not supported")
    model = PeftModel.from_pretrained(found.load_model(**options), str(folder))
    model.eval()
    return Opened("expert", expert.name, model, found.load_tokenizer())


def _base_of(expert: "Expert", override: str | None) -> Base:
    """Return the base of an expert, checked by its digest."""
    pin = expert.card.base
    try:
        found = bases.find(override or pin.reference, revision=pin.revision)
    except BaseModelError as error:
        raise BaseModelError(
            f"the base {pin.reference} of {expert.name!r} was not found: name it with --base"
        ) from error
    found.require(pin.digest, otherwise=f"{expert.name!r} was not trained on it")
    return found
