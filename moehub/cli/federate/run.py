"""`moehub federate run`: hand a run to a server."""

from pathlib import Path

import click

from moehub.cli.federate.state import state
from moehub.console import console


@click.command("run")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@state
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the server writes.  [default: a new folder in STATE/runs]",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting, as rounds=5 or train.rank=8; an unknown KEY lists all. Repeat it.",
)
@click.option("--expect", type=click.IntRange(min=0), default=0, help="Nodes to wait for before the first round.")
@click.option("--resume", is_flag=True, help="Go on with the last run, from its last checkpoint.")
@click.option("--overwrite", is_flag=True, help="Begin anew, and replace the experts in the output.")
@click.option("--follow", is_flag=True, help="Show the run until its end; Ctrl-C leaves it running.")
def command(
    *,
    file: Path,
    state: Path,
    output: Path | None,
    assignments: tuple[str, ...],
    expect: int,
    resume: bool,
    overwrite: bool,
    follow: bool,
) -> None:
    """Hand the run of the federation in FILE to the server, and print where it writes.

    The server does one run at a time. It trains with the nodes that are connected, and with those that come later;
    `moehub federate status` shows how it stands, `moehub federate push` publishes its experts.

    \b
    Example:
      moehub federate run federation.yaml --set rounds=5 --follow
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub import config
    from moehub.errors import FederationError
    from moehub.federation.deploy import handover
    from moehub.federation.deploy.control import Control
    from moehub.federation.deploy.overseer import FINISHED
    from moehub.federation.deploy.progress import Progress
    from moehub.federation.deploy.server_folder import ServerFolder
    from moehub.federation.settings import read_federation

    settings = read_federation(file, **config.assigned(assignments))
    folder = ServerFolder(state.absolute())
    folder.serving()
    job = handover.hand_over(
        folder,
        Control(folder.place / "home"),
        settings,
        output=output,
        resume=resume,
        overwrite=overwrite,
        expected=expect,
    )
    click.echo(job.output)
    if not follow:
        return
    try:
        with Progress() as progress:
            progress.now("waiting for the nodes")
            outcome = handover.follow(folder, job, progress.show)
    except KeyboardInterrupt:
        console.print("the run goes on; stop it with `moehub federate stop`", markup=False, soft_wrap=True)
        return
    if outcome != FINISHED:
        raise FederationError(f"run {job.number}: {outcome}")
