import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from moehub.cli import main
from moehub.federation.deploy import launch
from moehub.federation.deploy.launch import Outcome
from moehub.federation.journal import GaveUp, Published
from moehub.federation.settings import Gathering
from tests.federation.launched import gathering

LAW = Published("law", "/runs/one/experts/law", 2, 5.0, 4.25, 100)
CODE = Published("code", "/runs/one/experts/code", 1, None, None, 0)


@pytest.fixture
def file(base_folder: Path, tmp_path: Path) -> Path:
    return gathering(tmp_path / "in", base_folder)


def up(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["federate", "up", *map(str, arguments)])


def instead(monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> list[tuple[Gathering, Path, dict[str, Any]]]:
    """Let nothing be started; return what would have been."""
    calls: list[tuple[Gathering, Path, dict[str, Any]]] = []

    def fake(gathering: Gathering, output: Path, **options: Any) -> Outcome:
        calls.append((gathering, output, options))
        return outcome

    monkeypatch.setattr(launch, "up", fake)
    return calls


def test_the_file_the_options_and_the_settings_reach_the_run(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options win over the file; paths in it are relative to it."""
    calls = instead(monkeypatch, Outcome((LAW,), (), 3.0, ""))
    done = up("--nodes", file, "--output", tmp_path / "out", "--rounds", "7", "--resume", "--set", "train.rank=2")
    assert done.exit_code == 0, done.output
    ((found, output, options),) = calls
    assert (output, options) == (tmp_path / "out", {"resume": True, "overwrite": False})
    assert (found.federation.rounds, found.federation.train.rank, found.federation.steps) == (7, 2, 8)
    assert [node.data for node in found.nodes] == [(tmp_path / "in" / name,) for name in
                                                   ("north.txt", "south.txt", "code.txt")]  # fmt: skip


def test_at_the_end_there_is_a_table_of_the_experts(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On standard output; how to publish them goes to standard error."""
    instead(monkeypatch, Outcome((CODE, LAW), (), 3.0, ""))
    done = up("--nodes", file, "--output", tmp_path / "out")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["expert", "nodes", "base", "loss", "expert", "loss", "folder"],
        ["code", "1", "–", "–", "/runs/one/experts/code"],
        ["law", "2", "5.0000", "4.2500", "/runs/one/experts/law"],
    ]
    assert f"moehub federate push {tmp_path / 'out'} YOUR-NAME" in done.stderr


def test_json_holds_the_whole_outcome(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else is on standard output."""
    instead(monkeypatch, Outcome((LAW,), (GaveUp(2, "code", "no quorum"),), 3.0, ""))
    done = up("--nodes", file, "--output", tmp_path / "out", "--json")
    found = json.loads(done.stdout)
    assert (found["experts"][0]["expert_loss"], found["seconds"], found["output"]) == (4.25, 3.0, str(tmp_path / "out"))
    assert found["gave_up"] == [{"round": 2, "domain": "code", "reason": "no quorum"}]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_failure_of_the_run_is_the_commands(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """Its sentence on standard error, exit code 1; what is finished is shown all the same."""
    instead(monkeypatch, Outcome((LAW,), (), 3.0, "the disk is full: free some space"))
    done = up("--nodes", file, "--output", tmp_path / "out", *options)
    assert (done.exit_code, done.stderr) == (1, "Error: the disk is full: free some space\n")
    assert "law" in done.stdout


def test_ctrl_c_says_how_to_go_on(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once everything has ended."""

    def stopped(*_: object, **__: object) -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "up", stopped)
    done = up("--nodes", file, "--output", tmp_path / "out")
    assert (done.exit_code, "the rounds so far are kept for --resume" in done.stderr) == (1, True)


def test_a_dry_run_starts_nothing(file: Path, tmp_path: Path) -> None:
    """It says what would be run; an adapter's bytes are those of B alone where A is frozen."""
    done = up("--nodes", file, "--output", tmp_path / "out", "--dry-run")
    assert done.stdout.startswith("would train code on 1, law on 2 node(s) in 2 rounds of 8 steps (ffa); 3,072 bytes")
    assert not (tmp_path / "out").exists()
    both = up("--nodes", file, "--output", tmp_path / "out", "--dry-run", "--json", "--set", "aggregation=product")
    planned = json.loads(both.stdout)
    # Two layers of q_proj [32, 32] and v_proj [32, 16] of rank 4, sent and received in four bytes each.
    assert planned["carried"] == 2 * 4 * 2 * 4 * ((32 + 32) + (32 + 16))
    assert (planned["domains"], planned["processes"]) == ({"code": 1, "law": 2}, 10)


def held(output: Path, _: Path) -> None:
    (output / "experts" / "law").mkdir(parents=True)


def no_base(_: Path, file: Path) -> None:
    file.write_text(file.read_text().replace("base: /", "base: /none/"))


def no_data(_: Path, file: Path) -> None:
    (file.parent / "north.txt").unlink()


@pytest.mark.parametrize(
    ("spoil", "arguments", "code", "sentence"),
    [
        (held, [], 1, "holds a federation already: go on with --resume, begin anew with --overwrite"),
        (no_base, [], 1, "there is no folder"),
        (no_data, [], 2, "there is no file"),
        (None, ["--set", "train.ranks=1"], 2, "unknown key 'ranks'"),
        (None, ["--set", "train.max_steps=1"], 2, "a federation sets `rounds` and `steps`"),
        (None, ["--rounds", "0"], 2, "Invalid value for '--rounds'"),
        (None, ["--set", "quorum=2"], 2, "quorum = 2"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_started(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path, Path], None] | None,
    arguments: list[str],
    code: int,
    sentence: str,
) -> None:
    """One sentence with its cure; no process, no folder of Flower's."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    output = tmp_path / "out"
    if spoil is not None:
        spoil(output, file)
    done = up("--nodes", file, "--output", output, *arguments)
    assert (done.exit_code, sentence in done.stderr) == (code, True), done.stderr
    assert not (output / ".flower").exists()
