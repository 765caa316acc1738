"""Downloads: whole, in part, not at all; and what a browser may not do with them."""

import contextlib
import random
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from moehub.hubserver.api import download
from tests.hubserver import wire
from tests.hubserver.conftest import Served
from tests.hubserver.wire import REPO, committed, create, file, large, upload

CONTENT = random.Random(0).randbytes(3 << 20) + b"end"  # noqa: S311 (any bytes will do, the same ones each time)


@pytest.fixture
def path(hub: Served) -> str:
    """Where a large file is, by its commit."""
    create(hub)
    upload(hub, CONTENT)
    oid = committed(hub, large("big/a ü.safetensors", CONTENT), file("small.txt", b"small"), file("empty.txt", b""))
    return f"/{REPO}/resolve/{oid}/big/a%20%C3%BC.safetensors"


def test_a_file_comes_as_it_was_sent(hub: Served, path: str) -> None:
    """With its length, and named after its content."""
    answer = hub.ask("GET", path)
    assert answer.content == CONTENT
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.headers["etag"] == answer.headers["x-linked-etag"] == f'"{wire.sha256(CONTENT)}"'
    assert answer.headers["x-linked-size"] == str(len(CONTENT))
    assert answer.headers["x-repo-commit"] == path.split("/")[4]


def test_a_head_says_the_same_without_the_bytes(hub: Served, path: str) -> None:
    """The client asks so before it downloads."""
    head, answer = hub.ask("HEAD", path), hub.ask("GET", path)
    assert head.content == b""
    without_date = lambda headers: {name: value for name, value in headers.items() if name != "date"}  # noqa: E731
    assert without_date(head.headers) == without_date(answer.headers)


def test_an_empty_file_comes_empty(hub: Served, path: str) -> None:
    """Not as an error about its range."""
    answer = hub.ask("GET", path.replace("big/a%20%C3%BC.safetensors", "empty.txt"))
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize(
    ("asked", "expected", "said"),
    [
        ("bytes=0-0", CONTENT[:1], f"bytes 0-0/{len(CONTENT)}"),
        ("bytes=1048570-2097160", CONTENT[1048570:2097161], f"bytes 1048570-2097160/{len(CONTENT)}"),
        (f"bytes={len(CONTENT) - 3}-", b"end", f"bytes {len(CONTENT) - 3}-{len(CONTENT) - 1}/{len(CONTENT)}"),
        ("bytes=-3", b"end", f"bytes {len(CONTENT) - 3}-{len(CONTENT) - 1}/{len(CONTENT)}"),
        ("bytes=0-99999999999", CONTENT, f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"),
    ],
)
def test_a_range_is_a_part_of_the_file(hub: Served, path: str, asked: str, expected: bytes, said: str) -> None:
    """At its beginning, across pieces, at its end."""
    answer = hub.ask("GET", path, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == expected
    assert answer.headers["content-range"] == said


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=5-4", "bytes=-0"])
def test_a_range_beyond_the_file_is_said_to_be_one(hub: Served, path: str, asked: str) -> None:
    """With how long the file is."""
    answer = hub.ask("GET", path, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize("asked", ["bytes=-", "bytes=0-1,5-6", "lines=1-2", "bytes=x-", "bytes=1-2-3"])
def test_a_range_that_is_none_is_passed_over(hub: Served, path: str, asked: str) -> None:
    """As the protocol wants: the whole file comes."""
    answer = hub.ask("GET", path, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, CONTENT)


def test_a_part_of_another_file_is_not_sent(hub: Served, path: str) -> None:
    """Where the file is no longer what `If-Range` says, it comes whole."""
    headers = {"Range": "bytes=5-", "If-Range": f'"{"0" * 64}"'}
    assert hub.ask("GET", path, headers=headers).content == CONTENT
    headers["If-Range"] = f'"{wire.sha256(CONTENT)}"'
    assert hub.ask("GET", path, headers=headers).content == CONTENT[5:]


def test_what_is_known_already_is_not_sent(hub: Served, path: str) -> None:
    """By its name in `If-None-Match`."""
    answer = hub.ask("GET", path, headers={"If-None-Match": f'"x", W/"{wire.sha256(CONTENT)}"'})
    assert (answer.status_code, answer.content) == (304, b"")


def test_a_browser_neither_shows_nor_guesses(hub: Served, path: str) -> None:
    """A stranger's file under the hub's own address could act as the hub's page otherwise."""
    headers = hub.ask("GET", path).headers
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''a%20%C3%BC.safetensors"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers["content-type"] == "application/octet-stream"


def test_a_name_cannot_end_the_header(hub: Served, path: str) -> None:
    """Quotes and line ends are encoded; those that are not even allowed in names."""
    assert "big" in path
    oid = committed(hub, file("a'b;c=d.txt", b"x"))
    answer = hub.ask("GET", f"/{REPO}/resolve/{oid}/a'b;c=d.txt")
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''a%27b%3Bc%3Dd.txt"


def test_bytes_that_the_disk_lost_are_an_error_and_no_other_file(hub: Served, path: str) -> None:
    """Neither an empty nor a shortened one."""
    blob = hub.store.blobs.path(wire.sha256(CONTENT))
    blob.chmod(0o600)
    with blob.open("r+b") as damaged:
        damaged.truncate(5)
    answer = hub.ask("GET", path)
    assert (answer.status_code, "fsck" in answer.json()["error"]) == (500, True)
    blob.unlink()
    assert hub.ask("GET", path).status_code == 500


def test_a_client_that_hangs_up_costs_nothing_more(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would have got is not even read, and the file is let go of."""
    content, reads, read = bytes(32 << 20), list[int](), download._read

    def noted(file: int, count: int, first: int) -> bytes:
        reads.append(first)
        return read(file, count, first)

    monkeypatch.setattr(download, "_read", noted)
    create(hub)
    upload(hub, content)
    oid = committed(hub, large("zeros.safetensors", content))
    request = f"GET /{REPO}/resolve/{oid}/zeros.safetensors HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    for _ in range(5):
        with contextlib.closing(socket.create_connection(("127.0.0.1", urlsplit(hub.url).port or 0))) as connection:
            connection.sendall(request)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
    deadline = time.monotonic() + 10
    while (names := held()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert names == []
    assert len(reads) < 5 * 32 // 2


def held() -> list[str]:
    """Return the names of the blobs that this process holds open."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed in this moment
            found.append(each.readlink())
    return [path.name for path in found if path.parent.parent.name == "blobs"]
