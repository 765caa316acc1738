"""`moehub hub serve`: a hub of one's own."""

from pathlib import Path

import click

from moehub.cli import size
from moehub.cli.hub.root import root


@click.command("serve")
@root
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0: everywhere.")
@click.option("--port", type=click.IntRange(0, 65535), default=8731, show_default=True, help="Port to listen at.")
@click.option(
    "--open/--tokens",
    "open_",
    default=False,
    help="Let everybody on this machine do everything, or only who has a token for it.  [default: --tokens]",
)
@click.option("--url", metavar="URL", help="What others call the hub, where a proxy stands in front of it.")
@click.option(
    "--quota", callback=size.read, metavar="SIZE", help="What one namespace may hold: 500G.  [default: no limit]"
)
@click.option("--allow-pickle", is_flag=True, help="Take files that can run code when they are loaded, too.")
@click.option(
    "--base",
    "bases",
    multiple=True,
    metavar="REF",
    help="A base, as a folder or a repo of this hub: the gate then measures what its experts do. Repeat it.",
)
@click.option(
    "--null",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Generic text: what the gate measures experts on that none should answer; needs --base.",
)
@click.option("--no-gate", is_flag=True, help="Take experts that nobody checked.")
def command(
    *,
    root: Path,
    host: str,
    port: int,
    open_: bool,
    url: str | None,
    quota: int | None,
    allow_pickle: bool,
    bases: tuple[str, ...],
    null: Path | None,
    no_gate: bool,
) -> None:
    """Serve a hub until Ctrl-C, for moehub and for every client of the Hugging Face Hub.

    Everybody may read what is public; who writes needs a token. With --open nobody needs one, which is why such a hub
    listens to this machine alone. Every expert that is pushed has to pass the admission gate.

    \b
    Example:
      moehub hub serve --root hub --open
      moehub hub serve --root /srv/hub --url https://hub.example.org --quota 500G
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.hubserver.serve import serve
    from moehub.hubserver.settings import ServerSettings

    serve(
        ServerSettings(
            root,
            host=host,
            port=port,
            open=open_,
            url=url,
            quota=quota,
            pickles=allow_pickle,
            gate=not no_gate,
            bases=bases,
            null=null,
        )
    )
