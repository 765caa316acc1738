"""A server's folder and a federation's settings, for the tests of what is done with them."""

from pathlib import Path

import pytest

from moehub.federation.deploy.server_folder import ServerFolder
from tests.federation.served import federation, served


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    return served(tmp_path / "server")


@pytest.fixture
def settings(tmp_path: Path, base_folder: Path) -> Path:
    return federation(tmp_path / "federation.yaml", base_folder)
