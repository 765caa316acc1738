"""What the hub says about each request: one short line on standard error.

Neither headers nor what stands behind the question mark are in it: tokens and signatures would be.
"""

import logging
import time
from dataclasses import dataclass, field

from starlette.types import Message, Scope, Send

log = logging.getLogger("moehub.hubserver")
_LONGEST = 300
HUNG_UP = 499
"""What the log says of a client that did not wait for the answer."""


@dataclass
class Watched:
    """An answer on its way, and what the log needs to know of it."""

    scope: Scope
    send: Send
    visitor: str = "-"
    status: int | None = None
    """None: no answer has begun."""
    size: int = 0
    """Bytes of the answer so far."""
    began: float = field(default_factory=time.monotonic)

    async def __call__(self, message: Message) -> None:
        """Send a message, and remember what it was."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.size += len(message.get("body", b""))
        await self.send(message)

    def write(self, status: int | None = None) -> None:
        """Write the line about this request."""
        path = self.scope["raw_path"][:_LONGEST].decode("ascii", "replace")  # h11 lets nothing through but what shows
        milliseconds = (time.monotonic() - self.began) * 1000
        log.info(
            "%s %s %s %s %d B %.0f ms",
            self.visitor,
            self.scope["method"],
            path,
            status or self.status or HUNG_UP,
            self.size,
            milliseconds,
        )


def to_standard_error() -> None:
    """Write lines with their time to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
