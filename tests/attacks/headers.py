"""Step 3: what the safetensors library lets through, and what it refuses too."""

from collections.abc import Callable
from typing import Any

from moehub.card import STATISTICS_FILE
from tests.attacks import Attack
from tests.attacks.forging import Make, as_bytes, with_header

Header = dict[str, Any]


def _first(header: Header) -> str:
    return next(name for name in header if name != "__metadata__")


def _renamed(name: str) -> Make:
    """Give the first tensor another name."""

    def rename(header: Header, data: bytes) -> tuple[Header, bytes]:
        entry = header.pop(_first(header))
        return {**header, name: entry}, data

    return with_header(rename)


def _described(**facts: object) -> Make:
    """Describe the first tensor otherwise."""

    def describe(header: Header, data: bytes) -> tuple[Header, bytes]:
        header[_first(header)] |= facts
        return header, data

    return with_header(describe)


def _shifted(begin: int, end: int) -> Make:
    """Move the last tensor."""

    def shift(header: Header, data: bytes) -> tuple[Header, bytes]:
        last = max((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"])
        first, second = header[last]["data_offsets"]
        header[last]["data_offsets"] = [first + begin, second + end]
        return header, data

    return with_header(shift)


def _in_bytes(change: Callable[[bytes], bytes], file: str = "adapter_model.safetensors") -> Make:
    return with_header(lambda header, data: (change(as_bytes(header)), data), file=file)


def _twice(header: Header, data: bytes) -> tuple[bytes, bytes]:
    """Say a tensor's name twice: the library takes the last, others the first."""
    name = _first(header)
    entry = as_bytes({name: header[name]})
    return entry[:-1] + b"," + as_bytes(header)[1:], data


def _swapped_twice(raw: bytes) -> bytes:
    """Say the shape of the first tensor twice."""
    return raw.replace(b'"shape":', b'"shape":[1],"shape":', 1)


def _metadata(**entries: object) -> Make:
    return with_header(lambda header, data: (header | {"__metadata__": {"format": "pt"} | entries}, data))


ATTACKS = (
    Attack("header that is cut", "header-json", _in_bytes(lambda raw: raw[:-20])),
    Attack("header nested without end", "header-json",
           _in_bytes(lambda raw: raw[:-1] + b',"a":' + b"[" * 100_000 + b"}")),
    Attack("header nested forty deep", "header-json",
           _in_bytes(lambda raw: raw[:-1] + b',"a":' + b"[" * 40 + b"]" * 40 + b"}")),
    Attack("header that is no UTF-8", "header-json", _in_bytes(lambda raw: raw.replace(b"lora_A", b"lora_\xff", 1))),
    Attack("NaN in the header", "header-json", _in_bytes(lambda raw: raw.replace(b'"shape":[4', b'"shape":[NaN', 1))),
    Attack("number of 100,000 digits", "header-json",
           _in_bytes(lambda raw: raw.replace(b'"shape":[4', b'"shape":[' + b"4" * 100_000, 1))),
    Attack("two headers", "header-json", _in_bytes(lambda raw: raw + raw)),
    Attack("name that stands twice", "duplicate-key", with_header(_twice)),
    Attack("shape that stands twice", "duplicate-key", _in_bytes(_swapped_twice)),
    Attack("statistics' name that stands twice", "duplicate-key", _in_bytes(_swapped_twice, STATISTICS_FILE)),
    Attack("name that climbs", "tensor-name", _renamed("../../../etc/cron.d/x")),
    Attack("name that is a path", "tensor-name", _renamed("/etc/passwd")),
    Attack("name with dots alone", "tensor-name", _renamed("base_model..lora_A.weight")),
    Attack("name that a terminal obeys", "tensor-name", _renamed("\x1b]0;owned\x07")),
    Attack("name of 10,000 letters", "tensor-name", _renamed("a" * 10_000)),
    Attack("name of no letters", "tensor-name", _renamed("")),
    Attack("dtype that nobody knows", "tensor-entry", _described(dtype="F128")),
    Attack("negative shape", "tensor-entry", _described(shape=[-4, -48])),
    Attack("shape of halves", "tensor-entry", _described(shape=[4.5, 48])),
    Attack("shape of truths", "tensor-entry", _described(shape=[True, 192])),
    Attack("offsets in the wrong order", "tensor-entry", _described(data_offsets=[768, 0])),
    Attack("tensor with a secret", "tensor-entry", _described(payload="aGVsbG8=")),
    Attack("tensor of a hundred dimensions", "tensor-entry", _described(shape=[*[1] * 100, 4, 48])),
    Attack("shape larger than its bytes", "tensor-bytes", _described(shape=[4, 4800])),
    Attack("shape that overflows", "tensor-bytes", _described(shape=[1 << 40, 1 << 40, 1 << 40])),
    Attack("dtype of half its bytes", "tensor-bytes", _described(dtype="F16")),
    Attack("tensors that overlap", "tensor-offsets", _shifted(-64, -64)),
    Attack("tensors with a gap", "tensor-offsets", _shifted(64, 64)),
    Attack("bytes behind the last tensor", "tensor-offsets",
           with_header(lambda header, data: (header, data + b"#!/bin/sh"))),
    Attack("weights that are cut", "tensor-offsets", with_header(lambda header, data: (header, data[:-100]))),
    Attack("metadata that nobody asked for", "metadata-keys", _metadata(config="{}")),
    Attack("metadata that are numbers", "metadata-keys", _metadata(format=1)),
    Attack("metadata that a terminal obeys", "metadata-keys", _metadata(format="\x1b[2J")),
)  # fmt: skip
