"""`moehub keys trust`: pin a publisher's key."""

import dataclasses
from pathlib import Path

import click

from moehub import files
from moehub.cli import options


@click.command("trust")
@click.argument("publisher", metavar="PUBLISHER")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Pin this key in place of the one that is pinned.")
@options.as_json
def command(*, publisher: str, file: Path, replace: bool, as_json: bool) -> None:
    """Pin the public key in FILE for PUBLISHER: an org, or a single repo as org/name.

    From then on, what comes from there is refused unless this key signed every file of it. Compare the fingerprint
    that is shown with the one that the publisher tells you by another way. The key of a repo goes before the one of
    its org.

    \b
    Example:
      moehub keys trust acme acme.pub
      moehub keys trust acme/law law.pub --replace
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.signing import keys
    from moehub.signing.keyring import Keyring

    pin = Keyring.open_default().pin(publisher, keys.read_public(file), replace=replace)
    if as_json:
        click.echo(files.to_json({**dataclasses.asdict(pin), "fingerprint": pin.fingerprint}), nl=False)
    else:
        click.echo(f"{pin.publisher} must sign with {pin.fingerprint}")
