"""`moehub data`: text before it is learned from."""

import click

from moehub.cli.lazy import Lazy

COMMANDS = {
    "check": ("moehub.cli.data.check", "Say what is wrong with records, and leave it out."),
    "dedup": ("moehub.cli.data.dedup", "Leave out what repeats another record, here or at others."),
    "mix": ("moehub.cli.data.mix", "Draw one file out of several, each with its share."),
    "split": ("moehub.cli.data.split", "Part records into those to train on and those to test with."),
    "synth": ("moehub.cli.data.synth", "Have a model write records, beginning with seeds."),
    "preferences": ("moehub.cli.data.preferences", "Have two answers written to each prompt, and judged."),
}
"""Name → the module that holds the command as `command`, and the line that `moehub data --help` shows."""


@click.group("data", cls=Lazy, modules=COMMANDS)
def command() -> None:
    """Look after text before it is learned from.

    Nothing leaves this machine, unless synth or preferences are given the address of a server.

    Files are .txt, .jsonl, .json or .parquet, as `moehub train-expert` reads them; - is standard input. Records keep
    all of their fields.

    \b
    Example:
      moehub data check law.jsonl --against law.test.jsonl --clean law.clean.jsonl
      moehub data dedup law.clean.jsonl --output law.once.jsonl
      moehub data split law.once.jsonl --train law.train.jsonl --test law.held.jsonl
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
