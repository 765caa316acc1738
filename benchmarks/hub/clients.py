"""Those who upload and download: curl, which costs next to nothing, and the client that people use."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2

_UPLOAD = """
import sys, time
from huggingface_hub import HfApi
from huggingface_hub.utils import disable_progress_bars
disable_progress_bars()
api = HfApi(sys.argv[1], token=False)
started = time.perf_counter()
api.upload_file(path_or_fileobj=sys.argv[3], path_in_repo="model.safetensors", repo_id=sys.argv[2])
print(time.perf_counter() - started)
"""
_DOWNLOAD = """
import sys, time
from huggingface_hub import hf_hub_download
from huggingface_hub.utils import disable_progress_bars
disable_progress_bars()
started = time.perf_counter()
hf_hub_download(sys.argv[2], "model.safetensors", endpoint=sys.argv[1], token=False, cache_dir=sys.argv[3])
print(time.perf_counter() - started)
"""


def asked(url: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """Return what the hub answers, read as JSON."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 (our own address)
        url + path, content, {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=600) as answer:  # noqa: S310 (the same)
        return json.load(answer)


def new_repo(url: str, repo: str) -> str:
    """Make a repo and return its name."""
    organization, name = repo.split("/")
    asked(url, "POST", "/api/repos/create", {"name": name, "organization": organization})
    return repo


def upload_address(url: str, repo: str, sha256: str, size: int) -> str:
    """Return where the bytes of a large file go."""
    objects = [{"oid": sha256, "size": size}]
    answer = asked(url, "POST", f"/{repo}.git/info/lfs/objects/batch", {"operation": "upload", "objects": objects})
    return str(answer["objects"][0]["actions"]["upload"]["href"])


def curl_up(address: str, file: Path) -> float:
    """Send a file to an address, and return the seconds that curl took."""
    return _curl("--upload-file", str(file), address)


def curl_down(address: str, place: Path | None = None) -> float:
    """Fetch an address into a file, or into nothing, and return the seconds that curl took."""
    return _curl("--location", "--output", str(place or os.devnull), address)


def _curl(*arguments: str) -> float:
    command = ["curl", "--silent", "--show-error", "--fail", "--write-out", "%{stderr}%{time_total}", *arguments]
    # --noproxy: these are addresses of this machine.
    done = subprocess.run([*command, "--noproxy", "*"], check=True, capture_output=True, text=True)  # noqa: S603 (ours)
    return float(done.stderr)


def client_up(url: str, repo: str, file: Path, *, xet: bool = False) -> float:
    """Upload a file with huggingface_hub in a process of its own; return the seconds without its start."""
    return _client(_UPLOAD, url, repo, str(file), xet=xet)


def client_down(url: str, repo: str, cache: Path) -> float:
    """Download a file with huggingface_hub in a process of its own; return the seconds without its start."""
    return _client(_DOWNLOAD, url, repo, str(cache))


def _client(program: str, *arguments: str, xet: bool = False) -> float:
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "0" if xet else "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)  # noqa: S603 (ours)
    return float(done.stdout)


def random_file(path: Path, size: int) -> Path:
    """Write a file of random bytes and return its path."""
    with path.open("wb") as file:
        while size:
            piece = os.urandom(min(size, 16 << 20))
            file.write(piece)
            size -= len(piece)
        file.flush()
        os.fsync(file.fileno())
    return path


def sha256(path: Path) -> str:
    """Return a file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def session() -> Iterator[httpx2.Client]:
    """Yield a client that keeps its connection."""
    with httpx2.Client(trust_env=False, timeout=600) as client:
        yield client
