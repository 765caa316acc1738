"""`moehub federate stop`: stop a run, or the server."""

from pathlib import Path

import click

from moehub.cli.federate.state import state
from moehub.console import console


@click.command("stop")
@state
@click.option("--server", is_flag=True, help="End the server; a run in progress goes on at its next start.")
def command(*, state: Path, server: bool) -> None:
    """Stop the run in progress; its finished rounds are kept, and `moehub federate run --resume` goes on from there.

    In the output of `moehub federate up` it ends that command.

    \b
    Example:
      moehub federate stop
      moehub federate stop --server
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.federation.deploy import handover
    from moehub.federation.deploy.control import Control
    from moehub.federation.deploy.server_folder import ServerFolder

    folder = ServerFolder(state.absolute())
    if server or not folder.served:
        handover.end(folder)
        console.print("the server has ended" if folder.served else "the federation has ended", markup=False)
        return
    job = handover.take_back(folder, Control(folder.place / "home"))
    console.print(f"run {job.number} is stopped", markup=False)
