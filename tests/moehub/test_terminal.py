"""What a person sees on a terminal of 80 columns, in a real pseudo-terminal."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from moehub.palette import colours
from tests.moehub.conftest import CODE, LAW, Small
from tests.moehub.terminal_session import MARK

COLUMNS = 80
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(*commands: list[str]) -> list[str]:
    """Return what each command wrote to a terminal, escape sequences included."""
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    plain = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR", "CI")}
    session = subprocess.Popen(
        [sys.executable, "-m", "tests.moehub.terminal_session", *map(json.dumps, commands)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=Path(__file__).parents[2],
        env={**plain, "TERM": "xterm-256color", "COLORTERM": "truecolor", "OMP_NUM_THREADS": "1"},
    )
    os.close(terminal)
    seen = b""
    while True:
        try:
            part = os.read(screen, 1 << 16)
        except OSError:  # the last writer is gone
            break
        if not part:
            break
        seen += part
    os.close(screen)
    text = seen.decode()
    assert session.wait() == 0, text
    return text.replace("\r\n", "\n").split(MARK)[:-1]


@pytest.fixture(scope="module")
def screens(small: Small, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The screens of merge, eval and generate with a trace."""
    output = tmp_path_factory.mktemp("terminal") / "moe"
    experts = ["--expert", str(small.law), "--expert", str(small.code)]
    commands = {
        "merge": ["merge", "--base", str(small.base), *experts, "--null", str(small.null), "--output", str(output)],
        "eval": ["eval", str(small.moe), "--data", f"mix={small.text}", "--against", str(small.base)],
        "generate": ["generate", str(small.moe), LAW + CODE, "--trace", "--max-new-tokens", "4"],
    }
    return dict(zip(commands, on_a_terminal(*commands.values()), strict=True))


@pytest.mark.parametrize("command", ["merge", "eval"])
def test_no_line_is_wider_than_the_terminal(screens: dict[str, str], command: str) -> None:
    """Tables fold long paths instead of running over the edge."""
    lines = [_ANSI.sub("", line).rpartition("\r")[2] for line in screens[command].split("\n")]
    assert max(map(len, lines)) <= COLUMNS
    assert any("│" in line for line in lines)


def test_tables_keep_every_character_of_what_they_fold(screens: dict[str, str], small: Small) -> None:
    """Nothing is cut off with an ellipsis: the path to an expert can be read whole."""
    merge = _ANSI.sub("", screens["merge"])
    assert "…" not in merge
    rows = [line.strip("│").split("│") for line in merge.split("\n") if line.startswith("│")]
    sources = "".join(row[-1].strip() for row in rows)
    assert str(small.law) in sources
    assert str(small.null) in sources


def test_a_trace_is_coloured_by_expert(screens: dict[str, str]) -> None:
    """Each expert's tokens stand in its own colour, without brackets, and a legend names them."""
    traced = screens["generate"]
    assert "[law]" not in traced
    for name, colour in colours(["code", "law"]).items():
        red, green, blue = (int(colour[begin : begin + 2], 16) for begin in (1, 3, 5))
        painted = re.findall(rf"\x1b\[38;2;{red};{green};{blue}m(.*?)\x1b\[0m", traced, re.DOTALL)
        assert len(painted) > 3, name
        assert painted[-1] == f"{name} "
    assert (LAW + CODE).strip() in _ANSI.sub("", traced)


def test_progress_is_a_bar_that_ends(screens: dict[str, str]) -> None:
    """A terminal shows bars and gets its cursor back."""
    assert "━" in screens["merge"]
    assert screens["merge"].count("\x1b[?25l") == screens["merge"].count("\x1b[?25h") > 0
