"""`moehub keys create`: a key pair of one's own."""

from pathlib import Path

import click

from moehub import files
from moehub.cli import options


@click.command("create")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@options.as_json
def command(*, file: Path | None, as_json: bool) -> None:
    """Make a key pair: FILE signs and is for you alone, FILE.pub is for everybody who is to trust you.

    Without FILE it is made where `moehub push --sign` looks for it. No key is ever overwritten, and nothing is sent
    anywhere. Give others FILE.pub, and the fingerprint by another way, so that they can compare.

    \b
    Example:
      moehub keys create
      moehub keys create acme.key
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.signing import keys
    from moehub.signing.keyring import Keyring

    key = file or Keyring.open_default().own
    fingerprint = keys.fingerprint(keys.create(key))
    if as_json:
        made = {"private": str(key), "public": str(keys.public_file(key)), "fingerprint": fingerprint}
        click.echo(files.to_json(made), nl=False)
    else:
        click.echo(f"{key} signs: keep it to yourself\n{keys.public_file(key)} is for others\n{fingerprint}")
