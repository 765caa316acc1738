"""`moehub federate push`: the finished experts go to a hub."""

import dataclasses
from pathlib import Path

import click

from moehub import files
from moehub.cli import options


@click.command("push")
@click.argument("output", metavar="OUTPUT", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("organisation", metavar="ORG")
@options.hub
@click.option("--message", metavar="TEXT", default="Publish with moehub", show_default=True, help="What is new.")
@click.option("--private", is_flag=True, help="Make new repos private.")
@options.sign
@options.key
@click.option("--dry-run", is_flag=True, help="Check the experts and say what would be sent; send nothing.")
@options.as_json
def command(
    *,
    output: Path,
    organisation: str,
    hub: str | None,
    message: str,
    private: bool,
    sign: bool,
    key: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publish every finished expert of the federation in OUTPUT as ORG/NAME.

    The cards say how many contributors trained it, in how many rounds and by which aggregation, and name those
    contributors who agreed to be named, nobody else. All experts are checked before the first is sent.

    \b
    Example:
      moehub federate push federation acme
      moehub federate push federation acme --hub /srv/experts --dry-run
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.federation.push import finished, push
    from moehub.hub import check_repo, open_hub
    from moehub.signing.keyring import Keyring

    signing = Keyring.open_default().signing_key(key) if sign or key else None
    target, experts = open_hub(hub), finished(output)
    if dry_run:
        for expert in experts:
            repo = check_repo(f"{organisation}/{expert.name}")
            click.echo(f"would push {expert.folder}, {expert.size:,} bytes, to {repo} on {target.location}")
        return
    published = push(experts, organisation, target, message=message, private=private, key=signing)
    if as_json:
        click.echo(files.to_json([{**dataclasses.asdict(one), "hub": target.location} for one in published]), nl=False)
        return
    for one in published:
        click.echo(f"{one.repo}@{one.commit}\n{one.url}")
