"""Large files on their way in: whole, in parts, wrong, forged and too late."""

import json
import socket
import time
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from moehub.hubserver.api import addresses, parts
from tests.hubserver import wire
from tests.hubserver.conftest import Served, served
from tests.hubserver.wire import (
    REPO,
    address,
    batch,
    batch_of,
    commit,
    committed,
    create,
    good,
    large,
    refused,
    sha256,
    upload,
)

CONTENT = b"\0" * 1000 + b"tensors"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 100 bytes."""
    monkeypatch.setattr(parts, "SIZE", 100)


def incoming(hub: Served) -> list[str]:
    return sorted(path.name for path in (hub.store.root / "incoming").iterdir())


def changed(path: str, **values: object) -> str:
    """Return a signed address that asks for something else."""
    split = urlsplit(path)
    query = {name: found[0] for name, found in parse_qs(split.query).items()}
    return f"{split.path}?{urlencode({**query, **values})}"


def test_a_file_is_there_after_its_upload(hub: Served) -> None:
    """Its address takes no token; afterwards the batch says that it is there."""
    create(hub)
    answer = hub.ask("PUT", address(hub, CONTENT), content=CONTENT)
    assert (answer.status_code, answer.headers["etag"]) == (200, f'"{sha256(CONTENT)}"')
    assert "actions" not in batch(hub, CONTENT)[0]
    assert incoming(hub) == []


@pytest.mark.parametrize(
    ("sent", "status", "sentence"),
    [
        (CONTENT[:-1] + b"x", 422, "announced were"),
        (CONTENT[:-1], 422, "announced were"),
        (CONTENT + b"x", 413, "larger than"),
        (b"", 422, "announced were"),
    ],
)
def test_what_was_not_announced_is_not_taken(hub: Served, sent: bytes, status: int, sentence: str) -> None:
    """Another content, fewer bytes and more of them; nothing of it stays."""
    create(hub)
    found, said = refused(hub.ask("PUT", address(hub, CONTENT), content=sent))
    assert (found, sentence in said) == (status, True)
    assert "actions" in batch(hub, CONTENT)[0]
    assert incoming(hub) == []


def test_more_than_announced_is_refused_before_it_came(hub: Served) -> None:
    """By its length, and without a length as soon as it is too much."""
    create(hub)
    path = address(hub, CONTENT)
    announced = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n\r\n".encode()
    assert wire.raw(hub, announced).startswith(b"HTTP/1.1 413")
    chunks = b"".join(b"3e8\r\n" + bytes(1000) + b"\r\n" for _ in range(3))
    head = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert wire.raw(hub, head + chunks).startswith(b"HTTP/1.1 413")


def test_a_broken_connection_leaves_nothing(hub: Served) -> None:
    """Neither a blob nor what had come of it."""
    create(hub)
    path = address(hub, CONTENT)
    head = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode()
    port = urlsplit(hub.url).port or 0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head + CONTENT[:500])
        while not incoming(hub):
            time.sleep(0.01)
    deadline = time.monotonic() + 10
    while incoming(hub) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert incoming(hub) == []
    assert "actions" in batch(hub, CONTENT)[0]


@pytest.mark.parametrize(
    "values",
    [
        {"size": 5},
        {"number": 2},
        {"piece": "end"},
        {"piece": "1"},
        {"expires": 99999999999},
        {"signature": "0" * 64},
        {"signature": "ü"},
        {"signature": ""},
        {"size": "x"},
        {"size": "9" * 30},
        {"number": "-1"},
    ],
)
def test_a_forged_address_is_refused(hub: Served, values: dict[str, object]) -> None:
    """Whatever of it was changed."""
    create(hub)
    path = changed(address(hub, CONTENT), **values)
    assert refused(hub.ask("PUT", path, content=CONTENT)) == (
        403,
        "this upload address was not signed by this hub: upload again to get one",
    )


def test_an_address_is_for_one_file_of_one_repo(hub: Served) -> None:
    """Neither another file nor another repo can be put in its place."""
    create(hub)
    create(hub, "acme/other")
    path = address(hub, CONTENT)
    assert hub.ask("PUT", path.replace("acme/law", "acme/other"), content=CONTENT).status_code == 403
    assert hub.ask("PUT", path.replace(sha256(CONTENT), sha256(b"other")), content=b"other").status_code == 403


def test_an_address_ends(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some hours it is worth nothing."""
    create(hub)
    path = address(hub, CONTENT)
    late = time.time() + addresses.LIFETIME + 1
    monkeypatch.setattr(addresses.time, "time", lambda: late)  # type: ignore[attr-defined]  # the module's own import
    assert refused(hub.ask("PUT", path, content=CONTENT))[1].startswith("the time of this upload address is over")


def test_an_address_ends_with_its_repo(hub: Served) -> None:
    """Also where another one of the same name was made since."""
    create(hub)
    path = address(hub, CONTENT)
    hub.ask("DELETE", "/api/repos/delete", token=hub.ada, json={"organization": "acme", "name": "law"})
    assert hub.ask("PUT", path, content=CONTENT).status_code == 404
    create(hub)
    assert hub.ask("PUT", path, content=CONTENT).status_code == 404


@pytest.mark.usefixtures("small_parts")
def test_a_large_file_comes_in_parts(hub: Served) -> None:
    """In any order; afterwards it is one file, and nothing is left of the parts."""
    create(hub)
    action = batch(hub, CONTENT)[0]["actions"]["upload"]
    where = {int(name): href for name, href in action["header"].items() if name.isdigit()}
    assert sorted(where) == list(range(1, 12))
    for number in sorted(where, reverse=True):
        part = CONTENT[100 * (number - 1) : 100 * number]
        answer = hub.ask("PUT", where[number].removeprefix(hub.url), content=part)
        assert (answer.status_code, answer.headers["etag"]) == (200, f'"{sha256(part)}"')
    for _ in range(2):  # the answer may get lost, and the client asks again
        assert good(hub.ask("POST", action["href"].removeprefix(hub.url), json={"oid": sha256(CONTENT), "parts": []}))
    oid = committed(hub, large("big.safetensors", CONTENT))
    assert hub.ask("GET", f"/{REPO}/resolve/{oid}/big.safetensors").content == CONTENT
    assert incoming(hub) == []


@pytest.mark.usefixtures("small_parts")
def test_a_part_that_broke_off_is_sent_again_alone(hub: Served) -> None:
    """What came of it is not kept, those before it are; without it the file is not made."""
    create(hub)
    action = batch(hub, CONTENT)[0]["actions"]["upload"]
    end = action["href"].removeprefix(hub.url)
    for number in range(1, 12):
        part = CONTENT[100 * (number - 1) : 100 * number]
        path = action["header"][str(number)].removeprefix(hub.url)
        assert hub.ask("PUT", path, content=part[:-1] if number == 3 else part).status_code == (
            422 if number == 3 else 200
        )
    status, said = refused(hub.ask("POST", end, json={}))
    assert (status, said) == (422, "parts 3 did not come: send the file again")
    assert hub.ask("PUT", action["header"]["3"].removeprefix(hub.url), content=CONTENT[200:300]).status_code == 200
    assert hub.ask("POST", end, json={}).status_code == 200


@pytest.mark.usefixtures("small_parts")
def test_parts_of_something_else_are_thrown_away(hub: Served) -> None:
    """Together they must be what was announced."""
    create(hub)
    action = batch(hub, CONTENT)[0]["actions"]["upload"]
    for number in range(1, 12):
        part = b"x" * len(CONTENT[100 * (number - 1) : 100 * number])
        assert hub.ask("PUT", action["header"][str(number)].removeprefix(hub.url), content=part).status_code == 200
    assert refused(hub.ask("POST", action["href"].removeprefix(hub.url), json={}))[0] == 422
    assert incoming(hub) == []


@pytest.mark.usefixtures("small_parts")
def test_a_part_cannot_be_changed_once_the_file_is_made(hub: Served) -> None:
    """A slow sender's file would be everybody's file of that sha256."""
    create(hub)
    action = batch(hub, CONTENT)[0]["actions"]["upload"]
    paths = {int(name): href.removeprefix(hub.url) for name, href in action["header"].items() if name.isdigit()}
    for number, path in paths.items():
        hub.ask("PUT", path, content=CONTENT[100 * (number - 1) : 100 * number])
    places = {path.name: path.stat().st_ino for path in (hub.store.root / "incoming").iterdir()}
    hub.ask("POST", action["href"].removeprefix(hub.url), json={})
    blob = hub.store.blobs.path(sha256(CONTENT))
    assert blob.stat().st_ino not in places.values()
    hub.ask("PUT", paths[1], content=b"x" * 100)
    assert blob.read_bytes() == CONTENT


@pytest.mark.usefixtures("small_parts")
def test_the_address_of_a_part_takes_no_more_than_the_part(hub: Served) -> None:
    """Nor does the one for the end take bytes."""
    create(hub)
    action = batch(hub, CONTENT)[0]["actions"]["upload"]
    assert hub.ask("PUT", action["header"]["11"].removeprefix(hub.url), content=b"x" * 8).status_code == 413
    assert hub.ask("PUT", action["href"].removeprefix(hub.url), content=b"x").status_code == 400
    assert hub.ask("POST", action["header"]["1"].removeprefix(hub.url), json={}).status_code == 400


def test_a_sha256_without_the_bytes_is_worth_nothing(hub: Served) -> None:
    """Whoever knows the sha256 of a private file could commit it to a repo of their own, and read it there."""
    create(hub, visibility="private")
    upload(hub, CONTENT)
    create(hub, "eve/theft", token=hub.eve)
    assert "actions" in batch(hub, CONTENT, repo="eve/theft", token=hub.eve)[0]
    status, said = refused(commit(hub, large("stolen.safetensors", CONTENT), repo="eve/theft", token=hub.eve))
    assert (status, "were not uploaded to eve/theft" in said) == (422, True)


def test_the_bytes_themselves_are_proof(hub: Served) -> None:
    """Whoever has them may commit them; the hub keeps them once."""
    create(hub)
    upload(hub, CONTENT)
    create(hub, "ada/copy")
    upload(hub, CONTENT, repo="ada/copy")
    oid = committed(hub, large("a.safetensors", CONTENT), repo="ada/copy")
    assert hub.ask("GET", f"/ada/copy/resolve/{oid}/a.safetensors").content == CONTENT
    assert len(list((hub.store.root / "blobs" / sha256(CONTENT)[:2]).iterdir())) == 1


def test_a_wrong_size_is_not_there_already(hub: Served) -> None:
    """A sha256 goes with its size, in the batch and in the commit."""
    create(hub)
    upload(hub, CONTENT)
    assert "actions" in batch_of(hub, {"oid": sha256(CONTENT), "size": 5})[0]
    operation = large("a.safetensors", CONTENT)
    operation["value"]["size"] = 5
    assert refused(commit(hub, operation))[0] == 422


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    """Where the client asks how to send it, and where it asks where to."""
    with served(tmp_path / "hub", largest_file=1000) as hub:
        create(hub)
        error = batch(hub, CONTENT)[0]["error"]
        assert (error["code"], "this hub takes 1000" in error["message"]) == (413, True)
        files = {"files": [{"path": "a", "size": 1001, "sample": ""}]}
        assert hub.ask("POST", f"/api/models/{REPO}/preupload/main", token=hub.ada, json=files).status_code == 413


def test_the_quota_holds_for_every_way_in(tmp_path: Path) -> None:
    """In the batch, at the upload, and for the files of a commit; a namespace's repos count together."""
    with served(tmp_path / "hub", quota=1500) as hub:
        create(hub)
        create(hub, "acme/second")
        paths = [address(hub, CONTENT), address(hub, CONTENT, "acme/second")]
        assert hub.ask("PUT", paths[0], content=CONTENT).status_code == 200
        assert refused(hub.ask("PUT", paths[1], content=CONTENT))[0] == 507
        assert batch(hub, b"y" * 900, repo="acme/second")[0]["error"]["code"] == 507
        assert refused(commit(hub, wire.file("a.txt", b"z" * 900), repo="acme/second"))[0] == 507
        create(hub, "ada/own")
        upload(hub, CONTENT, repo="ada/own")


def test_two_uploads_at_once_cannot_share_the_quota(tmp_path: Path) -> None:
    """It is counted again when the bytes are there."""
    with served(tmp_path / "hub", quota=1500) as hub:
        create(hub)
        other = CONTENT[:-1] + b"x"
        paths = [address(hub, CONTENT), address(hub, other)]
        answers = [hub.ask("PUT", path, content=content) for path, content in zip(paths, (CONTENT, other), strict=True)]
        assert [answer.status_code for answer in answers] == [200, 507]


@pytest.mark.parametrize(
    ("objects", "status"),
    [
        ([{"oid": "x", "size": 1}], 422),
        ([{"oid": "A" * 64, "size": 1}], 422),
        ([{"oid": "a" * 64, "size": -1}], 400),
        ([{"oid": "a" * 64, "size": True}], 400),
        ([{"oid": "a" * 64}], 400),
        ([{"size": 1}], 400),
        (["x"], 400),
        ("x", 400),
        ([{"oid": "a" * 64, "size": 1}] * 1001, 400),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused(hub: Served, objects: object, status: int) -> None:
    """With a sentence, and never as a mistake of the hub."""
    create(hub)
    asked = {"operation": "upload", "objects": objects}
    answer = hub.ask("POST", f"/{REPO}.git/info/lfs/objects/batch", token=hub.ada, content=json.dumps(asked))
    assert answer.status_code == status
