"""The servers that are measured, each in a process of its own: the hub, and nginx over a folder of files."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PATIENCE = 60.0
_NGINX = """
daemon off;
worker_processes 1;
error_log stderr crit;
pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{ listen 127.0.0.1:{port}; root {files}; }}
}}
"""


@dataclass(frozen=True)
class Served:
    """A server that answers."""

    url: str
    pid: int

    def memory(self) -> int:
        """Return the most bytes that the process ever held (VmHWM); those that it started do not count."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) << 10 if found else 0


@contextlib.contextmanager
def hub(root: Path, *, gate: bool = False) -> Iterator[Served]:
    """Serve an open hub until the block ends."""
    port = _free_port()
    command = [sys.executable, "-m", "moehub", "hub", "serve", "--root", str(root), "--port", str(port), "--open"]
    with _running([*command, *([] if gate else ["--no-gate"])], f"http://127.0.0.1:{port}", "/api/models") as served:
        yield served


@contextlib.contextmanager
def static(files: Path, folder: Path) -> Iterator[Served]:
    """Serve files with nginx until the block ends; its own files go to `folder`.

    Raises:
        SystemExit: there is no nginx on this machine.
    """
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if nginx is None:
        raise SystemExit("there is no nginx here, and Python's own server would be no match: install nginx")
    port = _free_port()
    folder.mkdir()
    settings = folder / "nginx.conf"
    # One that is started by root reads files as somebody else, who may not look into a hub's root.
    user = "user root;\n" if os.geteuid() == 0 else ""
    settings.write_text(user + _NGINX.format(folder=folder, port=port, files=files), encoding="utf-8")
    command = [nginx, "-c", str(settings), "-p", str(folder), "-e", "stderr"]
    with _running(command, f"http://127.0.0.1:{port}", "/") as served:
        yield served


@contextlib.contextmanager
def _running(command: list[str], url: str, path: str) -> Iterator[Served]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 (ours)
    try:
        ends = time.monotonic() + _PATIENCE
        while not _answers(url + path):
            if time.monotonic() > ends or process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} does not answer: run it by hand to see why")
            time.sleep(0.05)
        yield Served(url, process.pid)
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 (our own address)
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
