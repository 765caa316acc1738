"""The folder that the demo fills: made empty first, so that nothing stale is ever shown.

base/             the base
generic.txt       the prose that the null expert's statistics come from
federation/       the run, its journal and the experts as they came from it, where nodes trained them together
hub/              the hub's folder: `moehub hub serve --root hub --open` opens it again
experts/NAME/     the experts, as they came from the hub
moe/              the MoE of the four
report.json       the numbers
report.html       the same as one page
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from moehub import files
from moehub.errors import ConfigError

_MARK = ".moehub-demo"


@dataclass(frozen=True)
class Place:
    """The demo's output folder."""

    folder: Path

    @property
    def base(self) -> Path:
        """The base."""
        return self.folder / "base"

    @property
    def generic(self) -> Path:
        """The prose for the null expert."""
        return self.folder / "generic.txt"

    @property
    def federation(self) -> Path:
        """The federation's run."""
        return self.folder / "federation"

    @property
    def hub(self) -> Path:
        """The hub's folder."""
        return self.folder / "hub"

    @property
    def moe(self) -> Path:
        """The MoE."""
        return self.folder / "moe"

    @property
    def json(self) -> Path:
        """The numbers."""
        return self.folder / "report.json"

    @property
    def html(self) -> Path:
        """The page."""
        return self.folder / "report.html"

    def expert(self, name: str) -> Path:
        """Return where the expert `name` is."""
        return self.folder / "experts" / name


def make_place(folder: Path) -> Place:
    """Return `folder` as a place with nothing in it; what an earlier demo left there is removed.

    Raises:
        ConfigError: something else than a demo stands there.
    """
    place = Place(folder.absolute())
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / _MARK).is_file())):
        raise ConfigError(
            f"{folder} holds something else than a demo, expected an empty folder or an earlier demo's: "
            "choose another --output"
        )
    for path in (place.json, place.html, place.generic):
        path.unlink(missing_ok=True)
    for old in (place.base, place.federation, place.hub, place.moe, place.folder / "experts"):
        if old.exists():
            shutil.rmtree(old)
    files.write_text(place.folder / _MARK, "made by `moehub demo`, which empties this folder when it is run again\n")
    return place
