"""What every format needs: the MoE itself, a model that was exported, and the base's files of text."""

import shutil
from pathlib import Path
from typing import Any

import torch

from moehub.base import Base, quiet_transformers
from moehub.merge.assemble import TEXT_FILES
from moehub.merge.load import Parts
from moehub.merge.model import MoehubForCausalLM


def load_moe(parts: Parts, *, dtype: torch.dtype | str) -> MoehubForCausalLM:
    """Return the MoE, ready to be used."""
    with quiet_transformers():
        return MoehubForCausalLM.from_pretrained(parts.folder, base_location=str(parts.base.folder), dtype=dtype)


def load_exported(folder: Path) -> Any:
    """Return the model in a folder that was exported, in float32."""
    with quiet_transformers():
        return Base(folder, folder.name, None).load_model(dtype=torch.float32).eval()


def copy_text_files(base: Path, folder: Path) -> None:
    """Copy the base's tokenizer and what it says about generation."""
    for name in TEXT_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)


def dtype_name(dtype: torch.dtype) -> dict[str, str]:
    """Return what `config.json` says about a type, in the words of transformers 5 and of those before."""
    name = str(dtype).removeprefix("torch.")
    return {"dtype": name, "torch_dtype": name}
