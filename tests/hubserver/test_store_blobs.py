"""The bytes of files: whole under their sha256, or not there."""

import hashlib
import os
import stat
import time
from pathlib import Path

import pytest

from moehub.hubserver.store.blobs import Blob, Blobs


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path)


def blob_of(content: bytes) -> Blob:
    return Blob(hashlib.sha256(content).hexdigest(), len(content))


def test_bytes_get_their_place_by_their_sha256(blobs: Blobs) -> None:
    """In pieces of any size; nobody can write to them afterwards."""
    with blobs.receiving() as incoming:
        for piece in (b"the ", b"", b"lessee"):
            incoming.write(piece)
        blob = incoming.finish()
        blobs.keep(incoming.path, blob)
    assert blob == blob_of(b"the lessee")
    assert blobs.path(blob.sha256) == blobs.folder / blob.sha256[:2] / blob.sha256
    assert blobs.path(blob.sha256).read_bytes() == b"the lessee"
    assert stat.S_IMODE(blobs.path(blob.sha256).stat().st_mode) == 0o440
    assert list(blobs.incoming_folder.iterdir()) == []


def test_what_was_not_kept_is_gone(blobs: Blobs) -> None:
    """A connection that breaks leaves nothing."""

    def receive() -> None:
        with blobs.receiving() as incoming:
            incoming.write(b"half")
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        receive()
    assert list(blobs.incoming_folder.iterdir()) == []


def test_a_short_write_is_continued(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk may take fewer bytes than it is given."""
    with blobs.receiving() as incoming:

        class Slow:
            def __init__(self, file: object) -> None:
                self.file = file

            def write(self, data: memoryview) -> int:
                return self.file.write(data[:3])  # type: ignore[attr-defined]

            def __getattr__(self, name: str) -> object:
                return getattr(self.file, name)

        monkeypatch.setattr(incoming, "_file", Slow(incoming._file))
        incoming.write(b"the lessee")
        assert incoming.finish() == blob_of(b"the lessee")
        assert incoming.path.read_bytes() == b"the lessee"


def test_only_files_of_their_size_are_intact(blobs: Blobs) -> None:
    """What is missing, or was cut off by a broken disk, is not."""
    with blobs.receiving() as incoming:
        incoming.write(b"bytes")
        blobs.keep(incoming.path, incoming.finish())
    assert blobs.intact(blob_of(b"bytes"))
    blobs.path(blob_of(b"bytes").sha256).chmod(0o640)
    blobs.path(blob_of(b"bytes").sha256).write_bytes(b"byte")
    assert not blobs.intact(blob_of(b"bytes"))
    assert not blobs.intact(blob_of(b"never seen"))


def test_abandoned_is_what_nobody_writes_to_any_more(blobs: Blobs) -> None:
    """Counted from the last byte."""
    with blobs.receiving() as old, blobs.receiving() as new:
        os.utime(old.path, (time.time() - 100, time.time() - 100))
        assert blobs.abandoned(50) == [old.path]
        assert blobs.abandoned(200) == []
        old.write(b"more")
        assert blobs.abandoned(50) == []
        assert new.path.exists()
