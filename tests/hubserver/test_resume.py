"""What can go wrong between a hub, its cache on a client, and time."""

import http.client
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants

from moehub import files
from moehub.errors import HubError
from moehub.hub.remote import RemoteHub
from moehub.hubserver.store.collection import collect
from tests import loopback_hub
from tests.hubserver.xorb_bytes import numbers
from tests.loopback_hub import Cut
from tests.published import paper_expert

# huggingface_hub uploads with an argument that httpx2 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
LARGE = 3_000_000
FILE = "model.safetensors"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[loopback_hub.Hub]:
    with loopback_hub.running(tmp_path / "root") as running:
        monkeypatch.setenv("MOEHUB_TOKEN", running.token)
        yield running


@pytest.fixture
def api(hub: loopback_hub.Hub) -> HfApi:
    return HfApi(hub.url, token=hub.token)


@pytest.fixture
def law(tmp_path: Path) -> Path:
    return paper_expert(tmp_path / "law")


def test_a_resumed_download_is_of_one_file(hub: loopback_hub.Hub, api: HfApi, tmp_path: Path) -> None:
    """The connection breaks, `main` moves to a file of the same size, and the client goes on where it was.

    It ends up with the file that it began with, under that file's name.
    """
    old, new = numbers(LARGE, 1), numbers(LARGE, 2)
    commit = hub.add({FILE: old})
    hub.cut = Cut(LARGE // 2, lambda: hub.add({FILE: new}))
    got = Path(api.hf_hub_download("acme/law", FILE, cache_dir=tmp_path / "cache"))
    assert got.read_bytes() == old
    assert got.parent.name == commit
    assert hub.tree()[FILE].size == LARGE
    assert hub.head() != commit
    assert Path(api.hf_hub_download("acme/law", FILE, cache_dir=tmp_path / "cache")).read_bytes() == new


def test_a_pull_that_is_cut_is_of_one_commit(hub: loopback_hub.Hub, law: Path, tmp_path: Path) -> None:
    """`moehub pull` names the commit from the beginning."""
    paper_expert(law, weights=numbers(LARGE, 1))
    commit = RemoteHub(hub.url).push(law, "acme/law", message="first").commit
    hub.cut = Cut(1000, lambda: hub.add({"adapter_model.safetensors": numbers(LARGE, 2)}))
    assert RemoteHub(hub.url).pull("acme/law", None, tmp_path / "got") == commit
    assert hub.head() != commit
    assert (tmp_path / "got" / "adapter_model.safetensors").read_bytes() == numbers(LARGE, 1)


def test_a_branch_is_answered_with_its_commit(hub: loopback_hub.Hub) -> None:
    """What the above rests on: no bytes come from an address that can change, and none is cached as if it could not."""
    commit = hub.add({FILE: b"old"})
    connection = http.client.HTTPConnection("127.0.0.1", int(hub.url.rpartition(":")[2]))
    connection.request("GET", f"/acme/law/resolve/main/{FILE}")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (307, b"")
    assert answer.headers["Location"] == f"/acme/law/resolve/{commit}/{FILE}"
    assert "no-cache" in answer.headers["Cache-Control"]
    connection.close()


def test_a_flipped_byte_is_noticed(hub: loopback_hub.Hub, api: HfApi, law: Path, tmp_path: Path) -> None:
    """`moehub pull` refuses it; the client takes it, and finds it when it is asked to verify."""
    RemoteHub(hub.url).push(law, "acme/law", message="first")
    hub.flip("adapter_model.safetensors")
    with pytest.raises(HubError, match=r"adapter_model\.safetensors is not the file that was published"):
        RemoteHub(hub.url).pull("acme/law", None, tmp_path / "got")
    api.snapshot_download("acme/law", cache_dir=tmp_path / "cache")
    found = api.verify_repo_checksums("acme/law", cache_dir=tmp_path / "cache")
    assert [mismatch["path"] for mismatch in found.mismatches] == ["adapter_model.safetensors"]


def test_two_hubs_are_kept_apart(
    hub: loopback_hub.Hub, law: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was fetched from one hub is not given for the other's."""
    RemoteHub(hub.url).push(law, "acme/law", message="x")
    RemoteHub(hub.url).pull("acme/law", None, tmp_path / "one")
    with loopback_hub.running(tmp_path / "two") as other:
        monkeypatch.setenv("MOEHUB_TOKEN", other.token)
        with pytest.raises(HubError, match="there is no repo acme/law"):
            RemoteHub(other.url).pull("acme/law", None, tmp_path / "none")
        theirs = paper_expert(tmp_path / "theirs" / "law", weights=b"others")
        RemoteHub(other.url).push(theirs, "acme/law", message="x")
        RemoteHub(other.url).pull("acme/law", None, tmp_path / "got")
    assert (tmp_path / "got" / "adapter_model.safetensors").read_bytes() == b"others"
    assert not (tmp_path / "none").exists()


def test_offline_nothing_is_given_for_another_hub(
    hub: loopback_hub.Hub, law: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub that may not be asked gives nothing, whatever lies in the client's cache."""
    RemoteHub(hub.url).push(law, "acme/law", message="x")
    HfApi(hub.url, token=hub.token).snapshot_download("acme/law")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set, so http://127\.0\.0\.1:9 is not asked"):
        RemoteHub("http://127.0.0.1:9").pull("acme/law", None, tmp_path / "got")


def test_a_deleted_repo_is_gone(hub: loopback_hub.Hub, api: HfApi, law: Path, tmp_path: Path) -> None:
    """What was fetched before does not stand in for it, and a new one of its name is another one."""
    remote = RemoteHub(hub.url)
    first = remote.push(law, "acme/law", message="x").commit
    remote.pull("acme/law", None, tmp_path / "before")
    api.delete_repo("acme/law")
    with pytest.raises(HubError, match="there is no repo acme/law"):
        remote.pull("acme/law", None, tmp_path / "got")
    second = remote.push(law, "acme/law", message="x").commit
    assert second != first
    with pytest.raises(HubError, match="has no revision"):
        remote.pull("acme/law", first, tmp_path / "got")


@pytest.mark.parametrize("xet", [True, False], ids=["xet", "lfs"])
def test_of_many_pushes_at_once_none_is_lost(
    hub: loopback_hub.Hub, api: HfApi, monkeypatch: pytest.MonkeyPatch, xet: bool
) -> None:
    """Each client commits a file of its own to one repo."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not xet)
    hub.repo()
    expected = {f"{number}.safetensors": numbers(50_000, number) for number in range(12)}

    def push(name: str) -> None:
        api.create_commit("acme/law", [CommitOperationAdd(name, expected[name])], commit_message=name)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(push, expected))
    found = {path: hub.store.blobs.path(entry.sha256).read_bytes() for path, entry in hub.tree().items() if entry.lfs}
    assert found == expected
    assert len(list(api.list_repo_commits("acme/law"))) == len(expected)


def test_deleting_and_collecting_harm_no_push(hub: loopback_hub.Hub, api: HfApi, law: Path, tmp_path: Path) -> None:
    """While repos with the same files come and go and are collected, one that is pushed arrives whole."""
    remote = RemoteHub(hub.url)

    def come_and_go(number: int) -> None:
        remote.push(law, f"acme/gone{number}", message="x")
        api.delete_repo(f"acme/gone{number}")

    def stay(number: int) -> None:
        remote.push(law, f"acme/stays{number}", message="x")

    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(do, number) for number in range(6) for do in (come_and_go, stay)]
        while not all(task.done() for task in tasks):
            collect(hub.store)
        for task in tasks:
            task.result()
    for number in range(6):
        remote.pull(f"acme/stays{number}", None, tmp_path / str(number))
        assert files.tree_digest(tmp_path / str(number)) == files.tree_digest(tmp_path / "0")
