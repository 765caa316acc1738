import io
import itertools

import pytest
from rich.console import Console

from moehub import console


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Where messages go, no terminal, with a clock that moves two seconds at every look."""
    written = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=written, width=200, highlight=False))
    monkeypatch.setattr("time.monotonic", itertools.count(0, 2).__next__)
    return written


def test_progress_off_a_terminal_is_a_few_plain_lines(screen: io.StringIO) -> None:
    """One at the start, one every five seconds with its note, one at the end."""
    with console.progress("training [law]", 7) as advance:
        for step in range(7):
            advance(note=f"loss {step}")
    lines = screen.getvalue().splitlines()
    assert (lines[0], lines[-1].startswith("training [law]: 7/7 in ")) == ("training [law]: 0/7", True)
    assert 0 < len(lines[1:-1]) < 7
    assert all("loss" in line for line in lines[1:-1])


def test_progress_in_bytes_says_so(screen: io.StringIO) -> None:
    """Steps of many bytes add up."""
    with console.progress("fetching", 300, in_bytes=True) as advance:
        advance(100)
        advance(200)
    assert "fetching: 300/300 bytes in" in screen.getvalue()


def test_failed_work_is_not_called_finished(screen: io.StringIO) -> None:
    """An error passes through, and no line says that all is done."""
    with pytest.raises(ValueError, match="broken"), console.progress("training", 2):
        raise ValueError("broken")
    assert screen.getvalue().splitlines() == ["training: 0/2"]


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar shows the description, the count and the note."""
    written = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=written, force_terminal=True, width=200, highlight=False))
    with console.progress("training", 2) as advance:
        advance(2, note="loss 1.5")
    assert all(part in written.getvalue() for part in ("training", "2/2", "loss 1.5"))


def test_messages_go_to_standard_error_and_results_to_standard_output() -> None:
    """So that results can be piped."""
    assert (console.console.stderr, console.results.stderr) == (True, False)
