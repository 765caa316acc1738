"""From what a contributor says on the command line, and what the invitation says, to what the node does."""

from pathlib import Path

from moehub import files
from moehub.card import check_name
from moehub.errors import ConfigError, ExpertError
from moehub.federation.deploy import address, invitation
from moehub.federation.deploy.contributor_node import Contribution
from moehub.federation.deploy.invitation import Invitation
from moehub.federation.deploy.reach import Way, context
from moehub.federation.settings import NodeConfig


def enlist(
    node: NodeConfig,
    folder: Path,
    *,
    superlink: str | None = None,
    invited: Path | None = None,
    key: Path | None = None,
    authority: Path | None = None,
    insecure: bool = False,
) -> Contribution:
    """Return what the node in `folder` does; what is said here counts more than what the invitation says.

    Raises:
        ConfigError: the invitation is none, or what is said contradicts itself or is not enough.
        FederationError: the authority's file holds no certificate.
    """
    found = invitation.read(invited) if invited is not None else Invitation(address="")
    if not (superlink or found.address):
        raise ConfigError("where is the server? Name it with --superlink HOST:PORT, or with --invitation FILE")
    try:
        check_name("domain", node.domain)
    except ExpertError as error:
        raise ConfigError(str(error)) from error
    if node.credit and not node.name:
        raise ConfigError("--credit publishes the node's name, and it has none: add --name")
    server = address.parse(superlink or found.address)
    insecure = insecure or found.insecure
    if insecure:
        _check_insecure(server, key, authority)
        return Contribution(node, Way(server, insecure=True), None, found.base)
    if authority is None and found.certificate:
        authority = folder.absolute() / "authority.crt"
        files.write_text(authority, found.certificate)
    if authority is not None:
        context(authority)
    return Contribution(
        node,
        Way(server, authority.absolute() if authority is not None else None),
        (key if key is not None else folder / "key").absolute(),
        found.base,
    )


def _check_insecure(server: address.Address, key: Path | None, authority: Path | None) -> None:
    if not server.loopback:
        raise ConfigError(
            f"--insecure is for a server on this machine, and {server} is not: leave out --insecure, and name the "
            "invitation that the server's operator gave you"
        )
    if key is not None or authority is not None:
        raise ConfigError("--insecure leaves TLS and keys out: leave out --key and --root-certificates")
