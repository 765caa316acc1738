"""The publishers' keys that are trusted on this machine.

    KEYS/key, KEYS/key.pub        our own pair, which `push --sign` signs with
    KEYS/trusted/acme.json        the key of whatever acme publishes
    KEYS/trusted/acme--law.json   the key of the one repo acme/law, which goes before the one of acme

KEYS is what the variable MOEHUB_KEYS names, else ~/.config/moehub/keys. Each pin is a file of its own, so that it
appears whole or not at all. Upper and lower case are one: hubs take acme/law for Acme/Law.
"""

import datetime as dt
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from moehub import config, files
from moehub.errors import ConfigError, HubError, SigningError
from moehub.hub import check_repo
from moehub.signing import keys

VARIABLE = "MOEHUB_KEYS"
_FORMAT = 1
_BETWEEN = "--"
"""Between org and name: neither can hold it."""


@dataclass(frozen=True)
class Pin:
    """One publisher's key, as it is trusted here."""

    publisher: str
    """`org`, or `org/name` for one repo; in lower case."""
    since: str
    """When it was pinned: date and time in UTC, ISO 8601."""
    key: str
    """The public key, in PEM."""
    format: int = _FORMAT

    @property
    def fingerprint(self) -> str:
        """The sha256 of the key, in hex."""
        return keys.fingerprint(self.key)


@dataclass(frozen=True)
class Keyring:
    """Which key may sign for which publisher: a folder."""

    folder: Path

    @classmethod
    def open_default(cls) -> "Keyring":
        """Return this user's keyring; nothing is read before it is asked, and a missing folder holds no keys."""
        named = os.environ.get(VARIABLE)
        return cls(Path(named).expanduser() if named else Path.home() / ".config" / "moehub" / "keys")

    @property
    def own(self) -> Path:
        """Where our own private key lies, if we made one."""
        return self.folder / "key"

    def signing_key(self, named: Path | None) -> Path:
        """Return the private key in the file `named`, or our own where that is None.

        Raises:
            SigningError: there is none, or it cannot sign.
        """
        key = named or self.own
        keys.read_private(key)
        return key

    def pins(self) -> list[Pin]:
        """Return every pinned key, in the order of publishers.

        Raises:
            SigningError: a file is damaged.
        """
        pinned = sorted(self._trusted.glob("*.json")) if self._trusted.is_dir() else []
        found = [_read(path) for path in pinned if not path.name.startswith(".")]
        return sorted(found, key=lambda pin: pin.publisher)

    def pin(self, publisher: str, key: str, *, replace: bool = False) -> Pin:
        """Trust a public key in PEM for what `publisher` (`org` or `org/name`) publishes, and return the pin.

        Raises:
            SigningError: another key is pinned for it and is not to be replaced, or no publisher has such a name.
        """
        publisher = check_publisher(publisher)
        before = self.pinned(publisher)
        if before and before.key == key:
            return before
        if before and not replace:
            raise SigningError(
                f"{publisher} has the key {before.fingerprint} since {before.since}, this is {keys.fingerprint(key)}: "
                "ask the publisher whether the key was changed, and if so use --replace"
            )
        made = Pin(publisher, dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), key)
        self._trusted.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_text(self._path(publisher), files.to_json(asdict(made)))
        return made

    def unpin(self, publisher: str) -> Pin:
        """Trust a publisher's key no longer, and return what was pinned.

        Raises:
            SigningError: no key is pinned for exactly this publisher.
        """
        publisher = check_publisher(publisher)
        found = self.pinned(publisher)
        if found is None:
            raise SigningError(f"no key is pinned for {publisher}: `moehub keys list` shows those that are")
        self._path(publisher).unlink()
        return found

    def pinned(self, publisher: str) -> Pin | None:
        """Return the key pinned for exactly this `org` or `org/name`.

        Raises:
            SigningError: its file is damaged, or no publisher has such a name.
        """
        path = self._path(check_publisher(publisher))
        return _read(path) if path.exists() else None

    def for_repo(self, repo: str) -> Pin | None:
        """Return the key that must have signed what `repo` (`org/name`) holds, or None where none is pinned.

        Raises:
            SigningError: its file is damaged: then nobody knows whose key it was.
        """
        return self.pinned(repo) or self.pinned(repo.partition("/")[0])

    @property
    def _trusted(self) -> Path:
        return self.folder / "trusted"

    def _path(self, publisher: str) -> Path:
        return self._trusted / f"{publisher.replace('/', _BETWEEN)}.json"


def check_publisher(publisher: str) -> str:
    """Return `org` or `org/name` in lower case if a hub could have such a publisher or repo.

    Raises:
        SigningError: it could not.
    """
    try:
        check_repo(publisher if "/" in publisher else f"{publisher}/any")
    except HubError as error:
        raise SigningError(
            f"{publisher!r} is no publisher, expected org or org/name, as in acme or acme/law"
        ) from error
    return publisher.lower()


def _read(path: Path) -> Pin:
    try:
        pin = config.from_mapping(Pin, json.loads(path.read_text(encoding="utf-8")), source=str(path))
    except (ValueError, RecursionError, ConfigError) as error:
        raise SigningError(f"{path} is no pinned key ({error}): remove it and pin the key again") from error
    misplaced = pin.publisher != path.stem.replace(_BETWEEN, "/") or pin.format != _FORMAT
    if misplaced or keys.parse_public(pin.key.encode(), source=str(path)) != pin.key:
        raise SigningError(f"{path} is not as `moehub keys trust` wrote it: remove it and pin the key again")
    return pin
