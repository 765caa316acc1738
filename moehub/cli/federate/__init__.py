"""`moehub federate`: contributors train experts together, and keep their text."""

import click

from moehub.cli.lazy import Lazy

COMMANDS = {
    "up": ("moehub.cli.federate.up", "Run a whole federation on this machine."),
    "server": ("moehub.cli.federate.server", "Serve a federation whose nodes are elsewhere."),
    "invite": ("moehub.cli.federate.invite", "Write what a contributor needs to find the server."),
    "register": ("moehub.cli.federate.register", "Let a node in, by its public key."),
    "unregister": ("moehub.cli.federate.unregister", "Shut a node out."),
    "run": ("moehub.cli.federate.run", "Hand a run to the server."),
    "status": ("moehub.cli.federate.status", "Show the nodes, the run and its rounds."),
    "stop": ("moehub.cli.federate.stop", "Stop a run, or the server."),
    "logs": ("moehub.cli.federate.logs", "Show what the server's processes wrote."),
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
