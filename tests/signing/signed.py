"""Experts as they lie in a hub after `moehub push --sign`, without a hub."""

from dataclasses import dataclass
from pathlib import Path

from moehub.card import README, SIGNATURE_FILE
from moehub.hub.parcel import pack
from moehub.signing import keys, signature

REPO = "acme/law"


@dataclass(frozen=True)
class Publisher:
    """Somebody with a key pair."""

    key: Path
    public: str

    def sign(self, folder: Path, repo: str = REPO) -> Path:
        """Make of an expert's folder what is published as `repo`."""
        packed = pack(folder)
        text = signature.sign(packed.contents(), repo=repo, key=self.key, workspace=folder)
        (folder / README).write_text(packed.readme, encoding="utf-8")
        (folder / SIGNATURE_FILE).write_text(text, encoding="utf-8")
        return folder


def publisher(key: Path) -> Publisher:
    """Return who has the key pair at `key`, which is made if it is not there."""
    if not key.exists():
        keys.create(key)
    return Publisher(key, keys.read_private(key))
