"""What holds for every command."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from moehub.cli import COMMANDS, main
from moehub.errors import ConfigError, HubError

CHECKOUT = Path(__file__).parents[2]
DOCS = (CHECKOUT / "docs" / "commands.md").read_text(encoding="utf-8")


def names(commands: Mapping[str, tuple[str, str]], before: str = "") -> Iterator[str]:
    """Yield the names of commands, each followed by those of the group that it is."""
    for name, (module, _) in commands.items():
        yield before + name
        spec = find_spec(module)
        if spec is not None and spec.submodule_search_locations:  # a package: a group
            yield from names(importlib.import_module(module).COMMANDS, f"{before}{name} ")


NAMES = list(names(COMMANDS))
"""Of every command, as a person types them."""


def command(name: str) -> click.Command:
    found: click.Command = main
    for word in name.split():
        assert isinstance(found, click.Group)
        inner = found.get_command(click.Context(found), word)
        assert inner is not None
        found = inner
    return found


def section(name: str) -> str:
    """Return what docs/commands.md says about a command; a command of a group stands below the group."""
    level = "#" * (1 + len(name.split()))
    return DOCS.partition(f"\n{level} {name}\n")[2].partition("\n#")[0]


def typed(line: str) -> str:
    """Return the command that a line of docs/commands.md shows, nothing where it shows none."""
    return max((name for name in NAMES if line.startswith(f"    moehub {name} ")), key=len, default="")


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_an_example(name: str) -> None:
    """A person can copy a line that works."""
    result = CliRunner().invoke(main, [*name.split(), "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"moehub {name} " in result.output or result.output.rstrip().endswith(f"moehub {name}")


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_help(name: str) -> None:
    """Arguments are explained in the text; options beside their names."""
    unexplained = [
        parameter.name
        for parameter in command(name).params
        if isinstance(parameter, click.Option) and not parameter.help and not parameter.show_default
    ]
    assert unexplained == []


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_documented_with_an_example(name: str) -> None:
    """One section of docs/commands.md each."""
    assert f"\n    moehub {name}" in section(name)


def test_the_docs_speak_of_no_other_command() -> None:
    """In the order of the help."""
    headings = re.findall(r"^(##+) (.+)$", DOCS, re.MULTILINE)
    assert headings == [("#" * (1 + len(name.split())), name) for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_the_options_in_the_docs_exist(name: str) -> None:
    """An example that was true once and is no longer would mislead."""
    lines = [line.split() for line in DOCS.splitlines() if typed(line) == name]
    used = {word for line in lines for word in line if word.startswith("--")}
    known = {option for parameter in command(name).params for option in parameter.opts}
    assert used <= known


def test_the_help_of_the_whole_lists_every_command() -> None:
    """Each with one line, in the order of the road."""
    output = CliRunner().invoke(main, ["--help"]).output
    lines = output.partition("Commands:")[2].splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "] == list(COMMANDS)


def test_help_is_quick_and_loads_no_heavy_library() -> None:
    """Under half a second of CPU, and neither torch nor transformers nor huggingface_hub."""
    script = (
        "import sys, time\n"
        "from moehub.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'peft', 'trl', 'datasets', 'huggingface_hub', 'numpy'} & set(sys.modules)\n"
        "print(repr([sorted(heavy), time.process_time()]), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    heavy, seconds = json.loads(done.stderr.replace("'", '"'))
    assert heavy == []
    assert seconds < 0.5


UNEXPECTED = (
    "Error: moehub met something it did not expect (RuntimeError: size mismatch): please report it, "
    "with what `moehub --debug COMMAND` shows\n"
)


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Make `moehub list` fail with `error`."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("moehub.hub.open_hub", fail)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (HubError("no such hub"), (1, "Error: no such hub\n")),
        (ConfigError("no such key"), (2, "Error: no such key\n")),
        (
            OSError(28, "No space left on device", "law"),
            (1, "Error: No space left on device (law): free some space, or choose another folder\n"),
        ),
        (PermissionError(13, "Permission denied", "law"), (1, "Error: Permission denied (law)\n")),
        (
            RuntimeError("size mismatch"),
            (
                1,
                UNEXPECTED,
            ),
        ),
    ],
)
def test_a_failure_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: Exception, expected: tuple[int, str]
) -> None:
    """Without a traceback, and with the exit code that says which kind it was."""
    failing(monkeypatch, error)
    result = CliRunner().invoke(main, ["list"])
    assert (result.exit_code, result.stderr) == expected


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    """Where the sentence does not help."""
    arguments = [sys.executable, "-m", "moehub", "--debug", "list", "--hub", str(tmp_path)]
    done = subprocess.run(arguments, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "moehub.errors.HubError" in done.stderr


@pytest.mark.parametrize("arguments", [["no-such-command"], ["list", "--no-such-option"], ["push"], ["pull", "x"]])
def test_bad_usage_exits_with_two(arguments: list[str]) -> None:
    """As every Unix tool does."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_the_commands_are_told_to_send_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No telemetry, and no question whether there is a newer client."""
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK"):
        monkeypatch.delenv(name)
    CliRunner().invoke(main, ["list", "--hub", str(tmp_path)])
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == os.environ["HF_HUB_DISABLE_UPDATE_CHECK"] == "1"
