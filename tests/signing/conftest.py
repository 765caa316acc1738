from pathlib import Path

import pytest

from moehub.signing.keyring import Keyring
from tests.published import paper_expert
from tests.signing.signed import Publisher, publisher


@pytest.fixture
def acme(tmp_path: Path) -> Publisher:
    """The publisher of acme/law."""
    return publisher(tmp_path / "keys of acme" / "key")


@pytest.fixture
def law(tmp_path: Path, acme: Publisher) -> Path:
    """The expert as acme published and signed it."""
    return acme.sign(paper_expert(tmp_path / "law"))


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    """A keyring without keys."""
    return Keyring(tmp_path / "keyring")
