"""The unmodified client, the `hf` command and moehub's own commands, against a hub that listens.

`matrix/` goes through what people do with the client step by step; here is what takes many files, and whole programs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from moehub import files
from moehub.cli import main
from moehub.hub.remote import RemoteHub
from tests.hubserver.conftest import Served
from tests.world import World

# huggingface_hub uploads with an argument that httpx2 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
HF = Path(sys.executable).with_name("hf")


@pytest.fixture
def client(hub: Served, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    """The client as ada, sending large files the older way."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    return HfApi(hub.url, token=hub.ada)


def download(client: HfApi, repo: str, path: str, cache: Path, revision: str | None = None) -> Path:
    """Download a file with the client."""
    token = str(client.token)
    return Path(hf_hub_download(repo, path, revision=revision, endpoint=client.endpoint, token=token, cache_dir=cache))


def hf(hub: Served, home: Path, *arguments: object, token: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the `hf` command with a home of its own."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MOEHUB_"))}
    environment = {
        **plain,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_TOKEN": token or hub.ada,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    command = [str(HF), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_a_repo_of_more_than_a_thousand_files(client: HfApi, tmp_path: Path) -> None:
    """The list of files comes in pages, and all of them arrive."""
    names = [f"{number % 7}/{number:04}.txt" for number in range(1100)]
    client.create_repo("acme/many")
    commit = client.create_commit(
        "acme/many", [CommitOperationAdd(name, name.encode()) for name in names], commit_message="Many"
    )
    tree = list(client.list_repo_tree("acme/many", recursive=True))
    assert sorted(item.path for item in tree if "." in item.path[1:]) == sorted(names)
    assert len(tree) == 1100 + 7 + 1
    assert len(client.list_repo_files("acme/many")) == 1101
    assert download(client, "acme/many", names[1099], tmp_path, commit.oid).read_text() == names[1099]


def test_more_repos_than_fit_into_a_page(client: HfApi, hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client follows from page to page."""
    monkeypatch.setattr("moehub.hubserver.api.models._MOST", 3)
    for number in range(8):
        client.create_repo(f"acme/repo-{number}")
    assert [model.id for model in client.list_models(author="acme")] == [
        f"acme/repo-{7 - number}" for number in range(8)
    ]
    assert len(list(HfApi(hub.url, token=False).list_models(limit=4))) == 4


def test_branches_with_slashes(client: HfApi, tmp_path: Path) -> None:
    """As the client writes them into every kind of address."""
    client.create_repo("acme/law")
    client.create_branch("acme/law", branch="exp/a.1")
    made = client.upload_file(
        path_or_fileobj=b"content", path_in_repo="sub dir/ü.txt", repo_id="acme/law", revision="exp/a.1"
    )
    assert client.model_info("acme/law", revision="exp/a.1").sha == made.oid
    assert [each.path for each in client.list_repo_tree("acme/law", "sub dir", revision="exp/a.1")] == ["sub dir/ü.txt"]
    found = hf_hub_download(
        "acme/law",
        "sub dir/ü.txt",
        revision="exp/a.1",
        endpoint=client.endpoint,
        token=client.token,
        cache_dir=tmp_path,
    )
    assert Path(found).read_bytes() == b"content"
    assert Path(found).parent.parent.name == made.oid
    with pytest.raises(EntryNotFoundError):
        download(client, "acme/law", "sub dir/ü.txt", tmp_path)


def test_a_refusal_is_shown_as_the_hub_said_it(client: HfApi) -> None:
    """By the client's own exception."""
    client.create_repo("acme/law")
    with pytest.raises(HfHubHTTPError, match="is a pickle by its name"):
        client.upload_file(path_or_fileobj=b"x", path_in_repo="model.pkl", repo_id="acme/law")


def test_the_hf_command(hub: Served, tmp_path: Path) -> None:
    """Who am I, make, upload, look, download, delete."""
    folder, home = tmp_path / "folder", tmp_path / "home"
    (folder / "sub").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Law\n")
    (folder / "sub" / "weights.safetensors").write_bytes(os.urandom(100_000))
    whoami = hf(hub, home, "auth", "whoami")
    assert (whoami.returncode, "ada" in whoami.stdout, "acme" in whoami.stdout) == (0, True, True)
    assert hf(hub, home, "repos", "create", "acme/law").returncode == 0
    uploaded = hf(hub, home, "upload", "acme/law", folder)
    assert uploaded.returncode == 0, uploaded.stderr
    downloaded = hf(hub, home, "download", "acme/law", "--local-dir", tmp_path / "back")
    assert downloaded.returncode == 0, downloaded.stderr
    for name in ("README.md", "sub/weights.safetensors"):
        assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()
    assert hf(hub, home, "upload", "acme/law", folder, token=hub.eve).returncode != 0
    assert hf(hub, home, "repos", "delete", "acme/law", "--yes").returncode == 0
    gone = hf(hub, home, "download", "acme/law", "--local-dir", tmp_path / "again")
    assert (gone.returncode != 0, "not found" in gone.stderr.lower()) == (True, True)


@pytest.fixture
def ours(hub: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The hub's address, for moehub's commands as ada."""
    monkeypatch.setenv("MOEHUB_TOKEN", hub.ada)
    monkeypatch.setenv("MOEHUB_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MOEHUB_KEYS", str(tmp_path / "keyring"))
    monkeypatch.setattr("moehub.hub.remote._cache", lambda _location: tmp_path / "cache")
    return hub.url


def moehub(*arguments: object) -> str:
    """Run a moehub command that succeeds, and return what it printed."""
    result = CliRunner().invoke(main, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_moehubs_own_road(ours: str, world: World, tmp_path: Path) -> None:
    """Push, list, pull, merge from the hub, push and pull the MoE, doctor."""
    for name in ("law", "code"):
        pushed = json.loads(moehub("push", world.experts[name], f"acme/{name}", "--hub", ours, "--json"))
        assert pushed["url"] == f"{ours}/acme/{name}/tree/{pushed['commit']}"
        again = json.loads(moehub("push", world.experts[name], f"acme/{name}", "--hub", ours, "--json"))
        assert again["commit"] == pushed["commit"]
    listed = json.loads(moehub("list", "--hub", ours, "--json"))
    assert [each["repo"] for each in listed] == ["acme/code", "acme/law"]
    moehub("pull", "acme/law", tmp_path / "law", "--hub", ours)
    for path in files.files_below(world.experts["law"]):
        assert (tmp_path / "law" / path).read_bytes() == (world.experts["law"] / path).read_bytes()
    experts = ("--expert", "acme/law", "--expert", "acme/code")
    moehub(
        "merge",
        "--base",
        world.base,
        *experts,
        "--null",
        world.null,
        "--hub",
        ours,
        "--embed-base",
        "--output",
        tmp_path / "moe",
    )
    moehub("push", tmp_path / "moe", "acme/moe", "--hub", ours)
    moehub("pull", "acme/moe", tmp_path / "back", "--hub", ours)
    assert (tmp_path / "back" / "router.safetensors").read_bytes() == (
        tmp_path / "moe" / "router.safetensors"
    ).read_bytes()
    report = CliRunner().invoke(main, ["doctor", "--hub", ours, "--json"])
    assert "knows us as ada" in report.stdout


def test_an_expert_of_others_is_private_to_them(ours: str, world: World, hub: Served, tmp_path: Path) -> None:
    """Pushed with --private, it is neither listed for others nor can they pull it."""
    moehub("push", world.experts["law"], "acme/secret", "--hub", ours, "--private")
    assert [each.repo for each in RemoteHub(hub.url, token=hub.reader).experts()] == ["acme/secret"]
    assert RemoteHub(hub.url, token=hub.eve).experts() == []
    result = CliRunner(env={"MOEHUB_TOKEN": hub.eve}).invoke(
        main, ["pull", "acme/secret", str(tmp_path / "stolen"), "--hub", ours]
    )
    assert (result.exit_code, "there is no repo acme/secret" in result.stderr) == (1, True)
    assert not (tmp_path / "stolen").exists()
