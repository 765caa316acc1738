"""The filter, read as the kernel reads it, for processors that are not at hand too."""

import errno
import platform
import re
import struct
from pathlib import Path

import pytest

from moehub.sandbox import seccomp
from moehub.sandbox.syscalls import JUDGED, MACHINES, ON_SCRATCH, PLAIN

ALLOW, KILL = 0x7FFF0000, 0x80000000
DENY, UNKNOWN = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
ME = 77
HEADERS = {"x86_64": "x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "asm-generic/unistd.h"}


def judged(machine: str, number: int, *arguments: int, scratch: bool = True, architecture: int | None = None) -> int:
    """Return what the filter of a process makes of a system call."""
    data = struct.pack(
        "<iIQ6Q", number, architecture or MACHINES[machine].architecture, 0, *arguments, *[0] * (6 - len(arguments))
    )
    program, at, loaded = seccomp.program(ME, scratch=scratch), 0, 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        match code:
            case 0x20:
                (loaded,) = struct.unpack_from("<I", data, value)
            case 0x54:
                loaded &= value
            case 0x15:
                at += yes if loaded == value else no
            case 0x45:
                at += yes if loaded & value else no
            case _:
                return value


@pytest.fixture(params=sorted(MACHINES))
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(platform, "machine", lambda: request.param)
    return str(request.param)


def test_only_what_is_named_is_let_through(machine: str) -> None:
    """Of all numbers, also those of another way to call (x32)."""
    numbers = MACHINES[machine].numbers
    judge = {numbers[name] for name in JUDGED & numbers.keys()}
    for scratch in (True, False):
        plain = {numbers[name] for name in (PLAIN | ON_SCRATCH if scratch else PLAIN) & numbers.keys()}
        allowed = {number for number in range(1000) if judged(machine, number, scratch=scratch) == ALLOW}
        assert allowed - judge == plain
    assert judged(machine, 0x40000000 + numbers["read"]) == DENY
    assert judged(machine, numbers["read"], architecture=0x40000003) == KILL


def test_arguments_decide_where_they_must(machine: str) -> None:
    """Threads and no processes, itself and no other, locks and no owners, one kind of pair."""
    numbers = MACHINES[machine].numbers
    for name, arguments, verdict in (
        ("clone", (0x00010000 | 0x100,), ALLOW), ("clone", (17,), DENY), ("clone3", (), UNKNOWN),
        ("kill", (ME, 9), ALLOW), ("kill", (1, 9), DENY), ("kill", (2**32 - 1, 9), DENY), ("kill", (0, 9), DENY),
        ("tgkill", (ME, 1, 9), ALLOW), ("tgkill", (ME + 1, 1, 9), DENY), ("tkill", (1, 9), DENY),
        ("prlimit64", (0, 7), ALLOW), ("prlimit64", (ME, 7), DENY), ("prlimit64", (1, 7), DENY),
        ("fcntl", (3, 0), ALLOW), ("fcntl", (3, 1030), ALLOW), ("fcntl", (3, 8), DENY), ("fcntl", (3, 10), DENY),
        ("fcntl", (3, 15), DENY), ("ioctl", (3, 0x5401), ALLOW), ("ioctl", (3, 0x5421), ALLOW),
        ("ioctl", (3, 0x8901), DENY), ("ioctl", (3, 0x5412), DENY),
        ("socketpair", (1, 1), ALLOW), ("socketpair", (1, 1 | 0o2004000), ALLOW), ("socketpair", (1, 2), DENY),
        ("socketpair", (2, 1), DENY),
    ):  # fmt: skip
        assert judged(machine, numbers[name], *arguments) == verdict, (name, arguments)


def test_the_numbers_are_the_kernels(machine: str) -> None:
    """As its headers have them, where they are installed."""
    header = Path("/usr/include") / HEADERS[machine]
    if not header.is_file():
        pytest.skip(f"there is no {header}")
    found = re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", header.read_text(encoding="utf-8"))
    theirs = {name: int(number) for name, number in found}
    theirs.setdefault("newfstatat", theirs.get("fstatat", -1))
    ours = MACHINES[machine].numbers
    assert {name: theirs[name] for name in ours} == ours
    missing = (PLAIN | ON_SCRATCH | JUDGED) - ours.keys()
    assert missing & theirs.keys() == set()
