"""A federation's server: Flower's SuperLink on loopback, the gateway before it, and one run at a time.

    nodes ── TLS ──▶ gateway ── TLS ──▶ SuperLink ── SuperExec ── ServerApp (the run, writes the journal)
                                            ▲
    operator on this machine (moehub federate run, status, stop, …)

Whatever dies is started again. A run that was in progress when the server ended goes on when it is started again.
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from moehub.errors import ConfigError, FederationError
from moehub.federation.deploy import certificates, endings, guard, pids, place, services
from moehub.federation.deploy.address import Address
from moehub.federation.deploy.certificates import Certificates
from moehub.federation.deploy.control import Control
from moehub.federation.deploy.overseer import Overseer
from moehub.federation.deploy.processes import Processes, Service
from moehub.federation.deploy.registry import Registry
from moehub.federation.deploy.server_folder import ServerFolder, Serving

SERVER = "server"
"""The supervising command's name among the pids."""
GATEWAY = "gateway"
_READY = 120.0
_POLL = 0.5
_RESTARTS = 20
"""Deaths in a row of one process after which the server gives up; whoever started it may start it again."""

_BUSY = "stop it with `moehub federate stop --server`, or name another --state"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Offer:
    """Where and how a server is to serve; contradictions are refused."""

    listen: Address
    """Where the gateway listens; behind a proxy: where the SuperLink does."""
    public: tuple[Address, ...] = ()
    """What nodes call it, the first one in invitations; none: as it listens."""
    certificate: Path | None = None
    """What it shows to nodes; None: it makes one."""
    key: Path | None = None
    authority: Path | None = None
    """What nodes need to know `certificate` by; None: every system does."""
    behind_proxy: bool = False
    """Whether somebody else's proxy stands in the gateway's place."""
    insecure: bool = False
    """Whether there is neither TLS nor keys."""

    def __post_init__(self) -> None:
        """Refuse what would open the server, or could not work.

        Raises:
            ConfigError: it would.
        """
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("--certificate and --key belong together: give both, or neither")
        if self.insecure:
            self._require_loopback()
            if self.certificate is not None or self.behind_proxy:
                raise ConfigError("--insecure leaves TLS and keys out: leave out the certificate, or --behind-proxy")
        if self.behind_proxy and not self.listen.loopback:
            raise ConfigError(
                f"behind a proxy the server listens to this machine alone, --host is {self.listen.host}: "
                "leave out --host"
            )
        if self.behind_proxy and self.certificate is not None:
            raise ConfigError("behind a proxy it is the proxy that shows a certificate: leave out --certificate")
        if (self.listen.everywhere or self.behind_proxy) and not self.public:
            raise ConfigError("nodes need to be told where the server is: name it with --address HOST[:PORT]")

    def _require_loopback(self) -> None:
        outside = [str(each) for each in (self.listen, *self.public) if not each.loopback]
        if outside:
            raise ConfigError(
                f"--insecure is for one machine alone, and {', '.join(outside)} can be reached from others: "
                "leave out --insecure, and a certificate is made; or take --host 127.0.0.1"
            )

    @property
    def address(self) -> Address:
        """What invitations say."""
        return self.public[0] if self.public else self.listen


@dataclass(frozen=True)
class _Wiring:
    """What the processes of a server have to do with one another."""

    folder: ServerFolder
    offer: Offer
    inner: Certificates | None
    """Of the SuperLink; None where there is no TLS."""
    port: int
    """Of the SuperLink."""
    environment: Mapping[str, str]

    @property
    def authority(self) -> Path | None:
        """What the SuperLink is known by on this machine."""
        return self.inner.authority if self.inner is not None else None

    @property
    def shown(self) -> tuple[Path, Path] | None:
        """Certificate and key that nodes see."""
        if self.offer.certificate is not None and self.offer.key is not None:
            return self.offer.certificate, self.offer.key
        return (self.inner.certificate, self.inner.key) if self.inner is not None else None

    def gateway(self) -> Service:
        """Return the gateway."""
        superlink = Address(services.LOOPBACK, self.port)
        options = {"host": self.offer.listen.host, "port": str(self.offer.listen.port)}
        options["upstream"] = f"{'https' if self.inner is not None else 'http'}://{superlink}"
        if self.inner is not None and self.shown is not None:
            certificate, key = self.shown
            options |= {"authority": str(self.inner.authority), "certificate": str(certificate), "key": str(key)}
            options["keys"] = str(self.folder.keys)
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        command = (sys.executable, "-P", "-m", "moehub.federation.deploy.gateway", *words)
        return Service(GATEWAY, command, self.environment, _RESTARTS)


def serve(path: Path, offer: Offer, *, say: Say, begin: Callable[[ServerFolder, Control], None] | None = None) -> None:
    """Serve until this process is ended; every process that was started has ended on return.

    `begin` is called once the server is up, where no run was ever handed to it.

    Raises:
        FederationError: another command works in the folder, or a process cannot be kept running.
    """
    folder = ServerFolder(path.absolute())
    # A run's log belongs to the operator, and so do the keys.
    folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with endings.leaving_properly(), place.held(folder.place, who="a federation", cure=_BUSY):
        _check_free(offer.listen)
        wiring = _wired(folder, offer)
        with Processes(folder.place) as processes:
            try:
                pids.record(folder.place, SERVER, os.getpid())
                control = _start(processes, wiring)
                say(_welcome(wiring))
                overseer = Overseer(folder, control, say)
                overseer.take_up()
                if begin is not None and folder.job() is None:
                    begin(folder, control)
                _watch(processes, wiring, overseer, say)
            finally:
                pids.forget(folder.place, SERVER)


def _check_free(listen: Address) -> None:
    """Refuse a port that somebody else has.

    Raises:
        FederationError: somebody does, or the host is none of this machine's.
    """
    try:
        family = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((listen.host, listen.port))
    except OSError as error:
        raise FederationError(
            f"the server cannot listen at {listen} ({error.strerror}): choose another --port, or another --host"
        ) from error


def _wired(folder: ServerFolder, offer: Offer) -> _Wiring:
    hosts = [each.host for each in (offer.listen, *offer.public) if not each.everywhere]
    inner = None if offer.insecure else certificates.own(folder.tls, hosts)
    port = offer.listen.port if offer.behind_proxy else services.free_port()
    foreign = offer.certificate is not None or offer.behind_proxy
    told = offer.authority if foreign or inner is None else inner.authority
    folder.serve(
        Serving(
            address=str(offer.address),
            authority="" if told is None else str(told.absolute()),
            port=port,
            insecure=offer.insecure,
            behind_proxy=offer.behind_proxy,
        )
    )
    Registry(folder.registry, folder.keys).begin()
    first = guard.doors(folder.place / "doors")
    return _Wiring(folder, offer, inner, port, services.environment(folder.place / "home", first=first))


def _start(processes: Processes, wiring: _Wiring) -> Control:
    """Start everything, each once what it needs answers."""
    folder, port, authority = wiring.folder, wiring.port, wiring.authority
    tls = None if wiring.inner is None else (wiring.inner.authority, wiring.inner.certificate, wiring.inner.key)
    processes.start(
        services.superlink(
            wiring.environment,
            host=services.LOOPBACK,
            port=port,
            database=folder.place / "state.db",
            tls=tls,
            authenticated=tls is not None,
        )
    )
    processes.wait_for(
        lambda: services.healthy(services.LOOPBACK, port, authority), "the SuperLink's start", seconds=_READY
    )
    control = Control(folder.place / "home")
    control.connect(port, authority)
    environment = {**wiring.environment, guard.PLACE: str(folder.place)}
    processes.start(
        services.superexec(environment, superlink=str(Address(services.LOOPBACK, port)), authority=authority)
    )
    if not wiring.offer.behind_proxy:
        processes.start(wiring.gateway())
        processes.wait_for(lambda: _answers(wiring), "the gateway's start", seconds=_READY)
    return control


def _answers(wiring: _Wiring) -> bool:
    """Say whether the gateway listens."""
    listen = wiring.offer.listen
    host = {"0.0.0.0": services.LOOPBACK, "::": "::1"}.get(listen.host, listen.host)  # noqa: S104 (not bound to)
    try:
        with socket.create_connection((host, listen.port), timeout=2):
            return True
    except OSError:
        return False


def _watch(processes: Processes, wiring: _Wiring, overseer: Overseer, say: Say) -> None:
    stamp = _stamp(wiring)
    while True:
        for fall in processes.watch():
            say(str(fall))
        overseer.look()
        if not wiring.offer.behind_proxy and (now := _stamp(wiring)) != stamp:
            stamp = now
            say("the certificate has changed: the gateway is started again with it")
            processes.end(GATEWAY)
            processes.start(wiring.gateway())
        time.sleep(_POLL)


def _stamp(wiring: _Wiring) -> tuple[int, ...]:
    """Return what changes when the shown certificate does; it may be missing while it is being renewed."""
    return tuple(path.stat().st_mtime_ns for path in wiring.shown or () if path.exists())


def _welcome(wiring: _Wiring) -> str:
    offer = wiring.offer
    if offer.behind_proxy:
        return f"the SuperLink listens at {offer.listen} for your proxy; nodes come to {offer.address}"
    if offer.insecure or wiring.shown is None:
        return f"nodes of this machine come to {offer.address}, without TLS and without keys"
    ends = certificates.read(wiring.shown[0]).not_valid_after_utc
    return f"nodes come to {offer.address}; the certificate is good until {ends:%Y-%m-%d}"
