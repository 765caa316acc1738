"""`moehub keys`: who signed an expert, and whose signatures count here."""

import click

from moehub.cli.lazy import Lazy

COMMANDS = {
    "create": ("moehub.cli.keys.create", "Make a key pair to sign what you publish."),
    "trust": ("moehub.cli.keys.trust", "Pin a publisher's public key: from then on it must have signed."),
    "untrust": ("moehub.cli.keys.untrust", "Forget a publisher's key."),
    "list": ("moehub.cli.keys.list", "List the pinned keys, and your own."),
}
"""Name → the module that holds the command as `command`, and the line that `moehub keys --help` shows."""


@click.group("keys", cls=Lazy, modules=COMMANDS)
def command() -> None:
    """Sign what you publish, and pin the keys of publishers whom you trust.

    The keys lie in the folder that the variable MOEHUB_KEYS names, else in ~/.config/moehub/keys.

    \b
    Example:
      moehub keys create
      moehub push law acme/law --sign
      moehub keys trust acme acme.pub
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
