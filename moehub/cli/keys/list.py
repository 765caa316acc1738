"""`moehub keys list`: whose signatures count here."""

from typing import TYPE_CHECKING

import click

from moehub import console, files
from moehub.cli import options

if TYPE_CHECKING:
    from moehub.signing.keyring import Keyring


@click.command("list")
@options.as_json
def command(*, as_json: bool) -> None:
    """List the publishers whose keys are pinned, with fingerprints and since when, and the key of your own.

    \b
    Example:
      moehub keys list
      moehub keys list --json
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.signing.keyring import Keyring

    keyring = Keyring.open_default()
    pins, own = keyring.pins(), _own(keyring)
    if as_json:
        trusted = [{"publisher": pin.publisher, "fingerprint": pin.fingerprint, "since": pin.since} for pin in pins]
        click.echo(files.to_json({"own": own, "trusted": trusted}), nl=False)
        return
    for pin in pins:
        click.echo(f"{pin.fingerprint}  {pin.publisher}  since {pin.since}")
    if own:
        click.echo(f"{own}  your own")
    if not pins and not own:
        console.console.print(f"{keyring.folder} holds no keys", markup=False)


def _own(keyring: "Keyring") -> str | None:
    """Return the fingerprint of the user's own key, or None where there is none."""
    from moehub.signing import keys

    return keys.fingerprint(keys.read_private(keyring.own)) if keyring.own.exists() else None
