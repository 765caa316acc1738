"""Targets that read Xet's binary forms: xorbs and shards."""

import io
from collections.abc import Mapping

from tests.fuzz.target import Run, Target


def _xorb() -> Run:
    from moehub.hubserver.store.chunks import name_of

    def run(data: bytes) -> None:
        name_of(io.BytesIO(data))

    return run


def _xorbs() -> Mapping[str, bytes]:
    from tests.hubserver.xorb_bytes import GROUPED, LZ4, PLAIN, xorb

    parts = [b"one" * 50, b"two", bytes(range(200))]
    return {f"seed-{packing}": xorb(parts, packing)[1] for packing in (PLAIN, LZ4, GROUPED)}


def _shard() -> Run:
    from moehub.hubserver.store.shards import files_of

    def run(data: bytes) -> None:
        for file in files_of(io.BytesIO(data)):
            file.size  # noqa: B018 (it reads)
            for _ in file.terms():
                pass

    return run


def _shards() -> Mapping[str, bytes]:
    from tests.hubserver.xorb_bytes import shard

    xorb, sha256 = "0123456789abcdef" * 4, "fedcba9876543210" * 4
    term = (xorb, 300, 0, 2)
    return {
        "seed-0": shard((sha256, [term]), (None, [term, term])),
        "seed-1": shard((sha256, [term]), verified=False),
        "seed-2": shard(),
    }


TARGETS = (
    Target("xorb", _xorb, _xorbs, ("XETBLOB", "\x04\x22\x4d\x18")),
    Target("shard", _shard, _shards, ("HFRepoMetaData\0",)),
)
