"""`moehub hub token`: who may do what on a hub."""

import click

from moehub.cli.lazy import Lazy

COMMANDS = {
    "create": ("moehub.cli.hub.token.create", "Make a token and print it once."),
    "list": ("moehub.cli.hub.token.list", "List the tokens, without what is secret."),
    "revoke": ("moehub.cli.hub.token.revoke", "Make a token worthless at once."),
}
"""Name → the module that holds the command as `command`, and the line that `moehub hub token --help` shows."""


@click.group("token", cls=Lazy, modules=COMMANDS)
def command() -> None:
    """Say who may do what on a hub; it works while the hub serves.

    \b
    Example:
      moehub hub token create ada --namespace acme --write
      moehub hub token list
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
