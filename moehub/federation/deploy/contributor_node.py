"""A contributor's node: a worker that keeps torch, the base and the text loaded, and Flower's SuperNode beside it.

Both are kept running until this process is ended. What Flower says when it cannot go on becomes one sentence.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from moehub import base as bases
from moehub.card import BasePin
from moehub.errors import ConfigError, FederationError
from moehub.federation.deploy import endings, guard, keys, place, services
from moehub.federation.deploy.admission import CLOCK
from moehub.federation.deploy.processes import Processes
from moehub.federation.deploy.reach import Way, reach
from moehub.federation.node.contributor import to_flower
from moehub.federation.settings import NodeConfig

SUPERNODE, WORKER = "supernode", "worker"
_RESTARTS = 1_000_000
"""A node waits for its server however long that is away; what waiting cannot cure is told from Flower's words."""
_POLL = 0.5
_WAITING = 10.0
_SAID_AGAIN = 300.0

_BUSY = "end it, or name another --state"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Contribution:
    """What a node does, and how it comes to its server."""

    node: NodeConfig
    way: Way
    key: Path | None
    """Its private key; None: there are none."""
    base: BasePin | None = None
    """The base that the invitation asks for."""


def prepare(contribution: Contribution, *, say: Say) -> bool:
    """Make what is missing and check what can be checked here; return whether the node can be started.

    Raises:
        BaseModelError: the base is not there, or not the one that the invitation asks for.
        ConfigError: the base is on no hub, and nobody said where it is.
        FederationError: the key is none, or can be read by others.
    """
    key, node = contribution.key, contribution.node
    if key is not None and keys.ensure(key):
        name = f'"{node.name}"' if node.name else "NAME"
        say(
            f"made the key {key}; send {keys.public_file(key)} to the operator of {contribution.way.address}, who lets "
            f"it in with\n  moehub federate register {keys.public_file(key).name} --name {name} "
            f"--domain {node.domain}\nand then start this again"
        )
        return False
    if contribution.base is not None:
        _check_base(node, contribution.base, say)
    return True


def _check_base(node: NodeConfig, pin: BasePin, say: Say) -> None:
    if not node.base and pin.revision is None:
        raise ConfigError(
            f"the federation's base, {pin.reference}, is a folder and on no hub: name your copy of it with --base"
        )
    reference = node.base or pin.reference
    say(f"checking the base {reference}")
    base = bases.find(reference, revision=None if node.base else pin.revision)
    base.require(pin.digest, otherwise=f"it is not {pin.reference}, which the federation trains on")


def run(contribution: Contribution, folder: Path, *, say: Say) -> None:
    """Take part until this process is ended; every process that was started has ended on return.

    Raises:
        FederationError: the server lets this node in no more, or cannot be the right one; or another node runs in the
            folder.
    """
    folder = folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with endings.leaving_properly(), place.held(folder / place.PLACE, who="a node", cure=_BUSY):
        _wait(contribution.way, say)
        with Processes(folder / place.PLACE) as processes:
            _start(processes, contribution)
            follower = Follower(contribution, processes.log(SUPERNODE), processes.log(WORKER), say)
            while True:
                for fall in processes.watch():
                    follower.fell(fall.name, fall.code, fall.wait)
                follower.look()
                time.sleep(_POLL)


def _wait(way: Way, say: Say) -> None:
    """Wait until the server answers."""
    said, at = "", 0.0
    while reason := reach(way):
        if reason != said or time.monotonic() - at > _SAID_AGAIN:
            say(f"waiting: {reason}")
            said, at = reason, time.monotonic()
        time.sleep(_WAITING)


def _start(processes: Processes, contribution: Contribution) -> None:
    way, node = contribution.way, contribution.node
    home = processes.folder
    environment = services.environment(home / "home", first=guard.doors(home / "doors"))
    desk = home / place.DESKS / "0"
    processes.start(services.worker(environment, desk=desk, name=WORKER))
    configuration = services.node_configuration(home / "node.toml", to_flower(node, desk))
    processes.start(
        services.supernode(
            environment,
            name=SUPERNODE,
            superlink=str(way.address),
            port=services.free_port(),
            configuration=configuration,
            authority=way.authority,
            system=not way.insecure and way.authority is None,
            key=contribution.key,
            restarts=_RESTARTS,
        )
    )


@dataclass
class Follower:
    """Turns what the node's processes write into lines for its owner."""

    contribution: Contribution
    supernode: Path
    worker: Path
    say: Say
    _read: dict[Path, int] = field(default_factory=dict)
    _lately: list[str] = field(default_factory=list)
    _last: str = ""

    def __post_init__(self) -> None:
        """Pass over what an earlier start wrote."""
        self._read = {path: path.stat().st_size if path.exists() else 0 for path in (self.supernode, self.worker)}

    def look(self) -> None:
        """Say what is new."""
        for line in self._new(self.worker):
            self.say(f"worker: {line}")
        for line in self._new(self.supernode):
            self._lately = [*self._lately, line][-60:]
            text = _told(line, self.contribution)
            if text and not text == self._last == _AWAY:
                self.say(text)
            self._last = text or self._last

    def fell(self, name: str, code: int, wait: float) -> None:
        """Say that a process ended and is started again.

        Raises:
            FederationError: that would not help.
        """
        self.look()
        if name == SUPERNODE and (reason := hopeless("\n".join(self._lately), self.contribution)):
            raise FederationError(reason)
        self._lately = []
        self.say(f"the {name} ended with exit code {code}; it is started again in {wait:g} s")

    def _new(self, path: Path) -> list[str]:
        try:
            with path.open("rb") as file:
                file.seek(self._read[path])
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._read[path] += len(whole)
        return [line.rstrip() for line in whole.decode(errors="replace").splitlines() if line.strip()]


def _told(line: str, contribution: Contribution) -> str:
    """Return what a line of the SuperNode's log means to its owner, or nothing."""
    found = re.search(r"SuperNode ID: (\d+)", line)
    if found:
        return f"connected to {contribution.way.address} as node {found[1]}"
    found = re.search(r"Receiving: (\S+) message", line)
    if found:
        return _TASKS.get(found[1], f"asked: {found[1]}")
    if "Connection successful" in line:
        return f"{contribution.way.address} answers again"
    return _AWAY if "Connection attempt failed" in line else ""


_AWAY = "the server does not answer; trying again"
_TASKS = {
    "query.describe": "asked who this node is",
    "train": "asked to train",
    "evaluate": "asked to measure the expert",
    "query.statistics": "asked for router statistics",
}


def hopeless(said: str, contribution: Contribution) -> str:
    """Return why a SuperNode that ended would end again, in one sentence; nothing where waiting may help."""
    address, key, node = contribution.way.address, contribution.key, contribution.node
    public = keys.public_file(key) if key is not None else None
    register = f"`moehub federate register {public.name if public else 'KEY.pub'} --name NAME --domain {node.domain}`"
    sentences = {
        CLOCK: f"the clock of this machine is wrong, so {address} refuses its signature: set the clock",
        "[code: 2004]": f"{address} does not let the key {key} in: have {public} registered by its operator with "
        f"{register}, then start this again",
        "[code: 2001]": f"{address} lets registered keys in alone: leave out --insecure",
        "CERTIFICATE_VERIFY_FAILED": f"{address} shows a certificate that cannot be verified: name the file that the "
        "server's operator gave you with --invitation or --root-certificates",
        "Exit Code: 606": f"the Flower of this machine does not fit that of {address}: install the moehub that its "
        "operator has",
        "Exit Code: 302": f"{key} is no private key that Flower takes: make one with `ssh-keygen -t ecdsa -b 384`",
    }
    return next((sentence for sign, sentence in sentences.items() if sign in said), "")
