"""`moehub keys untrust`: forget a publisher's key."""

import click


@click.command("untrust")
@click.argument("publisher", metavar="PUBLISHER")
def command(*, publisher: str) -> None:
    """Forget the key that is pinned for PUBLISHER, an org or org/name: no signature is asked of it any more.

    \b
    Example:
      moehub keys untrust acme
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.signing.keyring import Keyring

    pin = Keyring.open_default().unpin(publisher)
    click.echo(f"{pin.publisher} need not sign any more; the key was {pin.fingerprint}")
