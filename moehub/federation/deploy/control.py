"""The operator's hand on Flower: runs are handed over and stopped, nodes registered and listed, by `flwr` commands."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moehub.errors import FederationError
from moehub.federation.deploy import services
from moehub.federation.deploy.address import Address

_CONNECTION = "moehub"
_SECONDS = 120.0
_UNAVAILABLE = "Connection to the SuperLink is unavailable"
_FINISHED = "[code: 18]"
_UNKNOWN = "[code: 16]", "[code: 24]", "[code: 28]"


@dataclass(frozen=True)
class Control:
    """One SuperLink, as its operator reaches it: on loopback, from its own machine."""

    home: Path
    """FLWR_HOME of the server."""

    def connect(self, port: int, authority: Path | None) -> None:
        """Write down where the SuperLink is."""
        address = Address(services.LOOPBACK, port)
        services.connection(self.home, _CONNECTION, address=str(address), authority=authority)

    def submit(self, app: Path, **changes: bool) -> int:
        """Hand over the run of an app, some settings changed, and return Flower's id of it."""
        settings = " ".join(f"{name}={str(value).lower()}" for name, value in changes.items())
        options = ["--run-config", settings] if changes else []
        return int(self._flwr("run", str(app), _CONNECTION, *options)["run-id"])

    def stop(self, run: int) -> bool:
        """Stop a run, and return whether it was one that had not ended."""
        try:
            self._flwr("stop", str(run), _CONNECTION)
        except _RefusedError as error:
            if _FINISHED in str(error) or any(code in str(error) for code in _UNKNOWN):
                return False
            raise
        return True

    def runs(self) -> dict[int, str]:
        """Return Flower's id of each run → its status."""
        return {int(each["run-id"]): each["status"] for each in self._flwr("list", _CONNECTION)["runs"]}

    def nodes(self) -> dict[int, str]:
        """Return Flower's id of each node → its status; nodes that were unregistered are left out."""
        found = {int(each["node-id"]): each["status"] for each in self._flwr("supernode", "list", _CONNECTION)["nodes"]}
        return {node: status for node, status in found.items() if status != "unregistered"}

    def register(self, key: Path) -> int:
        """Let the SuperLink know the public key in a file, and return the id of its node."""
        return int(self._flwr("supernode", "register", str(key), _CONNECTION)["node-id"])

    def unregister(self, node: int) -> None:
        """Let the SuperLink forget a node; one that it does not know is forgotten already."""
        try:
            self._flwr("supernode", "unregister", str(node), _CONNECTION)
        except _RefusedError as error:
            if not any(code in str(error) for code in _UNKNOWN):
                raise

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        """Run `flwr` and return what it says in JSON.

        Raises:
            FederationError: the SuperLink does not run, does not answer, or refuses.
        """
        try:
            done = subprocess.run(  # noqa: S603 (our own command line)
                [services.executable("flwr"), *arguments, "--format", "json"],
                env=services.environment(self.home),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise FederationError(f"Flower's SuperLink gave no answer in {_SECONDS:.0f} s: try again") from error
        try:
            said = json.loads(done.stdout)
        except ValueError:
            said = {"error-message": (done.stderr.strip() or done.stdout.strip())}
        if isinstance(said, dict) and said.get("success"):
            return said
        message = str(said.get("error-message", said)) if isinstance(said, dict) else str(said)
        if _UNAVAILABLE in message:
            raise FederationError(
                "the server does not run: start it with `moehub federate server`, or name its folder with --state"
            )
        raise _RefusedError(
            f"Flower refuses it: {message.strip().splitlines()[-1] if message.strip() else 'no reason'}"
        )


class _RefusedError(FederationError):
    """Flower answered, and not with what it was asked for."""
