"""Each attack is made for real, behind each set of walls that is enough."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from moehub.sandbox import Keeper
from tests.sandbox.keepers import MODES, attempt, keeper

PRELUDE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)

def tried(name, do):
    try:
        print("ESCAPED", name, do())
    except (OSError, RuntimeError, ImportError) as error:
        print("held", name, type(error).__name__)

def call(number, *arguments):
    if os.uname().machine != "x86_64":
        raise OSError("it has other numbers")
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        raise OSError(ctypes.get_errno(), "no")
"""


@pytest.fixture(scope="module", params=MODES)
def walled(request: pytest.FixtureRequest) -> Iterator[Keeper]:
    with keeper(request.param) as made:
        yield made


def held(walled: Keeper, code: str) -> int:
    """Run attempts, all of which must be held, and return how many there were."""
    outcome = attempt(walled, PRELUDE + textwrap.dedent(code))
    assert (outcome.status, outcome.stderr) == ("passed", "")
    assert [line for line in outcome.stdout.splitlines() if not line.startswith("held ")] == []
    return outcome.stdout.count("held ")


def below(one: Keeper) -> list[psutil.Process]:
    return list(psutil.Process(one.process.pid).children(recursive=True))


def test_no_process_can_be_started(walled: Keeper) -> None:
    """Neither a fork bomb, nor a program, nor a daemon that outlives the trial."""
    _until(lambda: len(below(walled)) == 1)
    assert held(walled, """
        import subprocess, multiprocessing
        for _ in range(200):
            tried("fork", os.fork)
        tried("vfork", lambda: call(58))
        tried("clone", lambda: call(56, 17, 0, 0, 0, 0))
        tried("clone3", lambda: call(435, bytes(88), ctypes.c_size_t(88)))
        tried("exec", lambda: os.execv("/bin/sh", ["sh"]))
        tried("spawn", lambda: os.posix_spawn("/bin/sh", ["sh"], {}))
        tried("subprocess", lambda: subprocess.run(["/bin/sh", "-c", "true"]))
        tried("multiprocessing", lambda: multiprocessing.Process(target=print).start())
        tried("setsid", os.setsid)
        tried("daemon", lambda: libc.daemon(0, 0) and call(-1))
        """) >= 208  # fmt: skip
    _until(lambda: len(below(walled)) == 1)


def test_threads_are_few_and_end_with_the_trial(walled: Keeper) -> None:
    """A bomb of threads with small stacks would fit into the memory."""
    code = """
    import threading, time
    threading.stack_size(32768)
    started = 0
    try:
        while started < 500:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            started += 1
    except RuntimeError:
        pass
    print(started)
    """
    outcome = attempt(walled, textwrap.dedent(code), threads=16)
    assert outcome.status == "passed"
    assert int(outcome.stdout) <= 18
    _until(lambda: len(below(walled)) == 1)
    assert below(walled)[0].num_threads() == 1


def test_there_is_no_network(walled: Keeper, tmp_path: Path) -> None:
    """Not loopback, not UDP, no Unix socket by path or abstract, no raw calls, no io_uring."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind(f"\0moehub-{os.getpid()}")
        abstract.listen()
        for path in (tmp_path, tmp_path / "s", *tmp_path.parents[:-1]):
            if path.owner() == psutil.Process().username():
                path.chmod(0o777)
        assert held(walled, f"""
            import socket, urllib.request
            tried("tcp", lambda: socket.create_connection(("127.0.0.1", {tcp.getsockname()[1]}), 2))
            tried("http", lambda: urllib.request.urlopen("http://127.0.0.1:{tcp.getsockname()[1]}", timeout=2))
            tried("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)))
            tried("raw", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
            tried("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
            tried("unix", lambda: socket.socket(socket.AF_UNIX).connect({str(tmp_path / "s")!r}))
            tried("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\\0moehub-{os.getpid()}"))
            tried("datagrams", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
            one, other = socket.socketpair()
            tried("elsewhere", lambda: one.sendto(b"x", "\\0moehub-{os.getpid()}"))
            tried("connect", lambda: one.connect({str(tmp_path / "s")!r}))
            tried("bind", lambda: one.bind("\\0mine"))
            tried("call", lambda: call(41, 2, 1, 0))
            tried("x32", lambda: call(0x40000000 + 41, 2, 1, 0))
            tried("io_uring", lambda: call(425, 8, bytes(120)))
            tried("name", lambda: socket.getaddrinfo("example.org", 80))
            """) == 15  # fmt: skip
        for one in (tcp, unix, abstract):
            one.settimeout(0.05)
            with pytest.raises(TimeoutError):
                one.accept()
        abstract.close()


def test_secrets_cannot_be_read(walled: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that everybody may read, homes, the environment, other processes, and files behind links."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    for path in (secret, *secret.parents[:-1]):
        if path.owner() == psutil.Process().username():
            path.chmod(0o777)
    monkeypatch.setenv("MOEHUB_SECRET", "hunter2")
    assert held(walled, f"""
        secret = {str(secret)!r}
        tried("file", lambda: open(secret).read())
        tried("folder", lambda: os.listdir({str(tmp_path)!r}))
        tried("logs", lambda: os.listdir("/var"))
        tried("home", lambda: os.listdir("/home"))
        tried("users", lambda: open("/etc/passwd").read())
        tried("own code", lambda: open({str(Path(__file__))!r}).read())
        for process in (1, os.getpid(), os.getppid(), {os.getpid()}, "self"):
            for name in ("environ", "mem", "maps", "cmdline"):
                tried(f"{{process}}/{{name}}", lambda: open(f"/proc/{{process}}/{{name}}", "rb").read(1))
        tried("raw", lambda: call(2, secret.encode(), 0, 0))
        tried("openat2", lambda: call(437, -100, secret.encode(), bytes(24), ctypes.c_size_t(24)))
        tried("handle", lambda: call(303, -100, secret.encode(), bytes(200), bytes(8), 0))

        def linked():
            os.symlink(secret, "/tmp/link")
            return open("/tmp/link").read()

        tried("link", linked)
        tried("up", lambda: open("../" * 20 + secret[1:]).read())
        tried("memory", lambda: open("/dev/mem", "rb").read(1))
        tried("terminal", lambda: open("/dev/tty", "rb").read(1))
        if set(os.environ) - {{"LC_CTYPE"}}:
            print("ESCAPED", os.environ)
        for descriptor in range(3, 64):
            tried("file", lambda: os.pread(descriptor, 1, 0))
        """) == 94  # fmt: skip


def test_nothing_is_written_outside_the_scratch_folder(walled: Keeper, tmp_path: Path) -> None:
    """Also not through links, in shared memory, or by changing what a file is."""
    victim, folder = tmp_path / "victim", tmp_path / "open"
    victim.write_text("as it was")
    folder.mkdir()
    for path in (victim, folder, *folder.parents[:-1]):
        if path.owner() == psutil.Process().username():
            path.chmod(0o777)
    mark = f"moehub-{os.getpid()}"
    assert held(walled, f"""
        victim, folder = {str(victim)!r}, {str(folder)!r}
        tried("write", lambda: open(victim, "w"))
        tried("append", lambda: open(victim, "a"))
        tried("create", lambda: open(folder + "/x", "w"))
        tried("shm", lambda: open("/dev/shm/{mark}", "w"))
        tried("var", lambda: open("/var/tmp/{mark}", "w"))
        tried("truncate", lambda: os.truncate(victim, 0))
        tried("chmod", lambda: os.chmod(victim, 0o600))
        tried("chown", lambda: os.chown(victim, os.getuid(), -1))
        tried("utime", lambda: os.utime(victim, (0, 0)))
        tried("unlink", lambda: os.unlink(victim))
        tried("rename", lambda: os.rename(victim, folder + "/y"))
        tried("mkdir", lambda: os.mkdir(folder + "/z"))
        tried("xattr", lambda: os.setxattr(victim, "user.x", b"x"))
        tried("mknod", lambda: os.mknod("/tmp/device", 0o60666, os.makedev(8, 0)))
        tried("library", lambda: open(os.__file__, "a"))
        tried("here", lambda: open("/{mark}", "w"))

        def linked():
            os.symlink(folder, "/tmp/folder")
            return open("/tmp/folder/x", "w")

        def hard():
            os.link(victim, "/tmp/hard")
            return open("/tmp/hard", "w")

        tried("link", linked)
        tried("hard link", hard)
        """) == 18  # fmt: skip
    assert (victim.read_text(), list(folder.iterdir())) == ("as it was", [])
    assert not Path(f"/dev/shm/{mark}").exists()  # noqa: S108 (that it is not there)


def test_the_scratch_folder_is_small_and_new(walled: Keeper) -> None:
    """It is in memory, has room for so much, and holds nothing of an earlier trial."""
    if not walled.scratch:
        assert held(walled, 'tried("tmp", lambda: open("/tmp/x", "w"))') == 1
        return
    fill = """
    import os
    def fill():
        for number in range(100):
            with open(f"/tmp/{number}", "wb") as file:
                for _ in range(100):
                    file.write(bytes(1 << 16))
    tried("room", fill)
    print("held", sum(entry.stat().st_blocks * 512 for entry in os.scandir("/tmp")) <= 4 << 20)
    """
    outcome = attempt(walled, PRELUDE + textwrap.dedent(fill), disk=4 << 20)
    assert outcome.stdout.splitlines() == ["held room OSError", "held True"]
    many = "for number in range(5000):\n    open(f'/tmp/{number}', 'w').close()"
    assert "No space left" in attempt(walled, many).stderr
    assert attempt(walled, "import os; print(os.listdir('/tmp'), os.getcwd())").stdout == "[] /tmp\n"


def test_what_is_printed_without_end_is_cut_off(walled: Keeper) -> None:
    """At the limit, and the code is ended."""
    outcome = attempt(walled, "while True: print('x' * 1000)", output=10_000)
    assert (outcome.status, len(outcome.stdout)) == ("output", 10_000)
    assert attempt(walled, "import os\nwhile True: os.write(2, b'y' * 4096)", output=10_000).status == "output"


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import signal\nfor n in signal.valid_signals() - {9, 19}: signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        "try:\n    while True: pass\nfinally:\n    while True: pass",
        "10 ** 10 ** 10",
    ],
)
def test_what_does_not_end_is_ended(walled: Keeper, code: str) -> None:
    """Whatever it does about signals."""
    started = time.monotonic()
    assert attempt(walled, code, seconds=0.5).status == "timeout"
    assert time.monotonic() - started < 4
    _until(lambda: len(below(walled)) == 1)


def test_memory_is_bounded(walled: Keeper) -> None:
    """In Python's objects, in mappings, and in shared memory."""
    assert attempt(walled, "x = bytearray(1 << 32)").status == "memory"
    assert attempt(walled, "x = []\nwhile True: x.append(bytearray(1 << 20))").status == "memory"
    assert attempt(walled, "def f(): return bytearray(1 << 32)", "assert f()").status == "memory"
    assert held(walled, """
        import mmap
        tried("mapping", lambda: mmap.mmap(-1, 1 << 32))
        tried("memfd", lambda: os.memfd_create("x"))
        tried("segment", lambda: call(29, 0, 1 << 20, 0o1600))
        tried("lock", lambda: call(149, 0, 1 << 30))
        """) == 4  # fmt: skip


def test_other_processes_cannot_be_touched(walled: Keeper) -> None:
    """Neither signalled, also not by a file's owner, nor traced, read, limited or renamed."""
    with subprocess.Popen(["/bin/sleep", "60"]) as victim:
        try:
            assert held(walled, f"""
                import fcntl, resource, signal
                for process in (1, os.getppid(), -1, 0, {os.getpid()}, {victim.pid}, {walled.process.pid}):
                    tried("kill", lambda: os.kill(process, signal.SIGKILL))
                    tried("queue", lambda: call(129, process, 9, bytes(128)))
                    tried("trace", lambda: call(101, 16, process, 0, 0))
                    tried("open", lambda: call(434, process, 0))
                    tried("read", lambda: call(310, process, bytes(16), 1, bytes(16), 1, 0))
                    tried("limit", lambda: call(302, process or -1, 7, bytes(16), 0))
                    tried("nice", lambda: call(141, 0, process or 1, 19))
                read, write = os.pipe()
                tried("owner", lambda: fcntl.fcntl(read, fcntl.F_SETOWN, {victim.pid}))
                tried("signal", lambda: fcntl.fcntl(read, 10, 9))
                tried("io control", lambda: fcntl.ioctl(read, 0x8901, bytes(4)))
                tried("group", lambda: os.killpg(os.getpgrp(), signal.SIGKILL))
                """) == 53  # fmt: skip
            assert victim.poll() is None
        finally:
            victim.kill()


def test_no_wall_can_be_taken_down(walled: Keeper) -> None:
    """No mounts, namespaces, keys, BPF, modules or higher limits."""
    assert held(walled, """
        import resource
        tried("mount", lambda: call(165, b"none", b"/tmp", b"tmpfs", 0, 0))
        tried("unmount", lambda: call(166, b"/tmp", 2))
        tried("namespaces", lambda: call(272, 0x10000000))
        tried("root", lambda: os.chroot("/"))
        tried("pivot", lambda: call(155, b"/", b"/"))
        tried("enter", lambda: call(308, 3, 0))
        tried("keys", lambda: call(250, 0, -3, 1))
        tried("bpf", lambda: call(321, 0, bytes(8), 8))
        tried("watch", lambda: call(298, bytes(128), 0, -1, -1, 0))
        tried("fault", lambda: call(323, 0))
        tried("process control", lambda: call(157, 4, 1, 0, 0, 0))
        tried("user", lambda: os.setuid(0))
        tried("limit", lambda: call(160, 7, bytes([255] * 16)))
        tried("module", lambda: call(175, bytes(8), 8, b""))
        tried("host name", lambda: call(170, b"x", 1))
        tried("clock", lambda: call(227, 0, bytes(16)))
        """) == 16  # fmt: skip


@pytest.mark.parametrize(
    "code",
    [
        "def f(n): return f(n + 1)\nf(0)",
        "import sys; sys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\nf(0)",
        "import sys; sys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
        "import ctypes; ctypes.string_at(0)",
        "import os; os.abort()",
        "import os; os.closerange(0, 64)\nwhile True: pass",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    ],
)
def test_a_crash_is_a_failure_and_the_keeper_lives(walled: Keeper, code: str) -> None:
    """Deep recursion, a null pointer, a signal to itself."""
    assert attempt(walled, code, seconds=1).status in {"failed", "memory", "timeout"}
    assert attempt(walled, "print(1)").stdout == "1\n"


def test_what_was_changed_is_as_before_in_the_next_trial(walled: Keeper) -> None:
    """Each is run in processes of its own."""
    spoil = "import builtins, json, sys\nbuiltins.len = json.dumps = lambda *_, **__: 'spoilt'\nsys.modules.clear()"
    assert attempt(walled, spoil, "assert False").status == "failed"
    assert attempt(walled, "import json; print(json.dumps([1]), len([1]))", "assert True").stdout == "[1] 1\n"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_code_ends_with_whoever_runs_it(how: signal.Signals) -> None:
    """Even if that one is killed: nothing is left behind."""
    script = """if True:
        from moehub import sandbox
        print(flush=True)
        sandbox.run("while True: pass", limits=sandbox.Limits(seconds=60))
    """
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        own = psutil.Process(process.pid)
        _until(lambda: len(own.children(recursive=True)) >= 4)
        started = own.children(recursive=True)
        process.send_signal(how)
        process.wait(10)
        assert psutil.wait_procs(started, timeout=10)[1] == []


def _until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.02)
