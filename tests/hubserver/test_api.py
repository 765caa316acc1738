"""Every endpoint, by hand: what the client reads out of the answers."""

from typing import Any

import pytest

from tests.hubserver import wire
from tests.hubserver.conftest import Served
from tests.hubserver.wire import REPO, commit, committed, create, file, gone, good, large, refused, upload

CARD = b"---\nlicense: mit\nbase_model: acme/base\ntags: [law]\npipeline_tag: text-generation\n---\nOf law.\n"
TENSORS = b"\0tensors" * 100


@pytest.fixture
def law(hub: Served) -> Served:
    """The hub, with a repo that has one commit besides its first one."""
    assert create(hub).status_code == 200
    upload(hub, TENSORS)
    committed(hub, file("README.md", CARD), file("notes/a b.txt"), large("adapter_model.safetensors", TENSORS))
    return hub


def get(hub: Served, path: str, token: str | None = None, **more: Any) -> Any:
    return good(hub.ask("GET", path, token=token, **more))


def test_whoami_says_whose_a_token_is(hub: Served) -> None:
    """With the namespaces besides their own, and what they may do there."""
    answer = get(hub, "/api/whoami-v2", hub.ada)
    assert answer["name"] == "ada"
    assert [(org["name"], org["roleInOrg"]) for org in answer["orgs"]] == [("acme", "write")]
    assert answer["auth"]["accessToken"]["role"] == "write"
    assert get(hub, "/api/whoami-v2", hub.reader)["auth"]["accessToken"]["role"] == "read"


def test_a_new_repo_has_a_first_commit(hub: Served) -> None:
    """So that there is a `main` which a client can ask about; the answer says where the repo is."""
    assert good(create(hub))["url"] == f"{hub.url}/{REPO}"
    info = get(hub, f"/api/models/{REPO}")
    assert [each["rfilename"] for each in info["siblings"]] == [".gitattributes"]
    assert len(info["sha"]) == 40


def test_a_repo_that_is_there_already_says_where(hub: Served) -> None:
    """For `exist_ok`; also by a name that differs in case alone."""
    create(hub)
    answer = create(hub, "acme/LAW")
    assert (answer.status_code, answer.json()["url"]) == (409, f"{hub.url}/{REPO}")


@pytest.mark.parametrize(
    ("repo", "values", "sentence"),
    [
        ("acme/a..b", {}, "cannot name a repo"),
        ("acme/law.git", {}, "cannot name a repo"),
        ("api/models", {}, "the hub's own"),
        ("acme/law", {"type": "dataset"}, "holds models"),
        ("acme/law", {"visibility": "secret"}, "one of"),
    ],
)
def test_what_cannot_be_a_repo_is_not_made(hub: Served, repo: str, values: dict[str, str], sentence: str) -> None:
    """Names that lead elsewhere or hide the hub's own addresses, and what the hub does not hold."""
    status, said = refused(create(hub, repo, token=hub.ada, **values))
    assert status == 400
    assert sentence in said


def test_a_repo_can_be_deleted(law: Served) -> None:
    """With everything in it; another time there is nothing to delete."""
    body = {"organization": "acme", "name": "law"}
    assert law.ask("DELETE", "/api/repos/delete", token=law.ada, json=body).status_code == 200
    assert law.ask("GET", f"/api/models/{REPO}").headers["x-error-code"] == "RepoNotFound"
    again = law.ask("DELETE", "/api/repos/delete", token=law.ada, json=body)
    assert (again.status_code, again.headers["x-error-code"]) == (404, "RepoNotFound")


def test_details_say_what_a_repo_is(law: Served) -> None:
    """With what its card says, the tags a hub derives, and its files; `blobs` adds what they hold."""
    info = get(law, f"/api/models/{REPO}?blobs=true")
    assert info["cardData"]["license"] == "mit"
    assert info["pipeline_tag"] == "text-generation"
    assert {"law", "base_model:acme/base", "license:mit"} <= set(info["tags"])
    tensors = {each["rfilename"]: each for each in info["siblings"]}["adapter_model.safetensors"]
    assert tensors["lfs"] == {"sha256": wire.sha256(TENSORS), "size": len(TENSORS), "pointerSize": 128}
    assert info["usedStorage"] == len(TENSORS) + len(CARD) + 1 + 50


def test_details_of_a_revision_are_those_of_its_commit(law: Served) -> None:
    """Not those of the newest one."""
    first = get(law, f"/api/models/{REPO}")["sha"]
    second = committed(law, gone("README.md"))
    assert get(law, f"/api/models/{REPO}")["sha"] == second
    info = get(law, f"/api/models/{REPO}/revision/{first}")
    assert "README.md" in [each["rfilename"] for each in info["siblings"]]


def test_expand_keeps_what_was_asked_for(law: Served) -> None:
    """And the name."""
    info = get(law, f"/api/models/{REPO}?expand=tags&expand=sha")
    assert set(info) == {"_id", "id", "modelId", "tags", "sha"}


def test_the_list_is_filtered_by_every_tag(law: Served) -> None:
    """All of them must fit; author and search words, too."""
    create(law, "acme/medicine")
    names = lambda query: [each["id"] for each in get(law, f"/api/models?{query}")]  # noqa: E731 (one word to ask)
    assert names("") == ["acme/medicine", REPO]
    assert names("filter=base_model:acme/base&filter=law") == [REPO]
    assert names("filter=law&filter=medicine") == []
    assert names("search=MED") == ["acme/medicine"]
    assert names("author=ada") == []
    assert names("pipeline_tag=text-generation") == [REPO]


def test_the_list_is_as_full_as_it_was_asked_for(law: Served) -> None:
    """`full` adds files, `cardData` the card."""
    assert {"siblings", "cardData"} & set(get(law, "/api/models")[0]) == set()
    whole = get(law, "/api/models?full=True&cardData=True")[0]
    assert len(whole["siblings"]) == 4
    assert whole["cardData"]["license"] == "mit"


def test_the_list_comes_in_pages(hub: Served) -> None:
    """Each says where the next one is; together they are everything, once."""
    for number in range(5):
        create(hub, f"acme/repo-{number}")
    found, path = [], "/api/models?limit=2&author=acme"
    while path:
        answer = hub.ask("GET", path)
        found.append([each["id"][-1] for each in answer.json()])
        path = answer.links.get("next", {}).get("url", "").removeprefix(hub.url)
    assert found == [["4", "3"], ["2", "1"], ["0"]]


def test_the_tree_is_a_folder_or_everything(law: Served) -> None:
    """Folders first come as themselves; `recursive` adds what is in them."""
    paths = lambda query: [each["path"] for each in get(law, f"/api/models/{REPO}/tree/{query}")]  # noqa: E731
    assert paths("main") == [".gitattributes", "README.md", "adapter_model.safetensors", "notes"]
    assert paths("main?recursive=True")[-1] == "notes/a b.txt"
    assert paths("main/notes") == ["notes/a b.txt"]
    answer = law.ask("GET", f"/api/models/{REPO}/tree/main/nothing")
    assert (answer.status_code, answer.headers["x-error-code"]) == (404, "EntryNotFound")


def test_the_tree_says_which_commit_changed_a_file_last(law: Served) -> None:
    """With `expand`; a folder was changed when something in it was."""
    before = get(law, f"/api/models/{REPO}")["sha"]
    after = committed(law, file("notes/new.txt"))
    items = get(law, f"/api/models/{REPO}/tree/main?recursive=True&expand=True")
    changed = {each["path"]: each["lastCommit"]["id"] for each in items}
    assert changed["README.md"] == changed["notes/a b.txt"] == before
    assert changed["notes/new.txt"] == changed["notes"] == after
    assert changed[".gitattributes"] not in (before, after)


def test_paths_are_looked_up(law: Served) -> None:
    """Files and folders; what is not there is left out."""
    form = {"paths": ["README.md", "notes", "nothing"], "expand": "false"}
    answer = good(law.ask("POST", f"/api/models/{REPO}/paths-info/main", data=form))
    assert [(each["path"], each["type"]) for each in answer] == [("README.md", "file"), ("notes", "directory")]


def test_branches_and_tags_come_and_go(law: Served) -> None:
    """Slashes in their names are part of them; a second one of a name is refused."""
    api = f"/api/models/{REPO}"
    first = get(law, api)["sha"]
    assert law.ask("POST", f"{api}/branch/exp%2F1", token=law.ada, json={}).status_code == 200
    assert law.ask("POST", f"{api}/tag/main", token=law.ada, json={"tag": "v1"}).status_code == 200
    assert law.ask("POST", f"{api}/tag/main", token=law.ada, json={"tag": "v1"}).status_code == 409
    second = committed(law, file("new.txt"), branch="exp%2F1")
    refs = get(law, f"{api}/refs")
    assert refs["branches"] == [
        {"name": "exp/1", "ref": "refs/heads/exp/1", "targetCommit": second},
        {"name": "main", "ref": "refs/heads/main", "targetCommit": first},
    ]
    assert refs["tags"] == [{"name": "v1", "ref": "refs/tags/v1", "targetCommit": first}]
    assert law.ask("DELETE", f"{api}/branch/exp%2F1", token=law.ada).status_code == 200
    assert law.ask("DELETE", f"{api}/tag/v1", token=law.ada).status_code == 200
    assert law.ask("DELETE", f"{api}/branch/main", token=law.ada).status_code == 403


def test_commits_are_listed_newest_first(law: Served) -> None:
    """Page by page."""
    newest = committed(law, file("new.txt"))
    answer = law.ask("GET", f"/api/models/{REPO}/commits/main?limit=2")
    assert [each["title"] for each in answer.json()] == ["Change it", "Change it"]
    assert answer.json()[0]["id"] == newest
    assert answer.json()[0]["authors"] == [{"user": "ada"}]
    rest = good(law.ask("GET", answer.links["next"]["url"].removeprefix(law.url)))
    assert [each["title"] for each in rest] == ["Make the repo"]


def test_settings_close_and_gate_a_repo(law: Served) -> None:
    """A private repo is not there for strangers, a gated one cannot be read by them."""
    path = f"/api/models/{REPO}/settings"
    assert law.ask("PUT", path, token=law.ada, json={"gated": "manual"}).status_code == 200
    assert get(law, f"/api/models/{REPO}")["gated"] == "manual"
    assert law.ask("GET", f"/{REPO}/resolve/main/README.md").headers["x-error-code"] == "GatedRepo"
    assert law.ask("PUT", path, token=law.ada, json={"gated": False, "visibility": "private"}).status_code == 200
    assert law.ask("GET", f"/api/models/{REPO}").status_code == 404
    assert law.ask("GET", f"/api/models/{REPO}", token=law.reader).status_code == 200


def test_auth_check_says_who_may_do_what(law: Served) -> None:
    """Reading and writing are asked for apart."""
    path = f"/api/models/{REPO}/auth-check"
    assert [law.ask("GET", path, token=token).status_code for token in (None, law.ada)] == [200, 200]
    statuses = [law.ask("GET", f"{path}/write", token=token).status_code for token in (None, law.reader, law.ada)]
    assert statuses == [401, 403, 200]


def test_a_model_card_is_looked_at_before_it_is_uploaded(hub: Served) -> None:
    """Good, without its beginning, and broken."""
    answers = [
        hub.ask("POST", "/api/validate-yaml", json={"content": content, "repoType": "model"})
        for content in (CARD.decode(), "Of law.", "---\na: [\n---\n", "---\n- a list\n---\n")
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 400, 400]
    assert answers[0].json() == {"errors": [], "warnings": []}
    assert len(answers[1].json()["warnings"]) == 1
    assert "cannot be read" in answers[2].json()["errors"][0]["message"]
    assert "no mapping" in answers[3].json()["errors"][0]["message"]


def test_small_text_comes_in_the_commit_and_the_rest_beforehand(law: Served) -> None:
    """What stands at a path already is named, so that the client need not send it again."""
    files = [
        {"path": "README.md", "size": len(CARD), "sample": "LS0t"},
        {"path": "adapter_model.safetensors", "size": 5, "sample": ""},
        {"path": "large.txt", "size": (1 << 20) + 1, "sample": "eHg="},
        {"path": "binary", "size": 3, "sample": "AAAA"},
    ]
    answer = good(law.ask("POST", f"/api/models/{REPO}/preupload/main", token=law.ada, json={"files": files}))
    assert [each["uploadMode"] for each in answer["files"]] == ["regular", "lfs", "lfs", "lfs"]
    assert answer["files"][0]["oid"] == get(law, f"/api/models/{REPO}/tree/main")[1]["oid"]
    assert answer["files"][1]["oid"] == wire.sha256(TENSORS)
    assert answer["files"][2]["oid"] is None


def test_a_commit_adds_replaces_and_deletes(law: Served) -> None:
    """All in one, in whatever order they are named."""
    oid = committed(law, file("README.md", b"new"), gone("notes/a b.txt"), file("b/c.txt"))
    assert law.ask("GET", f"/{REPO}/resolve/{oid}/README.md").content == b"new"
    folder = {"key": "deletedFolder", "value": {"path": "b/"}}
    committed(law, folder)
    tree = get(law, f"/api/models/{REPO}/tree/main?recursive=1")
    assert [each["path"] for each in tree] == [".gitattributes", "README.md", "adapter_model.safetensors"]


def test_a_large_file_may_be_committed_under_a_second_name(law: Served) -> None:
    """Without its size: so the client copies within a repo."""
    value = {"path": "copy.safetensors", "algo": "sha256", "oid": wire.sha256(TENSORS)}
    oid = committed(law, {"key": "lfsFile", "value": value})
    assert law.ask("GET", f"/{REPO}/resolve/{oid}/copy.safetensors").content == TENSORS


def test_pull_requests_are_not_pretended(law: Served) -> None:
    """Whoever asks for one would think that nothing happened to `main`."""
    path = f"/api/models/{REPO}/commit/main?create_pr=1"
    status, said = refused(law.ask("POST", path, token=law.ada, content=wire.body([file("a")])))
    assert (status, "no pull requests" in said) == (400, True)


def test_what_is_not_there_is_said_as_the_client_understands_it(law: Served) -> None:
    """A missing repo, revision and file are three different errors to it."""
    codes = [
        law.ask("GET", path).headers.get("x-error-code")
        for path in (
            "/api/models/acme/none",
            f"/api/models/{REPO}/revision/none",
            f"/{REPO}/resolve/main/none",
            "/api/agent-harnesses",
        )
    ]
    assert codes == ["RepoNotFound", "RevisionNotFound", "EntryNotFound", None]
    missing = law.ask("HEAD", f"/{REPO}/resolve/main/none")
    assert missing.headers["x-repo-commit"] == get(law, f"/api/models/{REPO}")["sha"]


def test_a_commit_to_a_branch_that_is_not_there_is_refused(law: Served) -> None:
    """As an unknown revision."""
    answer = commit(law, file("a"), branch="none")
    assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RevisionNotFound")
