"""The Flower App: a folder with two files that `flwr run` takes. It carries configuration, and no code at all."""

from pathlib import Path

import tomli_w

from moehub import __version__, files
from moehub.errors import FederationError
from moehub.federation.deploy.guard import CLIENT, PYPROJECT, README, SERVER
from moehub.federation.form import Form
from moehub.federation.settings import FederationConfig, flatten

_TEXT = """# A moehub federation

This Flower App carries the settings of one federation of the base `{base}`, and no code: both ends run what their own
installed moehub {version} holds. Send it to a SuperLink whose nodes were started with `moehub node`:

    flwr run . CONNECTION --stream

A setting can be changed for one run, as in `--run-config "rounds=5"`; `output` is a folder on the server's machine.
"""


def write(
    folder: Path,
    settings: FederationConfig,
    form: Form,
    *,
    output: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    expected: int = 0,
    registry: Path | None = None,
) -> Path:
    """Write the app's folder and return it; a bundle that stood there is replaced.

    `output` is where the server writes, `expected` how many nodes it waits for, and `registry` the file that says
    which nodes were registered for what; see `moehub.federation.server_app`.

    Raises:
        FederationError: something else than a bundle stands there.
    """
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if (present and PYPROJECT not in present) or not present <= {PYPROJECT, README}:
        raise FederationError(f"{folder} holds something else than a bundle: name a new folder")
    run = {
        **flatten(settings),
        "form": form.to_json(),
        "output": "" if output is None else str(output.absolute()),
        "resume": resume,
        "overwrite": overwrite,
        "expected": expected,
        "registry": "" if registry is None else str(registry.absolute()),
    }
    with files.new_folder(folder) as building:
        (building / PYPROJECT).write_text(tomli_w.dumps(_project(run)), encoding="utf-8")
        (building / README).write_text(_TEXT.format(base=form.base.reference, version=__version__), encoding="utf-8")
    return folder


def _project(run: dict[str, str | int | float | bool]) -> dict[str, object]:
    app = {
        "publisher": "moehub",
        "fab-include": [README],
        "components": {"serverapp": SERVER, "clientapp": CLIENT},
        "config": run,
    }
    project = {
        "name": "federation",
        "version": __version__,
        "description": "The settings of a moehub federation",
        "license": "Apache-2.0",
        "dependencies": [],
    }
    return {"project": project, "tool": {"flwr": {"app": app}}}
