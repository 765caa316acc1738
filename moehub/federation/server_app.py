"""Flower's ServerApp: reads the run's configuration and runs it."""

import os
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from moehub.federation.form import Form
from moehub.federation.server.roster import Registry
from moehub.federation.server.run import run
from moehub.federation.settings import unflatten

OUTPUT = "MOEHUB_FEDERATION_OUTPUT"
"""Where the run is written to, where its configuration does not say."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation that the run's configuration describes.

    Raises:
        ConfigError: the configuration is none that `moehub federate` makes.
        FederationError: the run could not be finished; the journal says so too.
    """
    given: dict[str, Any] = dict(context.run_config)
    registry = str(given.get("registry", ""))
    run(
        grid,
        unflatten(given),
        Form.from_json(str(given.get("form", ""))),
        Path(str(given.get("output", "")) or os.environ.get(OUTPUT) or "federation"),
        resume=bool(given.get("resume", False)),
        overwrite=bool(given.get("overwrite", False)),
        expected=int(given.get("expected", 0)),
        registry=Registry(Path(registry)) if registry else None,
    )
