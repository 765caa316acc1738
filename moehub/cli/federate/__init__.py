"""`moehub federate`: contributors train experts together, and keep their text."""

import click

from moehub.cli.lazy import Lazy

COMMANDS = {
    "up": ("moehub.cli.federate.up", "Run a whole federation on this machine."),
    "push": ("moehub.cli.federate.push", "Publish the finished experts to a hub."),
    "bundle": ("moehub.cli.federate.bundle", "Make the folder that `flwr run` takes."),
}
"""Name → the module that holds the command as `command`, and the line that `moehub federate --help` shows."""


@click.group("federate", cls=Lazy, modules=COMMANDS)
def command() -> None:
    """Train experts together with others: adapters and counts travel, text never does.

    \b
    Example:
      moehub federate up --nodes nodes.yaml --output federation
      moehub federate push federation acme
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
