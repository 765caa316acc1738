"""The unmodified client, of every version that people have, with Xet and without.

`make test` runs the installed version. `make nightly` makes an environment for each of the others and names their
folder in MOEHUB_CLIENTS; each folder in it is an environment, called by the version of huggingface_hub in it.
"""

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

from moehub.hubserver import serve
from moehub.hubserver.settings import ServerSettings
from moehub.hubserver.store.store import open_store
from tests.hubserver.matrix.steps import STEPS

CLIENTS = Path(os.environ.get("MOEHUB_CLIENTS", "/nowhere")).absolute()
PYTHONS = {"installed": sys.executable} | {path.name: f"{path}/bin/python" for path in sorted(CLIENTS.glob("*.*"))}
DAY = dt.timedelta(days=1)


@pytest.mark.parametrize("xet", [True, False], ids=["xet", "lfs"])
@pytest.mark.parametrize("python", PYTHONS.values(), ids=PYTHONS)
def test_everything_that_people_do_works(python: str, xet: bool, tmp_path: Path) -> None:
    """Each step by itself, so that one run shows every fault of a version."""
    store = open_store(tmp_path / "root", create=True)
    _, ours = store.tokens.create("ada", ["acme"], writes=True, lifetime=DAY)
    _, theirs = store.tokens.create("bob", ["bob"], writes=True, lifetime=DAY)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON", "MOEHUB_"))}
    with serve.running(ServerSettings(tmp_path / "root", port=0, gate=False)) as url:
        environment = plain | {
            "HF_ENDPOINT": url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": ours,
            "STRANGER": theirs,
            "HF_HUB_DISABLE_XET": "0" if xet else "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        }
        program = Path(__file__).with_name("steps.py")
        ran = subprocess.run(
            [python, program, tmp_path], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout.splitlines()[-1])
    found = said["steps"]
    assert list(found) == list(STEPS)
    assert {name: went for name, went in found.items() if went not in ("ok", "not in this version")} == {}
    insists = Version(said["versions"]["huggingface_hub"]) >= Version("1.20")  # before, the client asks what we prefer
    assert (tmp_path / "root" / "xorbs").is_dir() is (xet and insists)
    store.database.close()
