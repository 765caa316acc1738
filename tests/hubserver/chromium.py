"""A Chromium without a window, steered through a pipe: no driver, no port."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--mute-audio"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync"),
    *("--disable-dev-shm-usage", "--remote-debugging-pipe"),
)
_PATIENCE = 60.0


@dataclass
class Chromium:
    """A browser with one page."""

    writing: int
    reading: int
    session: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    """Everything that it reported since the last page was opened."""
    _count: int = 0
    _rest: bytes = b""

    def ask(self, method: str, **values: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": values}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer)
                return dict(answer["result"])
            self.events.append(answer)

    def open(self, url: str) -> None:
        """Go to an address and wait until all of it is loaded."""
        self.events.clear()
        self.ask("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")

    def wait_for(self, method: str) -> None:
        """Wait until something is reported."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next())

    def show(self, *, width: int, height: int = 844, dark: bool) -> None:
        """Take the size of a device, and the colours that its owner prefers."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression on the page."""
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def type_into(self, selector: str, text: str) -> None:
        """Type into a field, press Enter, and wait for the page that follows."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        self.ask("DOM.focus", nodeId=self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"])
        self.ask("Input.insertText", text=text)
        self.press_enter(selector)

    def press_enter(self, selector: str) -> None:
        """Press Enter on an element, and wait for the page that follows."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        self.ask("DOM.focus", nodeId=self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"])
        self.events.clear()
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **key)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **key)
        self.wait_for("Page.loadEventFired")

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the last page was opened."""
        return [
            one["params"]["request"]["url"] for one in self.events if one.get("method") == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        """Return what the page's console shows."""
        kinds = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Network.loadingFailed")
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in kinds]

    def screenshot(self, path: Path, *, whole: bool = True) -> bytes:
        """Save a picture of the page, or of what a screen shows of it."""
        picture = base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"])
        path.write_bytes(picture)
        return picture

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE
        while b"\0" not in self._rest:
            assert select.select([self.reading], [], [], max(0.0, deadline - time.monotonic()))[0], "Chromium is silent"
            data = os.read(self.reading, 1 << 20)
            assert data, "Chromium has ended"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    """Run a browser until the block ends."""
    assert BINARY is not None
    its_reading, writing = os.pipe()
    reading, its_writing = os.pipe()
    # The protocol is spoken on file descriptors 3 and 4.
    command = f'exec 3<&{its_reading} 4>&{its_writing}; exec "$@"'
    process = subprocess.Popen(
        ["/bin/bash", "-c", command, "bash", BINARY, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(its_reading, its_writing),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(its_reading)
    os.close(its_writing)
    try:
        browser = Chromium(writing, reading)
        pages = [one for one in browser.ask("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        target = pages[0]["targetId"] if pages else browser.ask("Target.createTarget", url="about:blank")["targetId"]
        browser.session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log", "DOM"):
            browser.ask(f"{domain}.enable")
        browser.ask("Emulation.setScriptExecutionDisabled", value=True)
        yield browser
        browser.session = ""
        browser.ask("Browser.close")
        process.wait(_PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(reading)
        os.close(writing)
