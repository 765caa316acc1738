"""Letting a node in, and shutting it out: by its public key, under a name and for a domain."""

from pathlib import Path

from moehub.card import check_name
from moehub.errors import ConfigError, ExpertError, FederationError
from moehub.federation.deploy import keys
from moehub.federation.deploy.control import Control
from moehub.federation.deploy.registry import Registry
from moehub.federation.deploy.server_folder import ServerFolder
from moehub.federation.server.roster import Registered

_LONGEST = 64


def register(path: Path, key: Path, *, name: str, domain: str) -> int:
    """Let the node with the public key in the file `key` in, and return Flower's id of it.

    A key that is registered already gets the new name and domain; it may be done while a run is in progress.

    Raises:
        ConfigError: the name or the domain is none.
        FederationError: the key is none, the name is another node's, or the server does not run.
    """
    folder = ServerFolder(path)
    _check(name, domain)
    if folder.serving().insecure:
        raise FederationError("this server takes no keys: start it without --insecure")
    line = keys.public(key)
    with folder.locked():
        registry = Registry(folder.registry, folder.keys)
        node, holder = registry.owner(line), registry.named(name)
        if holder is not None and holder != node:
            raise FederationError(f"another node is registered as {name!r}: choose another --name")
        if node is None:
            node = Control(folder.place / "home").register(key)
        registry.add(node, Registered(name, domain), line)
    return node


def unregister(path: Path, name: str) -> int:
    """Shut a node out, even if it is connected, and return Flower's id of it.

    Raises:
        FederationError: no node is registered under this name, or the server does not run.
    """
    folder = ServerFolder(path)
    folder.serving()
    with folder.locked():
        registry = Registry(folder.registry, folder.keys)
        node = registry.named(name)
        if node is None:
            known = ", ".join(sorted(each.name for each in registry.nodes().values())) or "nobody"
            raise FederationError(f"no node is registered as {name!r}; registered is {known}")
        Control(folder.place / "home").unregister(node)
        registry.remove(node)
    return node


def _check(name: str, domain: str) -> None:
    if not name.strip() or len(name) > _LONGEST or not name.isprintable():
        raise ConfigError(f"--name is {name!r:.80}, expected up to {_LONGEST} printable characters")
    try:
        check_name("domain", domain)
    except ExpertError as error:
        raise ConfigError(str(error)) from error
