import os
from pathlib import Path

import pytest

from moehub import digests, files

LARGE = 1 << 16


def large(folder: Path, letter: str = "a") -> Path:
    path = folder / "file"
    path.write_bytes(letter.encode() * LARGE)
    return path


def test_a_large_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time the digest is known; a file of the same size that was written since is read again."""
    path, read, original = large(tmp_path), list[Path](), files.sha256

    def counted(path: Path) -> str:
        read.append(path)
        return original(path)

    monkeypatch.setattr(files, "sha256", counted)
    first = digests.sha256(path)
    assert (digests.sha256(path), len(read)) == (first, 1)
    assert digests.sha256(large(tmp_path, "b")) != first
    assert len(read) == 2


def test_a_file_that_took_anothers_place_is_read(tmp_path: Path) -> None:
    """Size and time may be those of the file before: the inode is not."""
    path = large(tmp_path)
    first, stamp = digests.sha256(path), path.stat()
    other = tmp_path / "other"
    other.write_bytes(b"b" * LARGE)
    os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    other.replace(path)
    assert digests.sha256(path) != first


def test_small_files_are_always_read(tmp_path: Path) -> None:
    """A card or a configuration costs nothing to read."""
    path = tmp_path / "small"
    path.write_text("a", encoding="ascii")
    first, stamp = digests.sha256(path), path.stat()
    path.write_text("b", encoding="ascii")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert digests.sha256(path) != first


def test_a_noted_digest_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who wrote a file from verified bytes notes its digest, and nobody reads it for that again."""
    path = large(tmp_path)
    digest = files.sha256(path)
    digests.note_sha256(path, digest)
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail(f"{path} was read"))
    assert digests.sha256(path) == digest


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then every file is read every time."""
    blocked = tmp_path / "blocked"
    blocked.write_text("", encoding="ascii")
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(blocked))
    path = large(tmp_path)
    assert digests.sha256(path) == digests.sha256(path) == files.sha256(path)
