"""A base's tensors where they lie: the files are mapped, and what was used is given back to the system.

Nothing is read before it is used, so a base of any size costs no more memory than what is looked at.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from moehub.errors import BaseModelError
from moehub.tensorfile import Span, TensorFile

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""What safetensors calls the types that weights are computed in."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


class Mapped:
    """The tensors of a folder by name."""

    def __init__(self, folder: Path) -> None:
        """Read the headers; no weight is read.

        Raises:
            BaseModelError: there are no safetensors weights, or a file is damaged.
        """
        self._files: dict[str, TensorFile] = {}
        for shard in _shards(folder):
            file = _open(shard)
            self._files |= dict.fromkeys(file.spans, file)
        self.spans: Mapping[str, Span] = {name: file.spans[name] for name, file in self._files.items()}

    def __contains__(self, name: str) -> bool:
        return name in self.spans

    def dtype(self, name: str) -> torch.dtype:
        """Return a tensor's type.

        Raises:
            BaseModelError: it is none that LoRA adapters can be added to, as in a quantised base.
        """
        span = self.spans[name]
        if span.dtype not in DTYPES:
            raise BaseModelError(
                f"{name} in {self._files[name].path} is stored as {span.dtype}, expected {', '.join(DTYPES)}: "
                "export with the base that is not quantised, named with --base"
            )
        return DTYPES[span.dtype]

    def raw(self, name: str) -> memoryview:
        """Return a tensor's bytes as they lie in the file."""
        return self._files[name].raw(name)

    def tensor(self, name: str) -> Tensor:
        """Return a tensor over the mapped bytes: valid until `release`, and not to be written to.

        Raises:
            BaseModelError: its type is none that LoRA adapters can be added to, as in a quantised base.
        """
        dtype = self.dtype(name)
        if self.spans[name].begin % dtype.itemsize == 0:
            return self._files[name].tensor(name)
        return torch.frombuffer(bytearray(self.raw(name)), dtype=dtype).view(self.spans[name].shape)

    def release(self, name: str) -> None:
        """Give the memory of a tensor's pages back; they are read again if they are needed again."""
        self._files[name].release(name)

    def close(self) -> None:
        """Forget the files; their maps end with the last tensor that looks at them."""
        self._files.clear()


@contextlib.contextmanager
def mapped(folder: Path) -> Iterator[Mapped]:
    """Yield the tensors of a folder.

    Raises:
        BaseModelError: there are no safetensors weights, or a file is damaged.
    """
    tensors = Mapped(folder)
    try:
        yield tensors
    finally:
        tensors.close()


def _shards(folder: Path) -> list[Path]:
    """Return the files that transformers would read: a repo may hold the same weights in other forms beside them."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        try:
            named = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BaseModelError(f"{folder / INDEX} is damaged ({error}): download the base again") from error
        found = [folder / Path(name).name for name in sorted(named)]
    else:
        found = sorted(folder.glob("*.safetensors"))
    missing = [shard.name for shard in found if not shard.is_file()]
    if missing or not found:
        raise BaseModelError(
            f"{folder} lacks {missing[0] if missing else WEIGHTS}: download the base again, or save it as safetensors"
        )
    return found


def _open(shard: Path) -> TensorFile:
    try:
        return TensorFile(shard)
    except ValueError as error:
        raise BaseModelError(f"{shard} is no safetensors file ({error}): download the base again") from error
