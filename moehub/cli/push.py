"""`moehub push`: publish an expert or a MoE."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moehub import console, files
from moehub.cli import options

if TYPE_CHECKING:
    from moehub.hub.parcel import Parcel


@click.command("push")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("repo", metavar="REPO")
@options.hub
@click.option("--message", metavar="TEXT", default="Publish with moehub", show_default=True, help="What is new.")
@click.option("--private", is_flag=True, help="Make a new repo private.")
@options.sign
@options.key
@click.option("--dry-run", is_flag=True, help="Check the folder and say what would be sent; send nothing.")
@options.as_json
def command(
    *,
    folder: Path,
    repo: str,
    hub: str | None,
    message: str,
    private: bool,
    sign: bool,
    key: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publish the expert or MoE in DIR as the newest commit of REPO, an org/name.

    Every file is checked against the expert's card first, and nothing but the files of an expert or a MoE is
    sent. The model card, README.md, is written from the expert's card; text of your own in it is kept. The same
    files again make no new commit. Where the hub holds another expert of the same version or a newer one, the version
    in DIR is raised first. With --sign, a signature over every file is written into DIR and sent along.

    \b
    Example:
      moehub push law acme/law
      moehub push law acme/law --hub /srv/experts
      moehub push law acme/law --sign
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.hub import check_repo, open_hub
    from moehub.hub.parcel import pack
    from moehub.signing.keyring import Keyring

    signing = Keyring.open_default().signing_key(key) if sign or key else None
    target, packed = open_hub(hub), pack(folder)
    for note in packed.notes:
        console.console.print(f"note: {note}", markup=False)
    if dry_run:
        _show_plan(packed, check_repo(repo), target.location, as_json=as_json)
        if signing:
            console.console.print(f"it would be signed with {signing}", markup=False)
        return
    published = target.push(folder, repo, message=message, private=private, key=signing)
    if as_json:
        click.echo(files.to_json({**dataclasses.asdict(published), "hub": target.location}), nl=False)
    else:
        click.echo(f"{published.repo}@{published.commit}\n{published.url}")


def _show_plan(packed: "Parcel", repo: str, hub: str, *, as_json: bool) -> None:
    digests = packed.digests()
    if as_json:
        plan = {"repo": repo, "hub": hub, "kind": packed.kind, "name": packed.name, "files": digests}
        click.echo(files.to_json({**plan, "bytes": packed.size}), nl=False)
        return
    for name, digest in sorted(digests.items()):
        click.echo(f"{digest[:12]}  {name}")
    click.echo(f"would push the {packed.kind} {packed.name}, {packed.size:,} bytes, to {repo} on {hub}")
