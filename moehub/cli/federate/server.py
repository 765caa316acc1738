"""`moehub federate server`: the server of a federation whose nodes are elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from moehub.cli.federate.state import state
from moehub.console import console

if TYPE_CHECKING:
    from moehub.federation.deploy.control import Control
    from moehub.federation.deploy.server_folder import ServerFolder

_PORT = 8443
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("server")
@click.argument("file", metavar="[FILE]", required=False, type=_FILE)
@state
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0: everywhere.")
@click.option("--port", type=click.IntRange(1, 65535), default=_PORT, show_default=True, help="Port to listen at.")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="HOST[:PORT]",
    help="What nodes call the server; the first one goes into invitations. Repeat it.",
)
@click.option("--certificate", type=_FILE, help="The certificate to show.  [default: one that is made]")
@click.option("--key", type=_FILE, help="Private key of --certificate.")
@click.option("--ca", "authority", type=_FILE, help="What nodes need to trust --certificate, or your proxy's.")
@click.option("--behind-proxy", is_flag=True, help="Leave the gateway out: your own proxy stands before the server.")
@click.option("--insecure", is_flag=True, help="No TLS and no keys; on loopback alone.")
@click.option("--expect", type=click.IntRange(min=0), default=0, help="Nodes that the run of FILE waits for.")
def command(
    *,
    file: Path | None,
    state: Path,
    host: str,
    port: int,
    addresses: tuple[str, ...],
    certificate: Path | None,
    key: Path | None,
    authority: Path | None,
    behind_proxy: bool,
    insecure: bool,
    expect: int,
) -> None:
    """Serve a federation until Ctrl-C; nodes connect with `moehub node`, when their keys were registered.

    Without a FILE, a run begins with `moehub federate run`. With one, its run begins at the first start. A run that
    was in progress when the server ended goes on at the next start.

    Only what nodes need is served at HOST:PORT, by TLS; all else of the server is on loopback. A certificate is made
    at the first start, and invitations carry its authority.

    \b
    Example:
      moehub federate server --host 0.0.0.0 --address fed.example.org
      moehub federate server federation.yaml --host 0.0.0.0 --address fed.example.org --state /srv/federation
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.federation.deploy import address, server

    offer = server.Offer(
        listen=address.parse(f"[{host}]" if ":" in host else host, port=port),
        public=tuple(address.parse(each, port=443 if behind_proxy else port) for each in addresses),
        certificate=certificate,
        key=key,
        authority=authority,
        behind_proxy=behind_proxy,
        insecure=insecure,
    )

    def begin(folder: "ServerFolder", control: "Control") -> None:
        from moehub.federation.deploy.handover import hand_over
        from moehub.federation.settings import read_federation

        if file is not None:
            job = hand_over(folder, control, read_federation(file), expected=expect)
            _say(f"run {job.number} begins; it writes to {job.output}")

    if file is not None:
        from moehub.federation.settings import read_federation

        read_federation(file)  # a fault in it is better told before anything is started
    try:
        server.serve(state, offer, say=_say, begin=begin)
    except KeyboardInterrupt:
        _say("the server has ended; a run in progress goes on at its next start")


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
