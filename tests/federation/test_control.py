import json
from pathlib import Path

import pytest

from moehub.errors import FederationError
from moehub.federation.deploy.control import Control


@pytest.fixture
def flwr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `flwr` that says what is in a file."""
    (tmp_path / "said").write_text("{}")
    (tmp_path / "flwr").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncat {tmp_path}/said\n')
    (tmp_path / "flwr").chmod(0o755)
    monkeypatch.setattr("moehub.federation.deploy.services.executable", lambda _: str(tmp_path / "flwr"))
    return tmp_path


def test_flower_is_asked_by_its_own_command(flwr: Path) -> None:
    """And answers in JSON."""
    control = Control(flwr / "home")
    (flwr / "said").write_text('{"success": true, "run-id": "7"}')
    assert control.submit(Path("app"), resume=True, overwrite=False) == 7
    asked = (flwr / "asked").read_text().strip()
    assert asked == "run app moehub --run-config resume=true overwrite=false --format json"
    nodes = [{"node-id": "5", "status": "online"}, {"node-id": "6", "status": "unregistered"}]
    (flwr / "said").write_text(json.dumps({"success": True, "nodes": nodes}))
    assert control.nodes() == {5: "online"}


def test_what_flower_refuses_is_one_sentence(flwr: Path) -> None:
    """The last line of what it says; a server that is down has a sentence of its own."""
    control = Control(flwr / "home")
    refusal = "Using SuperLink: moehub\n[code: 23] Public key already in use."
    (flwr / "said").write_text(json.dumps({"success": False, "error-message": refusal}))
    with pytest.raises(FederationError, match=r"^Flower refuses it: \[code: 23\] Public key already in use\.$"):
        control.register(Path("key.pub"))
    down = "Connection to the SuperLink is unavailable. Please check your network connection."
    (flwr / "said").write_text(json.dumps({"success": False, "error-message": down}))
    with pytest.raises(FederationError, match=r"^the server does not run: start it with `moehub federate server`"):
        control.nodes()
    (flwr / "said").write_text("Traceback: no JSON at all")
    with pytest.raises(FederationError, match="Flower refuses it: Traceback"):
        control.nodes()


@pytest.mark.parametrize(("said", "ended"), [("[code: 18] Run is already finished.", False), ("[code: 16] No.", False)])
def test_a_run_that_is_over_is_stopped_already(flwr: Path, said: str, ended: bool) -> None:
    """Nobody needs to know which of the two was first."""
    (flwr / "said").write_text(json.dumps({"success": False, "error-message": said}))
    assert Control(flwr / "home").stop(7) is ended
    (flwr / "said").write_text(json.dumps({"success": False, "error-message": "[code: 9] You may not."}))
    with pytest.raises(FederationError, match="You may not"):
        Control(flwr / "home").stop(7)
