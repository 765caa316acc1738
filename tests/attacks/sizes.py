"""Step 2: files and headers that cost whoever opens them time and memory."""

import struct
from collections.abc import Callable
from pathlib import Path

from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD_FILE, README, STATISTICS_FILE
from tests.attacks import Attack
from tests.attacks.forging import as_bytes, changed, with_header, write


def empty_tensors(count: int) -> bytes:
    """Return a header of so many tensors that hold nothing: 56 bytes each."""
    entry = '"{:07d}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    return ("{" + ",".join(entry.format(number) for number in range(count)) + "}").encode()


def header_bomb(count: int) -> Callable[[Path], None]:
    """Return what puts so many tensors that hold nothing into an adapter's header."""
    return lambda folder: write(folder / ADAPTER_WEIGHTS, empty_tensors(count), b"")


def _grown(name: str, size: int) -> Attack:
    """Return the attack whose file is this long, and takes no place on this disk."""

    def grow(folder: Path) -> None:
        with (folder / name).open("ab") as file:
            file.truncate(size)

    return Attack(f"{name} of {size >> 20} MiB", "file-size", changed(grow, sealed=False))


def _replaced(attack: str, code: str, content: bytes, name: str = ADAPTER_WEIGHTS) -> Attack:
    return Attack(attack, code, changed(lambda folder: (folder / name).write_bytes(content)))


def _metadata(size: int) -> dict[str, dict[str, str]]:
    return {"__metadata__": {"format": "x" * size}}


ATTACKS = (
    _grown(README, 2 << 20),
    _grown(CARD_FILE, 64 << 20),
    _grown(ADAPTER_CONFIG, 64 << 20),
    _grown(ADAPTER_WEIGHTS, 9 << 30),
    _grown(STATISTICS_FILE, 1 << 30),
    Attack("header bomb", "header-length", changed(header_bomb(20_000))),
    Attack(
        "90 MB of metadata", "header-length", with_header(lambda header, data: (header | _metadata(90 << 20), data))
    ),
    _replaced("header longer than the file", "header-length", struct.pack("<Q", 1 << 19) + b"{}"),
    _replaced("header of 2^63 bytes", "header-length", struct.pack("<Q", 1 << 63) + b"{}"),
    _replaced("header of no bytes", "header-length", struct.pack("<Q", 0)),
    _replaced("weights of no bytes", "header-length", b""),
    _replaced("statistics of seven bytes", "header-length", b"{}     ", STATISTICS_FILE),
    Attack(
        "space before the header", "header-start", with_header(lambda header, data: (b" " + as_bytes(header), data))
    ),
    _replaced("pickle called safetensors", "header-start", struct.pack("<Q", 16) + b"\x80\x04}\x94." + b" " * 20),
    _replaced("list for a header", "header-start", struct.pack("<Q", 2) + b"[]"),
    Attack("5000 tensors", "tensor-count", changed(header_bomb(5_000))),
    Attack(
        "100 kB of metadata", "metadata-size", with_header(lambda header, data: (header | _metadata(100_000), data))
    ),
)
