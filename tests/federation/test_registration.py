import dataclasses
from pathlib import Path

import pytest

from moehub.errors import ConfigError, FederationError
from moehub.federation.deploy import (
    keys,
    registration,
)
from moehub.federation.deploy.control import Control
from moehub.federation.deploy.registry import Registry
from moehub.federation.deploy.server_folder import ServerFolder
from moehub.federation.server.roster import Registered
from moehub.federation.server.roster import Registry as RunsRegistry
from tests.federation.served import served


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    return served(tmp_path / "server")


@pytest.fixture
def numbered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let Flower give each key the next number, and return those that it forgot."""
    given, forgotten = iter(range(11, 99)), []
    monkeypatch.setattr(Control, "register", lambda *_: next(given))
    monkeypatch.setattr(Control, "unregister", lambda _, node: forgotten.append(node))
    return forgotten


@pytest.mark.usefixtures("numbered")
def test_a_registered_node_is_known_to_the_run_and_to_the_gateway(folder: ServerFolder, tmp_path: Path) -> None:
    """Each reads what it needs from the server's folder."""
    keys.ensure(tmp_path / "key")
    assert registration.register(folder.path, tmp_path / "key.pub", name="St Mary", domain="law") == 11
    assert RunsRegistry(folder.registry).get(11) == Registered("St Mary", "law")
    assert (folder.keys / "11.pub").read_text().strip() == keys.public(tmp_path / "key.pub")


@pytest.mark.usefixtures("numbered")
def test_a_key_that_is_registered_again_keeps_its_node(folder: ServerFolder, tmp_path: Path) -> None:
    """Only its name and domain change; another key cannot take the name."""
    for name in ("one", "two"):
        keys.ensure(tmp_path / name)
    assert registration.register(folder.path, tmp_path / "one.pub", name="North", domain="law") == 11
    assert registration.register(folder.path, tmp_path / "one.pub", name="North", domain="code") == 11
    with pytest.raises(FederationError, match="another node is registered as 'North'"):
        registration.register(folder.path, tmp_path / "two.pub", name="North", domain="law")
    assert Registry(folder.registry, folder.keys).nodes() == {11: Registered("North", "code")}


def test_a_node_that_is_shut_out_is_forgotten_everywhere(
    folder: ServerFolder, tmp_path: Path, numbered: list[int]
) -> None:
    """By Flower, by the run and by the gateway."""
    keys.ensure(tmp_path / "key")
    registration.register(folder.path, tmp_path / "key.pub", name="North", domain="law")
    with pytest.raises(FederationError, match="no node is registered as 'South'; registered is North"):
        registration.unregister(folder.path, "South")
    assert registration.unregister(folder.path, "North") == 11
    assert numbered == [11]
    assert Registry(folder.registry, folder.keys).nodes() == {}
    assert list(folder.keys.iterdir()) == []


@pytest.mark.parametrize(("name", "domain"), [("", "law"), ("a\nb", "law"), ("x" * 65, "law"), ("North", "../law")])
def test_names_are_names(folder: ServerFolder, tmp_path: Path, name: str, domain: str) -> None:
    """They become lines of a journal and folders."""
    keys.ensure(tmp_path / "key")
    with pytest.raises(ConfigError):
        registration.register(folder.path, tmp_path / "key.pub", name=name, domain=domain)


def test_a_server_without_keys_registers_none(folder: ServerFolder, tmp_path: Path) -> None:
    """It would have no effect."""
    folder.serve(dataclasses.replace(folder.serving(), insecure=True))
    keys.ensure(tmp_path / "key")
    with pytest.raises(FederationError, match="takes no keys: start it without --insecure"):
        registration.register(folder.path, tmp_path / "key.pub", name="North", domain="law")
