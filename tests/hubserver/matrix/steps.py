"""What people do with the Hugging Face client, step by step; run by the Python of the client that is looked at.

    python steps.py FOLDER        HF_ENDPOINT, HF_HOME and HF_TOKEN say where and as whom; STRANGER is another's token

Prints one JSON object: the versions, and for each step `ok`, `not in this version`, or what went wrong. It imports the
standard library and huggingface_hub alone, because nothing else is installed beside the client.
"""

import hashlib
import importlib.metadata
import json
import os
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub as client
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, errors

REPO, BASE = "acme/law", "acme/base"
CARD = """---
library_name: peft
base_model: acme/base
license: apache-2.0
tags: [lora, moehub-expert, "domain:law"]
---
# Law
"""
STEPS: dict[str, Callable[[Path], None]] = {}
api = HfApi()
stranger = HfApi(token=os.environ.get("STRANGER"))


class NotInThisVersionError(Exception):
    """The client cannot do that, or can no longer."""


def step(do: Callable[[Path], None]) -> Callable[[Path], None]:
    STEPS[do.__name__.replace("_", " ")] = do
    return do


def tensors(size: int, seed: int) -> bytes:
    """Return a safetensors file of about `size` bytes that nothing can pack."""
    data = b"".join(hashlib.sha256(b"%d %d" % (seed, number)).digest() for number in range(size // 32))
    header = json.dumps({"weight": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}).encode()
    return struct.pack("<Q", len(header)) + header + data


def expert(folder: Path) -> Path:
    """Write the folder of an expert, with a large file and small ones."""
    made = folder / "expert"
    (made / "notes").mkdir(parents=True, exist_ok=True)
    (made / "README.md").write_text(CARD)
    (made / "adapter_config.json").write_text('{"base_model_name_or_path": "acme/base"}')
    (made / "adapter_model.safetensors").write_bytes(tensors(3_000_000, 1) + bytes(1_000_000))
    for number in range(5):
        (made / "notes" / f"{number}.safetensors").write_bytes(tensors(20_000, number))
    return made


def raises(kind: type[Exception], do: Callable[[], object]) -> None:
    try:
        found = do()
    except kind:
        return
    raise AssertionError(f"expected {kind.__name__}, got {found!r}")


def same(folder: Path | str, made: Path) -> None:
    """Look whether a downloaded folder holds what was uploaded."""
    for path in made.rglob("*"):
        if path.is_file() and ".cache" not in path.parts:  # where the client notes how far it came
            assert (Path(folder) / path.relative_to(made)).read_bytes() == path.read_bytes(), path


def needs(name: str) -> None:
    if not hasattr(api, name):
        raise NotInThisVersionError(name)


@step
def who_we_are(_: Path) -> None:
    assert [each["name"] for each in api.whoami()["orgs"]] == ["acme"]
    raises(OSError, lambda: api.whoami(token="hf_nobody"))


@step
def make_a_repo(_: Path) -> None:
    assert not api.repo_exists(REPO)
    api.create_repo(REPO)
    raises(errors.HfHubHTTPError, lambda: api.create_repo(REPO))
    api.create_repo(REPO, exist_ok=True)
    raises(errors.HfHubHTTPError, lambda: api.create_repo("elsewhere/law"))
    assert api.repo_exists(REPO)


@step
def upload_a_folder(folder: Path) -> None:
    made = api.upload_folder(repo_id=REPO, folder_path=expert(folder))
    assert made.oid == api.model_info(REPO).sha


@step
def upload_it_again_and_make_no_commit(folder: Path) -> None:
    head = api.model_info(REPO).sha
    assert api.upload_folder(repo_id=REPO, folder_path=expert(folder)).oid == head


@step
def upload_the_same_files_to_another_repo(folder: Path) -> None:
    api.create_repo("acme/again")
    api.upload_folder(repo_id="acme/again", folder_path=expert(folder))
    same(client.snapshot_download("acme/again", local_dir=folder / "again"), expert(folder))


@step
def upload_a_file_that_shares_most_of_its_bytes(folder: Path) -> None:
    data = (expert(folder) / "adapter_model.safetensors").read_bytes()
    changed = data[:2_000_000] + b"new" + data[2_000_000:]
    api.upload_file(path_or_fileobj=changed, path_in_repo="changed.safetensors", repo_id=REPO)
    assert Path(client.hf_hub_download(REPO, "changed.safetensors")).read_bytes() == changed


@step
def upload_a_hundred_small_files(folder: Path) -> None:
    names = {f"many/{number:03d}.safetensors": tensors(1_000, number) for number in range(100)}
    api.create_commit(REPO, [CommitOperationAdd(name, data) for name, data in names.items()], commit_message="many")
    got = client.snapshot_download(REPO, allow_patterns="many/*", local_dir=folder / "many")
    assert {name: (Path(got) / name).read_bytes() for name in names} == names


@step
def upload_an_empty_file(_: Path) -> None:
    api.upload_file(path_or_fileobj=b"", path_in_repo="empty.safetensors", repo_id=REPO)
    assert Path(client.hf_hub_download(REPO, "empty.safetensors")).read_bytes() == b""


@step
def upload_with_the_command_line(folder: Path) -> None:
    (folder / "one.safetensors").write_bytes(tensors(300_000, 9))
    program = Path(sys.executable).with_name("hf")
    command = [program, "upload", REPO, folder / "one.safetensors", "cli/one.safetensors"]
    ran = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    command = [program, "download", REPO, "cli/one.safetensors"]
    ran = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert Path(client.hf_hub_download(REPO, "cli/one.safetensors")).read_bytes() == tensors(300_000, 9)


@step
def upload_a_large_folder(folder: Path) -> None:
    needs("upload_large_folder")
    api.upload_large_folder(  # type: ignore[attr-defined, unused-ignore]
        repo_id="acme/large", repo_type="model", folder_path=expert(folder), print_report=False
    )
    same(client.snapshot_download("acme/large", local_dir=folder / "large"), expert(folder))


@step
def ask_about_a_model(_: Path) -> None:
    info = api.model_info(REPO, files_metadata=True)
    sizes = {file.rfilename: file.size for file in info.siblings or []}
    assert (info.library_name, info.card_data and info.card_data.base_model) == ("peft", BASE)
    assert {"base_model:adapter:acme/base", "domain:law"} <= set(info.tags or [])
    assert sizes["notes/0.safetensors"] == len(tensors(20_000, 0))
    assert api.model_info(REPO, expand=["tags"]).tags


@step
def find_models(_: Path) -> None:
    assert {model.id for model in api.list_models(filter="base_model:adapter:acme/base")} >= {REPO, "acme/again"}
    assert REPO in {model.id for model in api.list_models(filter=["moehub-expert", "domain:law"])}
    assert [model.id for model in api.list_models(author="acme", search="again")] == ["acme/again"]
    assert len(list(api.list_models(limit=1))) == 1


@step
def list_files(_: Path) -> None:
    paths = {item.path for item in api.list_repo_tree(REPO, recursive=True)}
    assert {"README.md", "notes", "notes/0.safetensors", "many/099.safetensors"} <= paths
    assert {item.path for item in api.list_repo_tree(REPO, "notes", expand=True)} == {
        f"notes/{number}.safetensors" for number in range(5)
    }
    assert [item.path for item in api.get_paths_info(REPO, ["README.md", "nothing"])] == ["README.md"]
    assert (api.file_exists(REPO, "README.md"), api.file_exists(REPO, "nothing")) == (True, False)


@step
def name_commits(_: Path) -> None:
    head = api.model_info(REPO).sha
    api.create_tag(REPO, tag="v1.0", revision=head)
    api.create_tag(REPO, tag="v1.0", exist_ok=True)
    api.create_branch(REPO, branch="exp/1")
    raises(errors.HfHubHTTPError, lambda: api.create_branch(REPO, branch="exp/1"))
    refs = api.list_repo_refs(REPO)
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1.0", head)]
    assert {ref.name for ref in refs.branches} == {"main", "exp/1"}


@step
def commit_to_a_branch_with_a_slash(_: Path) -> None:
    changes: list[Any] = [CommitOperationAdd("sub/a b.txt", b"hello"), CommitOperationDelete("README.md")]
    api.create_commit(REPO, changes, commit_message="x", revision="exp/1")
    assert Path(client.hf_hub_download(REPO, "sub/a b.txt", revision="exp/1")).read_bytes() == b"hello"
    assert next(iter(api.list_repo_commits(REPO, revision="exp/1"))).title == "x"
    assert api.file_exists(REPO, "README.md")
    assert not api.file_exists(REPO, "README.md", revision="exp/1")


@step
def commit_to_a_stale_parent(_: Path) -> None:
    stale = api.list_repo_commits(REPO)[1].commit_id
    add = [CommitOperationAdd("z.txt", b"z")]
    raises(errors.HfHubHTTPError, lambda: api.create_commit(REPO, add, commit_message="z", parent_commit=stale))


@step
def copy_and_delete_files(_: Path) -> None:
    copy = [CommitOperationCopy("adapter_model.safetensors", "copy.safetensors")]
    api.create_commit(REPO, copy, commit_message="copy")
    assert api.file_exists(REPO, "copy.safetensors")
    api.delete_file("copy.safetensors", REPO)
    api.delete_folder("cli", REPO)
    assert not api.file_exists(REPO, "copy.safetensors")


@step
def ask_for_what_is_not_there(_: Path) -> None:
    raises(errors.RepositoryNotFoundError, lambda: api.model_info("acme/none"))
    raises(errors.RevisionNotFoundError, lambda: api.model_info(REPO, revision="none"))
    raises(errors.EntryNotFoundError, lambda: client.hf_hub_download(REPO, "none.txt"))


@step
def download_everything(folder: Path) -> None:
    made, head = expert(folder), api.model_info(REPO).sha
    for revision in (None, "v1.0", head):
        same(client.snapshot_download(REPO, revision=revision), made)
    same(client.snapshot_download(REPO, local_dir=folder / "local"), made)


@step
def download_without_links(folder: Path) -> None:
    program = "import huggingface_hub as h; print(h.snapshot_download('acme/law', cache_dir='plain'))"
    environment = {**os.environ, "HF_HUB_DISABLE_SYMLINKS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    same(folder / ran.stdout.splitlines()[-1], expert(folder))


@step
def verify_checksums(_: Path) -> None:
    needs("verify_repo_checksums")
    client.snapshot_download(REPO)
    found = api.verify_repo_checksums(REPO)
    assert (found.mismatches, found.missing_paths) == ([], [])
    assert found.checked_count > 100


@step
def read_the_header_of_tensors(_: Path) -> None:
    api.upload_file(path_or_fileobj=tensors(4_000, 2), path_in_repo="model.safetensors", repo_id="acme/again")
    assert api.get_safetensors_metadata("acme/again").parameter_count == {"U8": 4_000}


@step
def read_a_model_card(_: Path) -> None:
    assert client.ModelCard.load(REPO).data.base_model == BASE
    bad = CommitOperationAdd("README.md", b"---\na: [\n---\n")
    raises(ValueError, lambda: api.create_commit(REPO, [bad], commit_message="bad"))


@step
def keep_a_repo_private(_: Path) -> None:
    api.create_repo("acme/secret", private=True)
    api.upload_file(path_or_fileobj=tensors(300_000, 5), path_in_repo="x.safetensors", repo_id="acme/secret")
    raises(errors.RepositoryNotFoundError, lambda: stranger.model_info("acme/secret"))
    refused = [CommitOperationAdd("x.safetensors", tensors(300_000, 6))]
    raises(errors.HfHubHTTPError, lambda: stranger.create_commit(REPO, refused, commit_message="x"))


@step
def gate_a_repo(folder: Path) -> None:
    api.update_repo_settings("acme/again", gated="manual")
    raises(
        errors.GatedRepoError,
        lambda: stranger.hf_hub_download("acme/again", "adapter_config.json", cache_dir=folder / "theirs"),
    )
    api.auth_check("acme/again")


@step
def delete_things(_: Path) -> None:
    api.delete_tag(REPO, tag="v1.0")
    api.delete_branch(REPO, branch="exp/1")
    api.delete_repo("acme/again")
    assert not api.repo_exists("acme/again")
    api.delete_repo("acme/again", missing_ok=True)


def main() -> None:
    folder = Path(sys.argv[1])
    client.utils.disable_progress_bars()  # type: ignore[attr-defined, unused-ignore]
    results = {}
    for name, do in STEPS.items():
        try:
            do(folder)
            results[name] = "ok"
        except NotInThisVersionError:
            results[name] = "not in this version"
        except Exception:  # noqa: BLE001 (each step is looked at, whatever became of the one before)
            results[name] = traceback.format_exc(limit=-3)
    versions = {name: importlib.metadata.version(name) for name in ("huggingface_hub", "hf_xet")}
    print(json.dumps({"versions": versions, "steps": results}))  # noqa: T201 (the answer)


if __name__ == "__main__":
    main()
