"""The unmodified huggingface_hub client against a hub on loopback."""

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub.constants
import pytest
from huggingface_hub import HfApi

from moehub import files
from moehub.card import BasePin
from moehub.errors import HubError
from moehub.hub import Listing, open_hub
from moehub.hub.remote import RemoteHub
from moehub.hubserver.store.history import History
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.trees import Entry
from tests import loopback_hub
from tests.published import PIN, paper_card, paper_expert, paper_moe

# huggingface_hub uploads with an argument that httpx2 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[loopback_hub.Hub]:
    """The server without repos, and a token for it."""
    with loopback_hub.running(tmp_path_factory.mktemp("hub") / "root") as running:
        monkeypatch.setenv("MOEHUB_TOKEN", running.token)
        yield running


@pytest.fixture
def hub(server: loopback_hub.Hub) -> RemoteHub:
    return RemoteHub(server.url)


@pytest.fixture
def law(tmp_path: Path) -> Path:
    return paper_expert(tmp_path / "law")


def test_what_is_pushed_is_pulled(hub: RemoteHub, law: Path, tmp_path: Path) -> None:
    """File by file, and nothing of what the client or the server keeps beside them."""
    published = hub.push(law, "acme/law", message="first")
    assert hub.pull("acme/law", None, tmp_path / "got") == published.commit
    assert published.url == f"{hub.location}/acme/law/tree/{published.commit}"
    got = {path.name: path.read_bytes() for path in (tmp_path / "got").iterdir()}
    readme = got.pop("README.md")
    assert got == {path.name: path.read_bytes() for path in law.iterdir()}
    assert b"base_model: acme/base" in readme


def test_a_moe_makes_the_journey_too(hub: RemoteHub, tmp_path: Path) -> None:
    """With its folders."""
    moe = paper_moe(tmp_path / "moe")
    commit = hub.push(moe, "acme/moe", message="first").commit
    hub.pull("acme/moe", commit, tmp_path / "got")
    assert files.tree_digest(tmp_path / "got") == files.tree_digest(moe)


def test_the_same_content_makes_no_new_commit(hub: RemoteHub, server: loopback_hub.Hub, law: Path) -> None:
    """A second push of the same files returns the head."""
    first = hub.push(law, "acme/law", message="first")
    assert hub.push(law, "acme/law", message="second") == first
    assert server.commits() == 1


def test_a_push_whose_answer_got_lost_makes_no_second_commit(
    hub: RemoteHub, server: loopback_hub.Hub, law: Path
) -> None:
    """The commit was made, only the answer broke off: the push finds it and succeeds."""
    server.lose_answers = 1
    published = hub.push(law, "acme/law", message="first")
    assert (server.commits(), server.lose_answers) == (1, 0)
    assert published.commit == server.head()


def test_an_upload_that_is_refused_is_one_sentence(hub: RemoteHub, server: loopback_hub.Hub, law: Path) -> None:
    """And makes no commit."""
    hub.push(law, "acme/law", message="first")
    server.store.uploads.quota = server.store.uploads.used(server.repo().number) + 20
    paper_expert(law, weights=b"weights that are better, and larger")
    with pytest.raises(HubError, match=r"http\S* refused a file of acme/law: .* would exceed .*quota"):
        hub.push(law, "acme/law", message="second")
    assert server.commits() == 1


def test_an_upload_that_broke_off_is_tried_again(
    hub: RemoteHub, server: loopback_hub.Hub, law: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client wraps a broken connection into a RuntimeError when it gives up on a file."""
    attempts: list[int] = []
    upload = HfApi.preupload_lfs_files

    def break_off_once(*arguments: Any, **options: Any) -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("Error while uploading") from httpx2.ReadError("broken pipe")
        upload(*arguments, **options)

    monkeypatch.setattr(HfApi, "preupload_lfs_files", break_off_once)
    hub.push(law, "acme/law", message="first")
    assert (len(attempts), server.commits()) == (2, 1)


def test_a_push_gives_up_in_the_end(hub: RemoteHub, law: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that always breaks is a sentence, not a loop."""

    def break_off(*_: Any, **__: Any) -> None:
        raise httpx2.ReadError("broken pipe")

    monkeypatch.setattr(HfApi, "create_commit", break_off)
    with pytest.raises(HubError, match=r"could not be pushed in 3 attempts: broken pipe"):
        hub.push(law, "acme/law", message="first")


def test_a_push_after_somebody_elses_replaces_it(hub: RemoteHub, server: loopback_hub.Hub, law: Path) -> None:
    """Files of ours that are gone are deleted; what moehub never published stays."""
    hub.push(law, "acme/law", message="first")
    server.add({"picture.png": b"png", "merge.lock": b"{}"})
    hub.push(law, "acme/law", message="second")
    assert sorted(server.tree()) == sorted(
        [".gitattributes", "README.md", "picture.png", *(path.name for path in law.iterdir())]
    )


def test_a_push_between_our_look_and_our_commit_is_noticed(
    hub: RemoteHub, server: loopback_hub.Hub, law: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit names its parent, so it is made anew on top of the other one."""
    import moehub.hub.remote

    hub.push(law, "acme/law", message="first")
    paper_expert(law, weights=b"better weights")
    look = moehub.hub.remote._tree
    looks: list[int] = []

    def look_and_lose_the_race(*arguments: object) -> object:
        seen = look(*arguments)  # type: ignore[arg-type]
        if not looks:
            server.add({"picture.png": b"png"})
        looks.append(1)
        return seen

    monkeypatch.setattr("moehub.hub.remote._tree", look_and_lose_the_race)
    published = hub.push(law, "acme/law", message="second")
    assert (len(looks), server.commits()) == (2, 3)
    assert published.commit == server.head()


@pytest.mark.parametrize("path", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_flipped_byte_is_found_and_leaves_no_folder(
    hub: RemoteHub, server: loopback_hub.Hub, law: Path, tmp_path: Path, path: str
) -> None:
    """In a large file, whose sha256 the hub tells, and in a small one, which has git's name."""
    hub.push(law, "acme/law", message="first")
    server.flip(path)
    with pytest.raises(HubError, match=f"{path} is not the file that was published: pull again"):
        hub.pull("acme/law", None, tmp_path / "got")
    assert [found.name for found in tmp_path.iterdir() if "got" in found.name] == []


def test_an_expert_that_does_not_fit_its_card_is_refused(
    hub: RemoteHub, server: loopback_hub.Hub, law: Path, tmp_path: Path
) -> None:
    """Even where the hub vouches for the file: the publisher's digests decide."""
    hub.push(law, "acme/law", message="first")
    server.add({"adapter_model.safetensors": b"another"})
    with pytest.raises(HubError, match=r"adapter_model\.safetensors was changed after publication"):
        hub.pull("acme/law", None, tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_files_that_do_not_travel_are_not_fetched(
    hub: RemoteHub, server: loopback_hub.Hub, law: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code and strange formats stay where they are, and so does a name that leads elsewhere."""
    hub.push(law, "acme/law", message="first")
    server.add(dict.fromkeys(("run.py", "model.gguf", "outside.json"), b"x"))
    tell = History.tree

    def lie(history: History, repo: Repo, oid: str) -> dict[str, Entry]:
        tree = tell(history, repo, oid)
        return {**tree, "../outside.json": tree["outside.json"]}

    monkeypatch.setattr(History, "tree", lie)
    hub.pull("acme/law", None, tmp_path / "got")
    assert not {path.name for path in tmp_path.rglob("*")} & {"run.py", "model.gguf", "outside.json"}


def test_the_experts_are_listed(hub: RemoteHub, server: loopback_hub.Hub, law: Path, tmp_path: Path) -> None:
    """With what their model cards say; `base` keeps those of one base, and a stranger's repo is left out."""
    other = BasePin("acme/other", "f" * 64, "e" * 64)
    commit = hub.push(law, "acme/law", message="x").commit
    hub.push(paper_expert(tmp_path / "code", paper_card("code", base=other)), "acme/code", message="x")
    hub.push(paper_moe(tmp_path / "moe"), "acme/moe", message="x")
    server.add({"README.md": b"---\ntags: [moehub-expert]\n---\n"}, "zoo/odd")
    expected = Listing("acme/law", "law", "law", PIN, "apache-2.0", commit, paper_card().metrics)
    assert [listing.repo for listing in hub.experts()] == ["acme/code", "acme/law"]
    assert hub.experts("acme/base") == [expected]


def test_a_private_repo_is_made_private_and_stays_hidden(
    hub: RemoteHub, server: loopback_hub.Hub, law: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the token it does not exist, and the sentence says that it may be a matter of tokens."""
    hub.push(law, "acme/law", message="first", private=True)
    assert server.repo().private
    monkeypatch.delenv("MOEHUB_TOKEN")
    with pytest.raises(HubError, match=r"or it is private: .*MOEHUB_TOKEN"):
        hub.pull("acme/law", None, tmp_path / "got")


def test_a_public_repo_is_not_taken_for_a_private_one(hub: RemoteHub, server: loopback_hub.Hub, law: Path) -> None:
    """Somebody who asks for privacy does not publish by mistake."""
    hub.push(law, "acme/law", message="first")
    paper_expert(law, weights=b"secret weights")
    with pytest.raises(HubError, match="is public already"):
        hub.push(law, "acme/law", message="second", private=True)
    assert server.commits() == 1


def test_a_missing_repo_and_revision_are_named(hub: RemoteHub, law: Path, tmp_path: Path) -> None:
    """Each in one sentence with its cure."""
    with pytest.raises(HubError, match=r"there is no repo acme/law on http.*: check the name with `moehub list`"):
        hub.pull("acme/law", None, tmp_path / "got")
    hub.push(law, "acme/law", message="first")
    with pytest.raises(HubError, match=r"acme/law on http\S* has no revision 'v9'"):
        hub.pull("acme/law", "v9", tmp_path / "got")


def test_a_repo_with_something_else_in_it_is_refused(hub: RemoteHub, server: loopback_hub.Hub, tmp_path: Path) -> None:
    """A repo without a card is no expert."""
    server.add({"config.json": b"{}"}, "acme/base")
    with pytest.raises(HubError, match=r"acme/base on http\S* has no expert.json"):
        hub.pull("acme/base", None, tmp_path / "got")


def test_a_wrong_token_is_refused_with_the_cure(hub: RemoteHub, law: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's 401 becomes a sentence."""
    monkeypatch.setenv("MOEHUB_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match=r"does not accept our token, .*MOEHUB_TOKEN"):
        hub.push(law, "acme/law", message="first")


def test_a_push_without_the_right_to_it_is_refused(hub: RemoteHub, law: Path) -> None:
    """The hub's 403 too."""
    with pytest.raises(HubError, match="does not let this token do that with foreign/law"):
        hub.push(law, "foreign/law", message="first")


def test_the_token_of_huggingface_co_goes_nowhere_else(
    hub: RemoteHub, server: loopback_hub.Hub, law: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither HF_TOKEN nor a stored login reaches a hub that was named."""
    hub.push(law, "acme/law", message="first")
    server.tokens_seen.clear()
    monkeypatch.delenv("MOEHUB_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.pull("acme/law", None, tmp_path / "got")
    hub.experts()
    assert server.tokens_seen == {None}
    assert hub.token_cure() == "the variable MOEHUB_TOKEN"


def test_the_hub_that_huggingface_hub_is_set_to_gets_its_token(
    server: loopback_hub.Hub, law: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With HF_ENDPOINT, HF_TOKEN is meant for that hub."""
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.delenv("MOEHUB_TOKEN")
    monkeypatch.setenv("HF_TOKEN", server.token)
    hub = open_hub(None)
    commit = hub.push(law, "acme/law", message="first").commit
    assert hub.pull("acme/law", commit, tmp_path / "got") == commit
    assert f"Bearer {server.token}" in server.tokens_seen


def test_one_hubs_files_are_not_served_as_anothers(
    server: loopback_hub.Hub, law: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hubs may have a repo of the same name, and even the same commit id."""
    other = paper_expert(tmp_path / "other" / "law", weights=b"others")
    commit = RemoteHub(server.url).push(law, "acme/law", message="x").commit
    with loopback_hub.running(tmp_path / "root") as two:
        monkeypatch.setenv("MOEHUB_TOKEN", two.token)
        RemoteHub(two.url).push(other, "acme/law", message="x")
        with two.store.database.writing() as connection:
            connection.execute("update history set oid = ? where oid = ?", (commit, two.head()))
            connection.execute("update ref set oid = ?", (commit,))
        huggingface_hub.snapshot_download("acme/law", endpoint=server.url, revision=commit, token=False)
        assert RemoteHub(two.url).pull("acme/law", None, tmp_path / "got") == commit
    assert (tmp_path / "got" / "adapter_model.safetensors").read_bytes() == b"others"


def test_the_client_is_left_as_it_was(hub: RemoteHub, law: Path) -> None:
    """Uploads over plain HTTP are asked for while a hub needs them, not for the whole process."""
    before = huggingface_hub.constants.HF_HUB_DISABLE_XET
    hub.push(law, "acme/law", message="first")
    assert before == huggingface_hub.constants.HF_HUB_DISABLE_XET


def test_checking_says_who_we_are(hub: RemoteHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a token and without."""
    assert hub.check(5.0) == f"{hub.location} knows us as alice"
    monkeypatch.delenv("MOEHUB_TOKEN")
    assert hub.check(5.0) == f"{hub.location} answers; without a token we can pull, but not push"


@pytest.mark.parametrize("verb", ["push", "pull", "experts", "check"])
def test_a_hub_that_is_not_there_fails_at_once(law: Path, tmp_path: Path, verb: str) -> None:
    """In one sentence, without half a minute of retries."""
    hub = RemoteHub("http://127.0.0.1:9")
    actions = {
        "push": lambda: hub.push(law, "acme/law", message="x"),
        "pull": lambda: hub.pull("acme/law", None, tmp_path / "got"),
        "experts": hub.experts,
        "check": lambda: hub.check(3.0),
    }
    started = time.monotonic()
    with pytest.raises(HubError, match=r"http://127.0.0.1:9 cannot be reached .*: check the address"):
        actions[verb]()
    assert time.monotonic() - started < 5


def test_a_server_that_is_no_hub_is_named(tmp_path: Path) -> None:
    """Somebody's web site."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        try:
            with pytest.raises(HubError, match=r"refused|not the Hugging Face Hub API"):
                RemoteHub(f"http://127.0.0.1:{site.server_port}").pull("acme/law", None, tmp_path / "got")
        finally:
            site.shutdown()
            thread.join()


def test_nothing_is_asked_where_the_client_is_told_to_stay_offline(
    hub: RemoteHub, server: loopback_hub.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_HUB_OFFLINE holds for us too, and the sentence says so."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        hub.pull("acme/law", None, tmp_path / "got")
    assert server.tokens_seen == set()
