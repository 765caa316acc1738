"""What goes wrong between a hub and the client when nobody means harm."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from moehub.hubserver.api.answers import refusal
from moehub.hubserver.application import application
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.settings import ServerSettings
from moehub.hubserver.store.history import Admit
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.trees import Tree
from tests.hubserver import wire
from tests.hubserver.conftest import Served
from tests.hubserver.wire import REPO, commit, committed, create, file, gone, good, large, refused, upload


@pytest.mark.parametrize("revision", ["main", "v1", "exp%2F1", "refs%2Fheads%2Fmain", "refs%2Ftags%2Fv1"])
def test_a_branch_or_tag_leads_to_its_commit(hub: Served, revision: str) -> None:
    """A download that is resumed after the branch has moved would splice two files into one otherwise."""
    create(hub)
    oid = committed(hub, file("a b/ü#.txt", b"content"))
    hub.ask("POST", f"/api/models/{REPO}/tag/main", token=hub.ada, json={"tag": "v1"})
    hub.ask("POST", f"/api/models/{REPO}/branch/exp%2F1", token=hub.ada)
    for method in ("GET", "HEAD"):
        answer = hub.ask(method, f"/{REPO}/resolve/{revision}/a%20b/%C3%BC%23.txt")
        assert (answer.status_code, answer.headers["x-repo-commit"]) == (307, oid)
        # Without scheme and host: the client follows nothing else where it asks for a file's details.
        assert answer.headers["location"] == f"/{REPO}/resolve/{oid}/a%20b/%C3%BC%23.txt"
    assert hub.ask("GET", answer.headers["location"]).content == b"content"


def test_a_download_that_is_resumed_is_of_the_same_file(hub: Served) -> None:
    """Although the branch has moved to a file of the same size in the meantime."""
    create(hub)
    old, new = os.urandom(3000), os.urandom(3000)
    upload(hub, old)
    upload(hub, new)
    committed(hub, large("a.safetensors", old))
    where = hub.ask("GET", f"/{REPO}/resolve/main/a.safetensors").headers["location"]
    begun = hub.ask("GET", where, headers={"Range": "bytes=0-999"}).content
    committed(hub, large("a.safetensors", new))
    rest = hub.ask("GET", where, headers={"Range": "bytes=1000-"}).content
    assert begun + rest == old


def test_a_commit_that_is_asked_for_again_is_made_once(hub: Served) -> None:
    """Its answer may have got lost: with and without its parent, and also where it deletes something."""
    create(hub)
    first = committed(hub, file("a"), file("b"))
    for operations in ([file("c"), gone("a")], [file("d")], [gone("b")]):
        for parent in (None, first):
            done = [committed(hub, *operations, parent=first), committed(hub, *operations, parent=parent)]
            assert done[0] == done[1]
        first = done[0]
    assert len(good(hub.ask("GET", f"/api/models/{REPO}/commits/main"))) == 5


def test_a_commit_without_a_change_is_the_one_that_is_there(hub: Served) -> None:
    """Nothing new makes no new commit."""
    create(hub)
    assert committed(hub, file("a")) == committed(hub, file("a")) == committed(hub)


def test_a_commit_upon_an_old_one_is_refused(hub: Served) -> None:
    """Who names a parent wants nothing to have happened since."""
    create(hub)
    first = committed(hub, file("a"))
    committed(hub, file("b"))
    status, said = refused(commit(hub, file("c"), parent=first))
    assert (status, first[:12] in said) == (412, True)


def test_many_commits_at_once_all_land(hub: Served) -> None:
    """Each upon another one, and none is lost."""
    create(hub)
    with ThreadPoolExecutor(8) as pool:
        oids = list(pool.map(lambda number: committed(hub, file(f"{number}.txt")), range(16)))
    log = good(hub.ask("GET", f"/api/models/{REPO}/commits/main"))
    assert sorted(each["id"] for each in log[:-1]) == sorted(oids)
    assert len(good(hub.ask("GET", f"/api/models/{REPO}/tree/main"))) == 17


def test_commits_stay_as_they_are(hub: Served) -> None:
    """Clients keep the trees of commits: what a commit held it holds for ever."""
    create(hub)
    first = committed(hub, file("a", b"old"))
    before = good(hub.ask("GET", f"/api/models/{REPO}/tree/{first}"))
    committed(hub, file("a", b"new"))
    committed(hub, gone("a"))
    assert good(hub.ask("GET", f"/api/models/{REPO}/tree/{first}")) == before
    assert hub.ask("GET", f"/{REPO}/resolve/{first}/a").content == b"old"


def test_a_commit_of_another_repo_is_not_one_of_this(hub: Served) -> None:
    """Also where it is known."""
    create(hub)
    create(hub, "acme/other")
    oid = committed(hub, file("a"), repo="acme/other")
    assert hub.ask("GET", f"/{REPO}/resolve/{oid}/a").headers["x-error-code"] == "RevisionNotFound"


def test_downloads_are_never_offered_through_xet(hub: Served) -> None:
    """The client would follow; a hub of this kind has nothing there."""
    create(hub)
    upload(hub, b"\0" * 100)
    oid = committed(hub, large("a.safetensors", b"\0" * 100))
    assert not any("xet" in name for name in hub.ask("GET", f"/{REPO}/resolve/{oid}/a.safetensors").headers)
    assert "xet" not in hub.ask("GET", f"/api/models/{REPO}/tree/main").text.lower()


def test_what_the_gate_says_reaches_the_client_whole(hub: Served) -> None:
    """Every line of it; and the commit is not made."""

    def refuse(_repo: Repo, _tree: Tree) -> None:
        raise RefusedError(422, "the gate refuses this:\n  - one: \u00e4rger: cure\n  - two: more: cure")

    create(hub)
    before = good(hub.ask("GET", f"/api/models/{REPO}"))["sha"]
    assert refused(_commit(hub, refuse)) == (
        422,
        "the gate refuses this:\n  - one: \u00e4rger: cure\n  - two: more: cure",
    )
    assert good(hub.ask("GET", f"/api/models/{REPO}"))["sha"] == before


def _commit(hub: Served, admit: Admit) -> httpx2.Response:
    """Commit to a hub's store through an application with a gate of its own."""
    app = application(hub.store, ServerSettings(hub.store.root), admit=admit)

    async def ask() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost") as client:
            headers = {"Authorization": f"Bearer {hub.ada}"}
            return await client.post(f"/api/models/{REPO}/commit/main", content=wire.body([file("a")]), headers=headers)

    return asyncio.run(ask())


@pytest.mark.parametrize("sentence", ["plain", "größer \u2265 1", "line\nline", "x" * 3000])
def test_a_refusal_fits_into_its_header(sentence: str) -> None:
    """One line of ASCII, whatever the sentence holds; the body has all of it."""
    answer = refusal(RefusedError(422, sentence))
    header = answer.headers.get("x-error-message", "")
    assert header.isascii()
    assert len(header) <= 500
    assert "\n" not in header


def test_a_thread_may_wait_for_the_gate_while_others_read(hub: Served) -> None:
    """The gate takes its time in a thread of its own."""
    create(hub)
    entered, leave = threading.Event(), threading.Event()

    def wait(_repo: Repo, _tree: Tree) -> None:
        entered.set()
        leave.wait(10)

    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(_commit, hub, wait)
        assert entered.wait(10)
        assert hub.ask("GET", f"/api/models/{REPO}").status_code == 200
        other = committed(hub, file("b"))
        leave.set()
        assert pending.result().status_code == 200
    log = good(hub.ask("GET", f"/api/models/{REPO}/commits/main"))
    assert log[1]["id"] == other


def test_commits_that_wait_for_the_gate_leave_threads_to_others(hub: Served) -> None:
    """However many: reading goes on, and all of them are made in the end."""
    create(hub)
    leave = threading.Event()

    def wait(_repo: Repo, _tree: Tree) -> None:
        leave.wait(30)

    app = application(hub.store, ServerSettings(hub.store.root), admit=wait)
    headers = {"Authorization": f"Bearer {hub.ada}"}

    async def push(client: httpx2.AsyncClient, number: int) -> int:
        content = wire.body([file(f"{number}.txt")])
        return (await client.post(f"/api/models/{REPO}/commit/main", content=content, headers=headers)).status_code

    async def all_of_them() -> list[int]:
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://localhost", timeout=30
        ) as client:
            pushes = [asyncio.create_task(push(client, number)) for number in range(60)]
            await asyncio.sleep(1)  # by now they have taken all the threads that they can get
            assert (await asyncio.wait_for(client.get(f"/api/models/{REPO}"), 10)).status_code == 200
            leave.set()
            return list(await asyncio.gather(*pushes))

    assert asyncio.run(all_of_them()) == [200] * 60
