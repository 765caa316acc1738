"""`moehub pull`: fetch an expert or a MoE."""

from pathlib import Path

import click

from moehub import files
from moehub.cli import options


@click.command("pull")
@click.argument("reference", metavar="REPO[@REV]")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@options.hub
@options.as_json
def command(reference: str, folder: Path, hub: str | None, as_json: bool) -> None:
    """Fetch the expert or MoE in REPO, an org/name, into DIR; REV is a branch, a tag or a commit.

    Every file is checked: against the hub's hash, and against the expert's card. DIR appears whole or stays as it
    was; an expert or a MoE that stood there is replaced, anything else is not. What a publisher did not sign whose key
    is pinned (`moehub keys`) is refused, and so is an expert that is older than one seen before, unless REV names it.

    \b
    Example:
      moehub pull acme/law law
      moehub pull acme/law@v1.0 law --hub https://hub.example.org
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.hub import open_hub, split_reference

    repo, revision = split_reference(reference)
    source = open_hub(hub)
    commit = source.pull(repo, revision, folder)
    if as_json:
        result = {"repo": repo, "commit": commit, "hub": source.location, "folder": str(folder)}
        click.echo(files.to_json(result), nl=False)
    else:
        click.echo(f"{repo}@{commit} is in {folder}, every file verified")
