"""`moehub hub`: run a hub of one's own, and look after it."""

import click

from moehub.cli.lazy import Lazy

COMMANDS = {
    "serve": ("moehub.cli.hub.serve", "Serve a hub of your own until Ctrl-C."),
    "token": ("moehub.cli.hub.token", "Say who may do what on the hub."),
    "fsck": ("moehub.cli.hub.fsck", "Check everything that the hub holds."),
    "gc": ("moehub.cli.hub.gc", "Remove files that no commit refers to."),
    "backup": ("moehub.cli.hub.backup", "Copy the hub to another folder while it serves."),
}
"""Name → the module that holds the command as `command`, and the line that `moehub hub --help` shows."""


@click.group("hub", cls=Lazy, modules=COMMANDS)
def command() -> None:
    """Run a hub of your own, which the unmodified Hugging Face client can use.

    \b
    Example:
      moehub hub serve --root hub --open
      moehub push law acme/law --hub http://127.0.0.1:8731
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
