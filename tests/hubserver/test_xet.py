"""Uploads through Xet, by the client as it is and by others."""

import http.client
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants

from moehub.hubserver.api import xet
from moehub.hubserver.store.chunks import LARGEST_XORB
from tests import loopback_hub
from tests.hubserver.xorb_bytes import framed, numbers, sha256, shard, xorb

# huggingface_hub uploads with an argument that httpx2 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[loopback_hub.Hub]:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with loopback_hub.running(tmp_path / "root") as running:
        running.repo()
        yield running


@pytest.fixture
def api(hub: loopback_hub.Hub) -> HfApi:
    return HfApi(hub.url, token=hub.token)


def upload(api: HfApi, files: dict[str, bytes], repo: str = "acme/law") -> None:
    api.create_commit(repo, [CommitOperationAdd(name, data) for name, data in files.items()], commit_message="x")


def contents(hub: loopback_hub.Hub, repo: str = "acme/law") -> dict[str, bytes]:
    """Return the large files of the newest commit."""
    tree = hub.tree(repo)
    return {path: hub.store.blobs.path(entry.sha256).read_bytes() for path, entry in tree.items() if entry.lfs}


def waiting(hub: loopback_hub.Hub) -> int:
    """Return the bytes of all xorbs."""
    return sum(path.stat().st_size for path in (hub.store.root / "xorbs").rglob("*") if path.is_file())


def sent(hub: loopback_hub.Hub, part: str) -> int:
    return sum(part in asked for asked in hub.asked)


def test_an_upload_goes_through_xet(hub: loopback_hub.Hub, api: HfApi) -> None:
    """With no variable set; what comes out are ordinary files with their sha256."""
    files = {"a.safetensors": numbers(300_000), "b.safetensors": b"the court finds " * 30_000, "c.safetensors": b"x"}
    upload(api, files)
    assert contents(hub) == files
    assert {path: entry.sha256 for path, entry in hub.tree().items() if entry.lfs} == {
        path: sha256(data) for path, data in files.items()
    }
    assert sent(hub, "/v1/shards") >= 1
    assert sent(hub, "PUT /api/uploads") == 0


def test_an_upload_goes_without_xet(hub: loopback_hub.Hub, api: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody turned it off."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    upload(api, {"a.safetensors": numbers(300_000)})
    assert contents(hub) == {"a.safetensors": numbers(300_000)}
    assert (sent(hub, "xet"), sent(hub, "PUT /api/uploads")) == (0, 1)


def test_a_download_is_never_through_xet(hub: loopback_hub.Hub, api: HfApi, tmp_path: Path) -> None:
    """The hub does not say that it could be, however a file came."""
    upload(api, {"a.safetensors": numbers(300_000)})
    answer = httpx2.head(f"{hub.url}/acme/law/resolve/{hub.head()}/a.safetensors")
    assert [name for name in answer.headers if "xet" in name.lower()] == []
    got = api.hf_hub_download("acme/law", "a.safetensors", cache_dir=tmp_path / "cache")
    assert Path(got).read_bytes() == numbers(300_000)


def test_what_was_sent_before_is_not_sent_again(hub: loopback_hub.Hub, api: HfApi) -> None:
    """The same file costs nothing, one that shares most of its bytes costs the difference."""
    first = numbers(3_000_000)
    upload(api, {"a.safetensors": first})
    before = waiting(hub)
    changed = first[:1_500_000] + b"new" + first[1_500_000:]
    upload(api, {"b.safetensors": first, "c.safetensors": changed})
    assert contents(hub) == {"a.safetensors": first, "b.safetensors": first, "c.safetensors": changed}
    assert 0 < waiting(hub) - before < 1_000_000


def test_many_small_files_come_in_few_pieces(hub: loopback_hub.Hub, api: HfApi) -> None:
    """A hundred of them in a handful of requests."""
    files = {f"{number:03d}.safetensors": numbers(2_000, number) for number in range(100)}
    upload(api, files)
    assert contents(hub) == files
    assert sent(hub, "/v1/xorbs/") + sent(hub, "/v1/shards") < 10


def test_each_repo_is_sent_its_own(hub: loopback_hub.Hub, api: HfApi) -> None:
    """A client remembers what it sent to one repo, and must not take it for sent to another."""
    hub.repo("acme/other")
    data = numbers(500_000, 3)
    upload(api, {"a.safetensors": data})
    upload(api, {"a.safetensors": data}, "acme/other")
    assert contents(hub, "acme/other") == {"a.safetensors": data}


def test_a_client_does_not_rely_on_what_was_purged(hub: loopback_hub.Hub, api: HfApi) -> None:
    """It remembers what it sent, for longer than the hub: the address changes, and everything is sent again."""
    data = numbers(1_000_000, 4)
    upload(api, {"a.safetensors": data})
    shutil.rmtree(hub.store.root / "xorbs")
    upload(api, {"b.safetensors": data + b"more"})
    assert contents(hub)["b.safetensors"] == data + b"more"


def granted(hub: loopback_hub.Hub, repo: str = "acme/law", token: str | None = None) -> httpx2.Response:
    """Ask for the right to upload through Xet."""
    headers = {"Authorization": f"Bearer {token or hub.token}"}
    return httpx2.get(f"{hub.url}/api/models/{repo}/xet-write-token/main", headers=headers)


def post(grant: dict[str, Any], path: str, data: bytes, token: str | None = None) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {token or grant['accessToken']}"}
    return httpx2.post(grant["casUrl"] + path, content=data, headers=headers, timeout=30)


def test_only_who_may_write_gets_a_token(hub: loopback_hub.Hub) -> None:
    """Nobody without one, nobody who reads, and nobody of another namespace."""
    reader, eve = (hub.store.tokens.create(name, [space], writes=name == "eve")[1] for name, space in
                   (("reader", "acme"), ("eve", "eve")))  # fmt: skip
    assert granted(hub).status_code == 200
    assert [granted(hub, token=each).status_code for each in (reader, eve)] == [403, 403]
    assert httpx2.get(f"{hub.url}/api/models/acme/law/xet-write-token/main").status_code == 401
    assert granted(hub, "acme/none").status_code == 404


def test_a_token_is_good_for_one_repo_and_a_while(hub: loopback_hub.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for another one, not later, and not with another signature."""
    hub.repo("acme/other")
    name, data = xorb([b"one"])
    grant, other = granted(hub).json(), granted(hub, "acme/other").json()
    path = f"/v1/xorbs/default/{name}"
    assert post(grant, path, data, other["accessToken"]).status_code == 401
    assert post(grant, path, data, grant["accessToken"][:-1] + "x").status_code == 401
    assert post(grant, path, data, hub.token).status_code == 401
    assert httpx2.post(grant["casUrl"] + path, content=data).status_code == 401
    moved = {**grant, "casUrl": grant["casUrl"].replace("/law/", "/other/")}
    assert post(moved, path, data).status_code == 401
    assert post(grant, path, data).json() == {"was_inserted": True}
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + xet.LIFETIME + 1)
    assert post(grant, path, data).status_code == 401


def test_a_token_for_xet_opens_nothing_else(hub: loopback_hub.Hub) -> None:
    """With it one is a stranger."""
    hub.store.repos.set(hub.repo(), private=True)
    headers = {"Authorization": f"Bearer {granted(hub).json()['accessToken']}"}
    assert httpx2.get(f"{hub.url}/api/models/acme/law", headers=headers).status_code == 404
    assert httpx2.get(f"{hub.url}/api/whoami-v2", headers=headers).status_code == 401


def test_a_foreign_xorb_cannot_be_named(hub: loopback_hub.Hub) -> None:
    """Knowing the hash of a private file's pieces does not lead to the file."""
    name, data = xorb([b"secret"])
    assert post(granted(hub).json(), f"/v1/xorbs/default/{name}", data).status_code == 200
    hub.repo("other/law")
    theft = shard((sha256(b"secret"), [(name, 6, 0, 1)]))
    answer = post(granted(hub, "other/law").json(), "/v1/shards", theft)
    assert (answer.status_code, "was not uploaded to this repo" in answer.json()["error"]) == (400, True)
    assert not hub.store.uploads.holds(hub.repo("other/law").number, sha256(b"secret"))


def test_a_file_is_committed_only_where_it_was_built(hub: loopback_hub.Hub) -> None:
    """What a shard made may be committed to its repo."""
    name, data = xorb([b"secret"])
    grant = granted(hub).json()
    post(grant, f"/v1/xorbs/default/{name}", data)
    answer = post(grant, "/v1/shards", shard((sha256(b"secret"), [(name, 6, 0, 1)])))
    assert (answer.status_code, answer.json()) == (200, {"result": 1})
    assert hub.store.uploads.holds(hub.repo().number, sha256(b"secret"), 6)
    assert not hub.store.uploads.holds(hub.repo("acme/other").number, sha256(b"secret"))


@pytest.mark.parametrize(
    ("path", "data", "status", "said"),
    [
        (f"/v1/xorbs/default/{'ab' * 32}", b"nothing", 400, "this is no xorb"),
        (f"/v1/xorbs/default/{'ab' * 32}", framed(b"x", 0, 1), 400, "announced was abababababab"),
        ("/v1/xorbs/default/..%2F..%2Fsecret", framed(b"x", 0, 1), 400, "names no xorb"),
        ("/v1/shards", b"nothing", 400, "this is no shard"),
        ("/v2/shards", b"", 404, "this hub has no"),
        (f"/v1/xorb-grants/default/{'ab' * 32}", b"{}", 404, "this hub has no"),
    ],
)
def test_what_is_malformed_is_a_sentence(hub: loopback_hub.Hub, path: str, data: bytes, status: int, said: str) -> None:
    """And nothing of it stays."""
    answer = post(granted(hub).json(), path, data)
    assert (answer.status_code, said in answer.json()["error"]) == (status, True)
    assert list((hub.store.root / "incoming").iterdir()) == []
    assert waiting(hub) == 0


def test_a_xorb_that_is_too_large_is_not_read(hub: loopback_hub.Hub) -> None:
    """What it announces is enough."""
    grant = granted(hub).json()
    where = urlsplit(f"{grant['casUrl']}/v1/xorbs/default/{'ab' * 32}")
    connection = http.client.HTTPConnection(where.netloc, timeout=10)
    connection.putrequest("POST", where.path)
    connection.putheader("Authorization", f"Bearer {grant['accessToken']}")
    connection.putheader("Content-Length", str(LARGEST_XORB + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_an_upload_to_a_deleted_repo_is_refused(hub: loopback_hub.Hub) -> None:
    """Also where another one has taken its name."""
    grant = granted(hub).json()
    hub.store.repos.delete(hub.repo())
    hub.repo()
    name, data = xorb([b"one"])
    assert post(grant, f"/v1/xorbs/default/{name}", data).status_code == 404
