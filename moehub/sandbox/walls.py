"""The walls around strangers' code: what a keeper builds once, and what each process that it starts is put behind.

    enter()     namespaces of its own (user, mounts, processes, network, IPC, host name), a root that holds the
                standard library and nothing else, and, where it was root, another user
    confine()   in each process: limits, Landlock, no capabilities, seccomp

Each wall that the machine has is built. Without namespaces there is no folder to write to, Landlock keeps the files,
and seccomp everything else.
"""

import contextlib
import functools
import os
import resource
import signal
import socket
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from moehub.sandbox import kernel, landlock, seccomp

SCRATCH = "/tmp"  # noqa: S108 (a mount of the sandbox's own, made anew for each trial)
NAMESPACES, LANDLOCK, SECCOMP, USER = "namespaces", "landlock", "seccomp", "user"
_ALL = (
    kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
)  # fmt: skip
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/nix/store")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_STAGE = "/sys"
"""A folder that no Python lies in: the new root is built there."""
_MOST_FILES = 64
_BESIDE = 5
"""Processes of a sandbox that a limit of threads must not count: two of the keeper, three of the trial."""
_UNPRIVILEGED = (0x70000000, 65534)
"""Users that nobody else is: the first with the process's number added, else `nobody`."""


class MissingError(Exception):
    """A wall that cannot be built here; its text says why."""


@dataclass(frozen=True)
class Walls:
    """What stands."""

    found: Mapping[str, str]
    """Wall → what it is like, or after `no: ` why there is none."""
    scratch: bool
    """Whether there is a folder to write to."""
    counted: bool
    """Whether threads can be counted apart from what else the user runs."""

    def has(self, wall: str) -> bool:
        """Return whether a wall stands."""
        return not self.found[wall].startswith("no: ")


def enter(without: frozenset[str] = frozenset()) -> Walls:
    """Build what can be built, and say what stands; a new process namespace begins with the next child.

    Raises:
        MissingError: network, files or processes cannot be kept; the sentence says what is missing.
    """
    root, proc = os.geteuid() == 0, os.open("/proc", os.O_RDONLY | os.O_CLOEXEC)
    found = {LANDLOCK: _landlock(without), SECCOMP: _seccomp(without), USER: "the one who started it"}
    rooted = False
    _library()
    if root:
        found[NAMESPACES] = found[USER] = ""
        rooted = _tried(found, without, _root_mounts)
        found[USER] = _become_somebody()
    scratch = (rooted or not root) and _tried(found, without, lambda: _own_namespaces(proc, rooted=rooted))
    os.close(proc)
    walls = Walls(found, scratch=scratch, counted=scratch or root)
    _demand(walls, files=rooted or scratch or walls.has(LANDLOCK))
    return walls


def _landlock(without: frozenset[str]) -> str:
    number = 0 if LANDLOCK in without else landlock.version()
    return f"version {number}" if number else "no: this kernel has no Landlock (Linux 5.13 and later), or it is off"


def _seccomp(without: frozenset[str]) -> str:
    if SECCOMP in without or not seccomp.supported():
        return f"no: the system calls of {os.uname().machine} are not known"
    return "on"


def _tried(found: dict[str, str], without: frozenset[str], build: Callable[[], None]) -> bool:
    """Build namespaces if they can be had, and note what came of it."""
    try:
        if NAMESPACES in without:
            raise PermissionError("they are switched off")
        build()
    except OSError as error:
        found[NAMESPACES] = f"no: {error}"
        return False
    found[NAMESPACES] = "user, mounts, processes, network, IPC"
    return True


def _demand(walls: Walls, *, files: bool) -> None:
    if not walls.has(SECCOMP):
        raise MissingError(f"seccomp, which keeps network and processes ({walls.found[SECCOMP][4:]})")
    if not files:
        raise MissingError(
            f"both of what keeps files: Landlock ({walls.found[LANDLOCK][4:]}) and "
            f"namespaces ({walls.found[NAMESPACES][4:]})"
        )


def _root_mounts() -> None:
    """As root, before becoming somebody else: the library may lie where only root can go."""
    kernel.unshare(kernel.CLONE_NEWNS)
    _make_root()


def _become_somebody() -> str:
    for user in (_UNPRIVILEGED[0] + os.getpid(), _UNPRIVILEGED[1]):
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            kernel.own_again()
            return str(user)
    raise MissingError("the right to become another user than root (CAP_SETUID)")


def _own_namespaces(proc: int, *, rooted: bool) -> None:
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(_ALL)
    for name, text in {"setgroups": "deny", "uid_map": f"1000 {user} 1", "gid_map": f"1000 {group} 1"}.items():
        file = os.open(f"self/{name}", os.O_WRONLY, dir_fd=proc)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)
    if not rooted:
        _make_root()
    with mounted(1 << 20):
        pass


def _make_root() -> None:
    """Make a read-only root that holds the standard library, a few devices and the place of the scratch folder."""
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", _STAGE, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=0755")
    for path in _library():
        _bind(path, kernel.READ_ONLY | kernel.NO_SETUID | kernel.NO_DEVICES)
    for path in _DEVICES:
        _bind(path, kernel.READ_ONLY | kernel.NO_SETUID)
    for name in (SCRATCH, "/old"):
        Path(_STAGE + name).mkdir()
    kernel.pivot_root(_STAGE, f"{_STAGE}/old")
    os.chdir("/")
    kernel.unmount("/old")
    Path("/old").rmdir()
    kernel.seal("/", kernel.READ_ONLY, below=False)


@functools.cache
def _library() -> list[str]:
    """Return what Python needs to run, none below another; first asked for while all of it can still be seen."""
    paths = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), f"{sys.base_prefix}/lib", *_LIBRARIES}
    there = sorted(path for path in paths if Path(path).exists())
    return [path for path in there if not any(path.startswith(f"{other}/") for other in there)]


def _bind(path: str, attributes: int) -> None:
    place = Path(_STAGE + path)
    place.parent.mkdir(parents=True, exist_ok=True)
    if Path(path).is_symlink():
        place.symlink_to(Path(path).readlink())
        return
    if Path(path).is_dir():
        place.mkdir(exist_ok=True)
    else:
        place.touch()
    kernel.mount(path, str(place), flags=kernel.MS_BIND | kernel.MS_REC)
    kernel.seal(str(place), attributes)


@contextlib.contextmanager
def mounted(size: int) -> Iterator[None]:
    """Mount an empty scratch folder of at most `size` bytes, and take it away."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("tmpfs", SCRATCH, "tmpfs", flags, f"size={size},nr_inodes=1024,mode=0777")
    try:
        yield
    finally:
        kernel.unmount(SCRATCH)


def confine(walls: Walls, limits: Mapping[str, int]) -> None:
    """Put this process behind the walls for good; `limits` are seconds, memory and disk (bytes) and threads.

    Raises:
        OSError: a wall that was there before cannot be built any more.
    """
    kernel.die_with_parent(signal.SIGKILL)
    seconds, disk = limits["seconds"], limits["disk"] if walls.scratch else 0
    for which, most in {
        resource.RLIMIT_CPU: seconds + 1,
        resource.RLIMIT_AS: limits["memory"],
        resource.RLIMIT_FSIZE: disk,
        resource.RLIMIT_NOFILE: _MOST_FILES,
        resource.RLIMIT_NPROC: limits["threads"] + _BESIDE if walls.counted else 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }.items():
        _, hard = resource.getrlimit(which)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)  # noqa: PLW2901 (a lower one stays)
        resource.setrlimit(which, (most, most))
    os.chdir(SCRATCH if walls.scratch else "/")
    kernel.gain_nothing()
    if walls.has(LANDLOCK):
        landlock.restrict([*_library(), *_DEVICES], ["/dev/null", *([SCRATCH] if walls.scratch else [])])
    kernel.drop_capabilities()
    seccomp.restrict(scratch=walls.scratch)


def holes() -> list[str]:
    """Return what this process can do though it is confined: nothing, or the walls do not hold on this machine."""
    forbidden: dict[str, Callable[[], object]] = {
        "open a socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "open a Unix socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
        "start a process": os.fork,
        "signal its parent": lambda: os.kill(os.getppid() or 1, 0),
        "write into the root": lambda: os.open("/x", os.O_CREAT | os.O_WRONLY),
        "read other processes": lambda: list(Path("/proc").iterdir()),
        "read the users' list": lambda: os.open("/etc/passwd", os.O_RDONLY),
    }
    return [name for name, attempt in forbidden.items() if _works(attempt)]


def _works(attempt: Callable[[], object]) -> bool:
    with contextlib.suppress(OSError):
        attempt()
        return True
    return False
