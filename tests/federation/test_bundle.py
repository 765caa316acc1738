import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from moehub import __version__
from moehub.cli import main
from moehub.errors import FederationError
from moehub.experts.settings import TrainConfig
from moehub.federation.deploy import bundle, guard
from moehub.federation.form import Form
from moehub.federation.settings import FederationConfig, unflatten
from tests.federation.runs import FORM

SETTINGS = FederationConfig(
    base='/a "base" with \\ strange\nname — ü\x7f',
    rounds=4,
    noise_clip=1e-9,
    domains=("law", "code"),
    train=TrainConfig(rank=2, targets=("q_proj", "it's")),
)


def test_a_bundle_is_two_files_without_code(tmp_path: Path) -> None:
    """The components are those that are installed, and Flower installs nothing."""
    folder = bundle.write(tmp_path / "app", SETTINGS, FORM)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "pyproject.toml"]
    found = tomllib.loads((folder / "pyproject.toml").read_text())
    assert found["project"]["dependencies"] == []
    assert found["project"]["version"] == __version__
    assert found["tool"]["flwr"]["app"]["publisher"] == "moehub"
    assert found["tool"]["flwr"]["app"]["components"] == {
        "serverapp": "moehub.federation.server_app:app",
        "clientapp": "moehub.federation.client_app:app",
    }


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # flwr uses an old name of pathspec
def test_both_ends_read_what_was_written(tmp_path: Path) -> None:
    """Through Flower's own packing and reading: settings, form, output, and what the run is to do."""
    from flwr.cli.build import build_fab_from_disk
    from flwr.common.config import get_fused_config_from_fab
    from flwr.supercore.run import Run

    folder = bundle.write(
        tmp_path / "app",
        SETTINGS,
        FORM,
        output=tmp_path / "out",
        resume=True,
        expected=3,
        registry=tmp_path / "nodes.json",
    )
    app = build_fab_from_disk(folder)
    guard.inspect(app)
    run = Run.create_empty(1)
    run.override_config = {"rounds": 9, "train.rank": 3}
    config = get_fused_config_from_fab(app, run)
    read = unflatten(config)
    assert (read.rounds, read.train.rank) == (9, 3)
    assert unflatten({**config, "rounds": 4, "train.rank": 2}) == SETTINGS
    assert Form.from_json(str(config["form"])) == FORM
    rest = {name: config[name] for name in ("output", "resume", "overwrite", "expected", "registry")}
    assert rest == {
        "output": str(tmp_path / "out"),
        "resume": True,
        "overwrite": False,
        "expected": 3,
        "registry": str(tmp_path / "nodes.json"),
    }


def test_flower_finds_no_fault_with_it(tmp_path: Path) -> None:
    """Not even a warning that a person would have to read."""
    from flwr.cli.config_utils import load_and_validate

    folder = bundle.write(tmp_path / "app", SETTINGS, FORM)
    assert load_and_validate(folder / "pyproject.toml")[1] == []


def test_equal_settings_make_equal_bundles(tmp_path: Path) -> None:
    """To the byte; and one that stands there is replaced whole."""
    first = bundle.write(tmp_path / "one", SETTINGS, FORM)
    again = bundle.write(tmp_path / "two", FederationConfig(base="other"), FORM)
    assert (first / "pyproject.toml").read_bytes() != (again / "pyproject.toml").read_bytes()
    bundle.write(tmp_path / "two", SETTINGS, FORM)
    assert (first / "pyproject.toml").read_bytes() == (again / "pyproject.toml").read_bytes()


@pytest.mark.parametrize("name", ["thesis.md", ".git"])
def test_nothing_but_a_bundle_is_replaced(tmp_path: Path, name: str) -> None:
    """A folder that was named by mistake stays as it was."""
    (tmp_path / name).touch()
    (tmp_path / "pyproject.toml").touch()
    with pytest.raises(FederationError, match="holds something else than a bundle"):
        bundle.write(tmp_path, SETTINGS, FORM)
    assert (tmp_path / name).exists()
    with pytest.raises(FederationError, match="holds something else than a bundle"):
        bundle.write(tmp_path.parent, SETTINGS, FORM)


def test_the_command_makes_a_bundle_of_a_file(base_folder: Path, tmp_path: Path) -> None:
    """`--set` reaches the settings of the training too; the base's form is in the bundle."""
    (tmp_path / "run.yaml").write_text(f"base: {base_folder}\nrounds: 7\ntrain: {{rank: 4, targets: [q_proj]}}\n")
    arguments = ["federate", "bundle", str(tmp_path / "run.yaml"), "--output", str(tmp_path / "app")]
    done = CliRunner().invoke(main, [*arguments, "--set", "train.rank=2", "--set", "steps=5"])
    assert (done.exit_code, done.stdout.strip()) == (0, str(tmp_path / "app")), done.output
    config = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    settings = unflatten(config)
    assert (settings.rounds, settings.steps, settings.train.rank) == (7, 5, 2)
    assert settings.train.targets == ("q_proj",)
    assert len(Form.from_json(config["form"]).linears) == 2


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    """Before a base is looked for."""
    (tmp_path / "run.yaml").write_text("base: none\n")
    arguments = ["federate", "bundle", str(tmp_path / "run.yaml"), "--output", str(tmp_path / "app")]
    done = CliRunner().invoke(main, [*arguments, "--set", "train.ranks=2"])
    assert (done.exit_code, "unknown key 'ranks'" in done.stderr) == (2, True)
