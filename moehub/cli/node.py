"""`moehub node`: take part in a federation with text that stays here."""

from pathlib import Path

import click

from moehub.console import console

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("node")
@click.option("--superlink", metavar="HOST:PORT", help="The server.  [default: the one in the invitation]")
@click.option("--invitation", "invited", type=_FILE, help="What `moehub federate invite` wrote.")
@click.option("--domain", required=True, help="What the text is about.")
@click.option("--data", multiple=True, required=True, type=_FILE, help="Text, as for train-expert. Repeat it.")
@click.option("--name", default="", help="What this node is called here; published only with --credit.")
@click.option("--credit", is_flag=True, help="Let the name be published with the expert.")
@click.option("--base", default="", metavar="MODEL", help="Where the base is: a folder, or org/name on a hub.")
@click.option("--rank", type=click.IntRange(min=0), default=0, help="A smaller rank, where memory is small.")
@click.option("--accumulation", type=click.IntRange(min=0), default=0, help="More, smaller batches in a step.")
@click.option("--gradient-checkpointing", is_flag=True, help="Less memory, more time.")
@click.option(
    "--suppress-below",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Counts of tokens below this never leave this machine.",
)
@click.option("--key", type=click.Path(dir_okay=False, path_type=Path), help="Private key.  [default: STATE/key]")
@click.option("--root-certificates", "authority", type=_FILE, help="What the server is known by, in PEM.")
@click.option("--insecure", is_flag=True, help="No TLS and no key, for a server on this machine.")
@click.option(
    "--state",
    envvar="MOEHUB_NODE_STATE",
    show_envvar=True,
    default=Path("moehub-node"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of this node: key, logs, work in progress.",
)
def command(
    *,
    superlink: str | None,
    invited: Path | None,
    domain: str,
    data: tuple[Path, ...],
    name: str,
    credit: bool,
    base: str,
    rank: int,
    accumulation: int,
    gradient_checkpointing: bool,
    suppress_below: int,
    key: Path | None,
    authority: Path | None,
    insecure: bool,
    state: Path,
) -> None:
    """Take part in a federation until Ctrl-C: train for it on this machine, with text that never leaves it.

    At the first start a key is made, whose public half the server's operator has to let in. After that, what leaves
    this machine is adapters and counts of tokens, when the server asks for them.

    \b
    Example:
      moehub node --invitation invitation.json --domain law --data north.jsonl --name "St Mary" --credit
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.federation.deploy import contributor_node, enlisting
    from moehub.federation.settings import NodeConfig

    node = NodeConfig(
        domain=domain,
        data=tuple(path.absolute() for path in data),
        name=name,
        credit=credit,
        base=str(Path(base).absolute()) if base and Path(base).is_dir() else base,
        rank=rank,
        accumulation=accumulation,
        gradient_checkpointing=gradient_checkpointing,
        suppress_below=suppress_below,
    )
    contribution = enlisting.enlist(
        node, state, superlink=superlink, invited=invited, key=key, authority=authority, insecure=insecure
    )
    try:
        if contributor_node.prepare(contribution, say=_say):
            contributor_node.run(contribution, state, say=_say)
    except KeyboardInterrupt:
        _say("the node has ended; its key stays registered")


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
