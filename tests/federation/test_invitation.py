import dataclasses
from pathlib import Path

import pytest

from moehub.card import BasePin
from moehub.errors import ConfigError
from moehub.federation.deploy import (
    certificates,
    handover,
    invitation,
    inviting,
)
from moehub.federation.deploy.invitation import Invitation
from moehub.federation.deploy.server_folder import ServerFolder
from moehub.federation.settings import read_federation
from tests.federation.served import Flower


def test_an_invitation_says_where_how_and_what(
    folder: ServerFolder, settings: Path, tmp_path: Path, base_folder: Path
) -> None:
    """Address, authority, base and aggregation; no key, and no path of the server's machine."""
    tls = certificates.own(tmp_path / "tls", ["fed.example.org"])
    folder.serve(dataclasses.replace(folder.serving(), authority=str(tls.authority)))
    made = inviting.invite(folder.path, settings)
    assert (made.address, made.certificate) == ("fed.example.org:8443", tls.authority.read_text())
    assert made.base is not None
    assert (made.base.reference, made.aggregation) == (base_folder.name, "ffa")
    assert inviting.invite(folder.path).base is None
    handover.hand_over(folder, Flower(), read_federation(settings))
    assert inviting.invite(folder.path) == made
    assert "PRIVATE" not in str(made)
    assert str(tmp_path) not in str(made)


def test_an_invitation_is_read_as_it_was_written(tmp_path: Path) -> None:
    """With its base and without."""
    pin = BasePin("org/base", "0" * 64, "1" * 64, "abc")
    for made in (Invitation("a:1"), Invitation("a:1", "PEM", pin, "ffa"), Invitation("localhost:1", insecure=True)):
        invitation.write(tmp_path / "invitation.json", made)
        assert invitation.read(tmp_path / "invitation.json") == made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"address": 5}',
        '{"address": "a:1", "command": "rm"}',
        '{"address": "a:1", "base": []}',
        '{"address": "a:1", "base": {"reference": "x"}}',
        '{"address": "a:1", "format": 2}',
        '{"address": "' + "a" * (1 << 20) + '"}',
    ],
)
def test_what_is_no_invitation_is_one_sentence(tmp_path: Path, text: str) -> None:
    """It came by mail, from anywhere."""
    (tmp_path / "invitation.json").write_text(text)
    with pytest.raises(ConfigError, match=r"(?s)invitation\.json is no invitation to a federation .*ask its operator"):
        invitation.read(tmp_path / "invitation.json")
