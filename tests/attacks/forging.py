"""What a forger needs: copies of good experts, changed, whose cards pin the files as they are then."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD_FILE, read_card
from moehub.experts.folder import seal
from tests.world import World

Make = Callable[[Path, World], Path]


def copied(folder: Path, world: World, expert: str = "law") -> Path:
    """Copy a good expert."""
    return Path(shutil.copytree(world.experts[expert], folder))


def changed(change: Callable[[Path], object], *, expert: str = "law", sealed: bool = True) -> Make:
    """Return what copies a good expert and changes it; its card pins the changed files where it is sealed again."""

    def make(folder: Path, world: World) -> Path:
        change(copied(folder, world, expert))
        if sealed:
            seal(folder, read_card(folder))
        return folder

    return make


def with_config(*, without: str = "", **facts: object) -> Make:
    """Return what makes an expert whose adapter's configuration says something else."""
    return changed(lambda folder: edit(folder / ADAPTER_CONFIG, without=without, **facts))


def with_card(*, without: str = "", **facts: object) -> Make:
    """Return what makes an expert whose card says something else."""
    return changed(lambda folder: edit(folder / CARD_FILE, without=without, **facts), sealed=False)


def with_tensors(change: Callable[[dict[str, Tensor]], dict[str, Tensor]], *, expert: str = "law") -> Make:
    """Return what makes an expert whose adapter has other tensors."""

    def rewrite(folder: Path) -> None:
        save_file(change(load_file(folder / ADAPTER_WEIGHTS)), folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})

    return changed(rewrite, expert=expert)


def with_header(
    change: Callable[[dict[str, Any], bytes], tuple[dict[str, Any] | bytes, bytes]], *, file: str = ADAPTER_WEIGHTS
) -> Make:
    """Return what makes an expert in one of whose files the header (or its bytes) or the tensors' bytes are others."""

    def rewrite(folder: Path) -> None:
        header, data = change(*opened(folder / file))
        write(folder / file, header, data)

    return changed(rewrite)


def edit(path: Path, *, without: str = "", **facts: object) -> None:
    """Change what a JSON file says; without sealing it."""
    values = json.loads(path.read_text(encoding="utf-8")) | facts
    values.pop(without, None)
    path.write_text(json.dumps(values), encoding="utf-8")


def opened(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the header of a safetensors file, and what stands behind it."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def as_bytes(header: dict[str, Any]) -> bytes:
    """Return a header as the library writes it."""
    return json.dumps(header, separators=(",", ":")).encode()


def write(path: Path, header: dict[str, Any] | bytes, data: bytes, *, length: int | None = None) -> None:
    """Write a safetensors file as nobody's library would; `length` is what it says of its header."""
    raw = header if isinstance(header, bytes) else as_bytes(header)
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
