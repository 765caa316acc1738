import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from moehub.errors import FederationError
from moehub.federation.deploy import endings, pids, processes
from moehub.federation.deploy.processes import Processes, Service, tail

CHECKOUT = Path(__file__).parents[2]
FAMILY = """
import signal, subprocess, sys, time
{ignore}
own = {session}
child = subprocess.Popen([sys.executable, "-c", "{quiet}import time; time.sleep(60)"], start_new_session=own)
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(60)
"""
"""A process with a child whose pid it writes down."""


def until(holds: Callable[[], bool], seconds: float = 10) -> bool:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def fallen(running: Processes, falls: list[processes.Fall]) -> int:
    """Watch once, and return how many have died so far."""
    falls += running.watch()
    return len(falls)


def service(name: str, script: str, *arguments: str | Path, restarts: int = 5) -> Service:
    return Service(name, (sys.executable, "-c", script, *map(str, arguments)), os.environ, restarts)


def family(note: Path, *, stubborn: bool = False, session: bool = False) -> Service:
    """Return a process with a child; a stubborn one does not listen, and neither does its child."""
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" if stubborn else ""
    quiet = f"import signal; {ignore}; " if stubborn else ""
    return service("family", FAMILY.format(ignore=ignore, quiet=quiet, session=session), note)


def noted(note: Path) -> int:
    assert until(lambda: note.exists() and bool(note.read_text()))
    return int(note.read_text())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_DELAYS", (0.05, 0.1))


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("session", [False, True])
def test_everything_has_ended_when_the_block_is_left(tmp_path: Path, *, stubborn: bool, session: bool) -> None:
    """Children too, also those that made a session of their own or do not listen."""
    with Processes(tmp_path, grace=0.5) as running:
        parent = running.start(family(tmp_path / "note", stubborn=stubborn, session=session))
        child = noted(tmp_path / "note")
        assert (alive(parent), alive(child)) == (True, True)
    assert (alive(parent), alive(child)) == (False, False)
    assert list((tmp_path / "pids").iterdir()) == []


def test_everything_has_ended_after_an_exception(tmp_path: Path) -> None:
    """Whatever it was."""
    started: list[int] = []

    def fail() -> None:
        with Processes(tmp_path) as running:
            started.append(running.start(service("one", "import time; time.sleep(60)")))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not alive(started[0])


def test_some_can_be_ended_alone(tmp_path: Path) -> None:
    """By their names; the others go on."""
    with Processes(tmp_path) as running:
        first = running.start(service("first", "import time; time.sleep(60)"))
        second = running.start(service("second", "import time; time.sleep(60)"))
        running.end("first")
        assert (alive(first), alive(second)) == (False, True)
        assert running.watch() == []


def test_what_dies_is_started_again(tmp_path: Path) -> None:
    """Under a new pid, and what it left behind has ended; its exit code is told once."""
    with Processes(tmp_path) as running:
        before = running.start(family(tmp_path / "note"))
        child = noted(tmp_path / "note")
        os.kill(before, signal.SIGKILL)
        falls: list[processes.Fall] = []
        assert until(lambda: fallen(running, falls) == 1)
        assert [(fall.name, fall.code) for fall in falls] == [("family", -signal.SIGKILL)]
        assert until(lambda: not alive(child))
        assert running.pid("family") is None
        assert until(lambda: running.watch() == [] and running.pid("family") is not None)
        assert running.pid("family") != before
        assert pids.recorded(tmp_path)["family"].pid == running.pid("family")


def test_what_keeps_dying_is_given_up_with_its_last_words(tmp_path: Path) -> None:
    """An error that names the log and shows its end."""
    with Processes(tmp_path) as running:
        running.start(service("weak", "print('the disk is gone'); raise SystemExit(7)", restarts=1))
        with pytest.raises(FederationError, match=r"2 times in a row, last with exit code 7(?s:.*)the disk is gone"):
            running.wait_for(lambda: False, "nothing", seconds=20)


def test_what_is_not_essential_stays_dead_after_its_last_death(tmp_path: Path) -> None:
    """The others go on: a federation does not end with one node."""
    with Processes(tmp_path) as running:
        running.start(Service("weak", (sys.executable, "-c", ""), os.environ, restarts=1, essential=False))
        other = running.start(service("strong", "import time; time.sleep(60)"))
        falls: list[processes.Fall] = []
        assert until(lambda: fallen(running, falls) == 2)
        assert [str(fall) for fall in falls] == [
            "weak ended with exit code 0; it is started again in 0.05 s",
            "weak ended with exit code 0; it is not started again",
        ]
        assert (running.watch(), running.pid("weak"), running.pid("strong")) == ([], None, other)


def test_a_death_after_a_long_life_counts_as_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that dies once a day is started again for ever."""
    monkeypatch.setattr(processes, "_LONG", 0.0)
    with Processes(tmp_path) as running:
        running.start(service("mortal", "", restarts=1))
        falls: list[processes.Fall] = []
        assert until(lambda: fallen(running, falls) >= 4)


def test_a_wait_that_is_over_says_for_what(tmp_path: Path) -> None:
    """And where to look."""
    with Processes(tmp_path) as running, pytest.raises(FederationError, match="the server's start did not happen"):
        running.wait_for(lambda: False, "the server's start", seconds=0.1)


def test_a_program_that_is_missing_is_said(tmp_path: Path) -> None:
    """In a sentence."""
    with Processes(tmp_path) as running, pytest.raises(FederationError, match="one cannot be started with /no/such"):
        running.start(Service("one", ("/no/such",), {}))


def test_a_process_sees_its_own_environment_alone_and_writes_into_its_log(tmp_path: Path) -> None:
    """Both streams."""
    script = "import os; print(os.environ['ONE'], len(os.environ) < 4, flush=True); print(1 / 0)"
    with Processes(tmp_path) as running:
        running.start(Service("one", (sys.executable, "-c", script), {"ONE": "1"}))
        assert until(lambda: "ZeroDivisionError" in tail(running.log("one")))
        assert tail(running.log("one")).startswith("  1 True\n  Traceback")


MAIN = """
import sys, time
from pathlib import Path
from moehub.federation.deploy.endings import leaving_properly
from moehub.federation.deploy.processes import Processes
from tests.federation.test_processes import family
note = Path(sys.argv[1])
with leaving_properly(), Processes(note.parent, grace=0.5) as running:
    running.start(family(note, stubborn=True))
    while True:
        running.watch()
        time.sleep(0.05)
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_to_the_command_ends_everything(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Ctrl-C, SIGTERM and a lost terminal; also when it comes twice."""
    command = subprocess.Popen([sys.executable, "-c", MAIN, str(tmp_path / "note")], cwd=CHECKOUT, stderr=-3)
    child = noted(tmp_path / "note")
    leader = pids.recorded(tmp_path)["family"].pid
    command.send_signal(number)
    time.sleep(0.2)
    command.send_signal(number)
    assert command.wait(20) == code
    assert (alive(leader), alive(child)) == (False, False)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent")
def test_a_killed_command_leaves_no_leader(tmp_path: Path) -> None:
    """SIGKILL cannot be heard, so the kernel ends what was started."""
    command = subprocess.Popen([sys.executable, "-c", MAIN, str(tmp_path / "note")], cwd=CHECKOUT, stderr=-3)
    child = noted(tmp_path / "note")
    leader = pids.recorded(tmp_path)["family"].pid
    command.kill()
    command.wait(20)
    try:
        assert until(lambda: not alive(leader))
    finally:
        os.kill(child, signal.SIGKILL)  # this one is no process of moehub's, and did not ask to die with its parent


def test_a_signal_waits_while_a_process_is_ended() -> None:
    """And is heard afterwards."""
    reached: list[bool] = []

    def interrupted() -> None:
        with endings.undisturbed():
            signal.raise_signal(signal.SIGINT)
            reached.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert reached == [True]


def test_what_is_ignored_stays_ignored() -> None:
    """A command under nohup outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with endings.leaving_properly():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_recorded_process_is_found_and_another_of_its_pid_is_not(tmp_path: Path) -> None:
    """A pid file may be older than the machine's last start."""
    pids.record(tmp_path, "me", os.getpid())
    assert pids.recorded(tmp_path)["me"].pid == os.getpid()
    (tmp_path / "pids" / "me.json").write_text(f'{{"pid": {os.getpid()}, "created": 1.0}}')
    (tmp_path / "pids" / "broken.json").write_text("{")
    assert pids.recorded(tmp_path) == {}
    assert pids.began(tmp_path, "me")
    pids.forget(tmp_path, "me")
    assert not pids.began(tmp_path, "me")


def test_the_end_of_a_log_is_short(tmp_path: Path) -> None:
    """Its last lines that are not empty; nothing where there is no log."""
    (tmp_path / "log").write_text("".join(f"line {number}\n\n" for number in range(50)))
    assert tail(tmp_path / "log", 2) == "  line 48\n  line 49"
    assert tail(tmp_path / "none") == ""
