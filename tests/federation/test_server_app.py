"""Flower's ServerApp: the run's configuration becomes a run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp

from moehub.errors import ConfigError, FederationError
from moehub.federation import server_app
from moehub.federation.journal import Aggregated, Ended, Joined, Refused
from moehub.federation.server.roster import Registered, Registry
from moehub.federation.settings import FederationConfig, flatten
from tests.federation.grid import LocalGrid
from tests.federation.runs import FORM, conduct, events, nodes, only, settings

CHECKOUT = Path(__file__).parents[2]


def configuration(config: FederationConfig | None = None, **changes: Any) -> dict[str, Any]:
    """Return the run's configuration as Flower carries it."""
    own = {"output": "", "resume": False, "overwrite": False, "expected": 0, "registry": ""}
    return {**flatten(config or settings()), "form": FORM.to_json(), **own, **changes}


def serve(grid: LocalGrid, flat: dict[str, Any]) -> None:
    """Run the ServerApp as Flower does."""
    server_app.app(grid, Context(1, 1, {}, RecordDict(), flat))


def test_the_app_runs_what_the_configuration_describes(tmp_path: Path) -> None:
    """Settings, form and output come from flat keys; keys of others are passed over."""
    serve(LocalGrid(nodes(2)), configuration(output=str(tmp_path), expected=2, stranger=1))
    assert [each.nodes for each in events(tmp_path, Aggregated)] == [2, 2]
    assert (tmp_path / "experts" / "law" / "expert.json").is_file()


def test_the_app_makes_the_expert_that_the_run_makes(tmp_path: Path) -> None:
    """Through Flower's configuration and back, no setting is lost."""
    config = settings(aggregation="fedavg", rank=3, seed=5, targets=("q_proj", "down_proj"), rounds=1)
    serve(LocalGrid(nodes(2)), configuration(config, output=str(tmp_path / "app")))
    (expert,) = conduct(tmp_path / "run", nodes(2), config)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "app" / "experts" / "law" / name).read_bytes() == (expert / name).read_bytes()


def test_the_output_is_the_environments_where_the_configuration_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle that travels holds no path; the server's machine says where to write, else `federation` it is."""
    monkeypatch.setenv(server_app.OUTPUT, str(tmp_path / "named"))
    serve(LocalGrid(nodes(1)), configuration())
    assert (tmp_path / "named" / "experts" / "law").is_dir()
    monkeypatch.delenv(server_app.OUTPUT)
    monkeypatch.chdir(tmp_path)
    serve(LocalGrid(nodes(1)), configuration())
    assert (tmp_path / "federation" / "experts" / "law").is_dir()


def test_resume_and_overwrite_are_passed_on(tmp_path: Path) -> None:
    """Resuming a finished run does nothing; a new one needs overwrite."""
    output = str(tmp_path)
    serve(LocalGrid(nodes(1)), configuration(output=output))
    serve(LocalGrid(nodes(1)), configuration(output=output, resume=True))
    with pytest.raises(FederationError, match="--overwrite"):
        serve(LocalGrid(nodes(1)), configuration(output=output))
    serve(LocalGrid(nodes(1)), configuration(output=output, overwrite=True))
    assert [each.failure.partition(" ")[2][:16] for each in events(tmp_path, Ended)] == ["", "", "is there already", ""]


def test_the_registry_says_who_is_who(tmp_path: Path) -> None:
    """Nodes are known by the names in the file and held to its domains; others are refused."""
    registry = tmp_path / "nodes.json"
    registry.write_text(json.dumps({"1001": {"name": "berlin", "domain": "law"}}))
    serve(LocalGrid(nodes(2)), configuration(output=str(tmp_path / "out"), registry=str(registry)))
    assert only(events(tmp_path / "out", Joined)).node == "berlin"
    assert only(events(tmp_path / "out", Refused)).reason.startswith("it is not registered")


def test_the_registry_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """A node that is registered while the run goes on needs no restart."""
    file = tmp_path / "nodes.json"
    file.write_text("{}")
    registry = Registry(file)
    assert registry.get(7) is None
    file.write_text(json.dumps({"7": {"name": "berlin", "domain": ""}}))
    assert registry.get(7) == Registered("berlin")


@pytest.mark.parametrize("text", ["{", "[]", '{"1": {"domain": "law"}}', None])
def test_a_registry_that_cannot_be_read_is_named(tmp_path: Path, text: str | None) -> None:
    """With the cure."""
    file = tmp_path / "nodes.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(FederationError, match=r"registry of nodes in .* cannot be read"):
        Registry(file).get(1)


@pytest.mark.parametrize(
    ("changes", "reason"), [({"form": ""}, "form cannot be read"), ({"aggregation": "magic"}, "aggregation = 'magic'")]
)
def test_a_configuration_that_moehub_did_not_make_is_refused(changes: dict[str, Any], reason: str) -> None:
    """Before anything is written."""
    with pytest.raises(ConfigError, match=reason):
        serve(LocalGrid(nodes(1)), configuration(**changes))


def test_a_stop_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower ends a ServerApp with SystemExit: the journal says that it was stopped, and it goes on later."""

    def stop(*_: Any) -> Any:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(LocalGrid, "pull_messages", stop)
        with pytest.raises(SystemExit):
            serve(LocalGrid(nodes(1)), configuration(output=str(tmp_path)))
    assert only(events(tmp_path, Ended)).failure == "it was stopped"
    serve(LocalGrid(nodes(1)), configuration(output=str(tmp_path), resume=True))
    assert events(tmp_path, Ended)[-1].experts == 1


def test_the_app_is_where_flower_looks_for_it() -> None:
    """A plain assignment at the top of the module."""
    assert isinstance(server_app.app, ServerApp)
    assert "\napp = ServerApp()\n" in Path(server_app.__file__).read_text(encoding="utf-8")


_ROUNDS = """
import contextlib
import sys
from pathlib import Path
from moehub.federation import server_app
from moehub.federation.server.checkpoint import Checkpoints
from tests.federation.runs import conduct, nodes, settings

real = Checkpoints.save

def save(self, state):
    real(self, state)
    print(state.lap, *(name for name in ("torch", "transformers", "peft", "datasets") if name in sys.modules))
    if state.lap == 2:
        raise SystemExit

Checkpoints.save = save
for aggregation in ("ffa", "product", "multikrum"):
    with contextlib.suppress(SystemExit):
        conduct(Path(sys.argv[1]) / aggregation, nodes(6), settings(aggregation=aggregation))
"""


def test_rounds_do_without_torch(tmp_path: Path) -> None:
    """Until the last round is saved, the ServerApp's process has imported none of the heavy libraries."""
    done = subprocess.run(
        [sys.executable, "-c", _ROUNDS, str(tmp_path)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == ["1", "2"] * 3
