"""The bytes of files, by sha256: each written once, beside its place, flushed to disk, and then renamed.

The order is what makes a power loss harmless. First the bytes are flushed (`Incoming.finish`), so that no name can ever
stand for fewer; then the rename, then the folder that holds the name (`Blobs.keep`); only then does the database commit
the row that refers to it, and its log is flushed by that. Whatever is lost is lost from the end.

blobs/ab/abcdef…     the bytes; never changed afterwards
incoming/…           bytes on their way in; leftovers of a broken connection or a killed server are removed later
"""

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from moehub import files
from moehub.hubserver.refusals import disk_in_sentences


@dataclass(frozen=True)
class Blob:
    """Bytes that the hub holds."""

    sha256: str
    size: int


class Incoming:
    """Bytes on their way in, hashed as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._file = path.open("xb", buffering=0)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes."""
        self._sha256.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) or 0 :]
        self.size += len(data)

    def finish(self) -> Blob:
        """Flush everything to disk and return what it is; nothing can be appended afterwards."""
        os.fsync(self._file.fileno())
        self._file.close()
        return Blob(self._sha256.hexdigest(), self.size)

    def close(self) -> None:
        """Close the file and remove it, unless it has become a blob."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Blobs:
    """The folder of blobs."""

    def __init__(self, root: Path) -> None:
        self.folder, self.incoming_folder = root / "blobs", root / "incoming"
        for folder in (self.folder, self.incoming_folder):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Return where a blob lies, if it is there."""
        return self.folder / sha256[:2] / sha256

    @contextlib.contextmanager
    def receiving(self) -> Iterator[Incoming]:
        """Yield a place to write bytes to; what has not been kept when the block ends is removed.

        Raises:
            RefusedError: the disk is full, or cannot be written to.
        """
        with disk_in_sentences():
            incoming = Incoming(self.incoming_folder / secrets.token_hex(16))
            try:
                yield incoming
            finally:
                incoming.close()

    def keep(self, incoming: Path, blob: Blob) -> None:
        """Give finished bytes their place; only within a transaction, so that no collection comes in between."""
        self.keep_all({blob: incoming})

    def keep_all(self, finished: Mapping[Blob, Path]) -> None:
        """Give the finished bytes of several blobs their places; only within a transaction, too."""
        places = {blob: self.path(blob.sha256) for blob in finished}
        folders = sorted({place.parent for place in places.values()})
        for folder in folders:
            folder.mkdir(exist_ok=True)
        if folders:
            # Whoever made one may have been killed before its name was flushed: it is cheap to do it again.
            files.flush(self.folder)
        for blob, incoming in finished.items():
            incoming.chmod(0o440)
            incoming.replace(places[blob])
        for folder in folders:
            files.flush(folder)

    def intact(self, blob: Blob) -> bool:
        """Return whether the bytes are there, as far as their size tells."""
        try:
            return self.path(blob.sha256).stat().st_size == blob.size
        except FileNotFoundError:
            return False

    def abandoned(self, older_than: float) -> list[Path]:
        """Return bytes on their way in whose sender has been silent for `older_than` seconds."""
        found = []
        for path in sorted(self.incoming_folder.iterdir()):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - older_than:
                    found.append(path)
        return found
