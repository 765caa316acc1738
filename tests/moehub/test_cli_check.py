import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from moehub import files
from moehub.admission.registry import registered
from moehub.card import CARD_FILE, LARGEST_TEXT
from moehub.hub import open_hub
from tests import attacks, loopback_hub
from tests.moehub.conftest import Run, Small
from tests.world import World

CODES = [check.code for check in registered()]


def hostile(hub: Path, repo: str, folder: Path) -> None:
    """Put a bad expert on a folder hub as somebody would who may write there, past every check of `push`."""
    commit = files.tree_digest(folder)
    home = hub / repo
    shutil.copytree(folder, home / "commits" / commit)
    files.write_text(home / "refs" / "main", commit + "\n")
    files.write_text(hub / "hub.json", files.to_json({"kind": "moehub folder hub", "format": 1}))


def test_a_good_expert_is_admitted(small: Small, run: Run) -> None:
    """Every check is in the table, with its time, or with what it lacks."""
    result = run("check", small.law, "--base", small.base, "--null", small.null)
    assert result.exit_code == 0, result.output
    assert all(f" {code} " in result.stdout for code in CODES)
    assert "law is admitted" in result.stdout.replace("\n", "")
    assert "not made: no text of its domain is at hand" in " ".join(result.stdout.split())


def test_a_refusal_is_shown_with_its_cure(small: Small, run: Run, tmp_path: Path) -> None:
    """A bad expert exits with 1: the table says which check, standard error why and what to do."""
    folder = Path(shutil.copytree(small.law, tmp_path / "law"))
    (folder / "training_args.bin").write_bytes(b"")
    result = run("check", folder)
    assert result.exit_code == 1
    assert "pickle-file" in result.stdout
    assert "REFUSED" in result.stdout
    assert "update-norm" not in result.stdout
    assert "[pickle-file] 'training_args.bin' is a pickle" in result.stderr
    assert "remove it and publish the expert again" in result.stderr


def test_the_verdict_can_be_piped(small: Small, run: Run) -> None:
    """--json prints the verdict alone: refusals, what was not made, and seconds."""
    result = run("check", small.law, "--json")
    verdict = json.loads(result.stdout)
    assert (verdict["admitted"], verdict["refusals"], verdict["subject"]) == (True, [], str(small.law))
    skipped = {one["code"] for one in verdict["skipped"]}
    assert skipped | set(verdict["seconds"]) == set(CODES)
    assert skipped & set(verdict["seconds"]) == set()
    assert {"base", "linear-shape", "neutral-share"} <= skipped


def test_the_wrong_base_is_refused(small: Small, run: Run, world: World) -> None:
    """An expert is compared with the base that is named, also through a MoE."""
    result = run("check", world.experts["code"], "--beside", small.moe, "--json")
    assert json.loads(result.stdout)["admitted"] is True
    attack = next(one for one in attacks.registered() if one.name == "wrong base")
    folder = attack.make(small.folder / "stranger", world)
    for option, place in (("--base", small.base), ("--beside", small.moe)):
        result = run("check", folder, option, place, "--json")
        assert result.exit_code == 1
        assert [one["code"] for one in json.loads(result.stdout)["refusals"]] == ["base"]


def test_the_others_of_a_moe_stand_beside_it(small: Small, run: Run) -> None:
    """With a MoE, its null and its experts are what the statistics are compared with."""
    result = run("check", small.law, "--beside", small.moe, "--json")
    assert result.exit_code == 0, result.output
    assert "neutral-share" in json.loads(result.stdout)["seconds"]


def test_an_expert_on_a_hub_is_checked_without_being_kept(small: Small, run: Run, tmp_path: Path) -> None:
    """A reference to a hub is fetched into a place of its own, which is gone afterwards."""
    hub = tmp_path / "hub"
    open_hub(str(hub)).push(small.law, "acme/law", message="first")
    before = sorted(tmp_path.iterdir())
    result = run("check", "acme/law", "--hub", hub, "--base", small.base)
    assert result.exit_code == 0, result.output
    assert "acme/law is admitted" in result.stdout
    assert sorted(tmp_path.iterdir()) == before


# What travels from a folder hub at all are an expert's files, as files.
@pytest.mark.parametrize(
    "name",
    ["header bomb", "card nested without end", "tampered weights", "alpha bomb", "NaN", "space before the header",
     "card with a name that climbs", "library that is imported", "2^60 pairs", "statistics of seven bytes"],
)  # fmt: skip
def test_a_hostile_repo_is_refused_not_believed(
    small: Small, world: World, run: Run, tmp_path: Path, name: str
) -> None:
    """Whatever a hub serves, the answer is a refusal with the code that the folder itself would get."""
    attack = next(one for one in attacks.registered() if one.name == name)
    hostile(tmp_path / "hub", "acme/law", attack.make(tmp_path / "made", world))
    result = run("check", "acme/law", "--hub", tmp_path / "hub", "--json")
    assert result.exit_code == 1
    assert {one["code"] for one in json.loads(result.stdout)["refusals"]} == {attack.code}
    merged = run(
        "merge", "--base", small.base, "--expert", "acme/law", "--hub", tmp_path / "hub", "--output", tmp_path / "m"
    )
    assert merged.exit_code == 1
    assert f"acme/law: [{attack.code}]" in merged.stderr
    assert not (tmp_path / "m").exists()


def test_a_huge_card_is_not_fetched(small: Small, run: Run, tmp_path: Path) -> None:
    """A card of more bytes than any card has is refused by its size, before it is read."""
    folder = Path(shutil.copytree(small.law, tmp_path / "law"))
    with (folder / CARD_FILE).open("ab") as file:
        file.truncate(LARGEST_TEXT + 1)
    hostile(tmp_path / "hub", "acme/law", folder)
    for command in (("check", "acme/law"), ("pull", "acme/law", tmp_path / "got")):
        result = run(*command, "--hub", tmp_path / "hub")
        assert result.exit_code == 1
        assert f"expert.json has {LARGEST_TEXT + 1} bytes, expected at most {LARGEST_TEXT}" in result.stderr
    result = run("check", folder)
    assert "[file-size]" in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (("nowhere",), 1, "there is no folder nowhere"),
        (("LAW", "--base", "nowhere"), 1, "there is no folder nowhere"),
        (("LAW", "--canary", "nowhere"), 1, "--canary nowhere is no file"),
        (("LAW", "--domain-text", "nowhere"), 1, "--domain-text nowhere is no file"),
        (("LAW", "--null", "NULL"), 1, "name the base with --base"),
        (("LAW", "--beside", "LAW"), 1, "is no MoE"),
        ((), 2, "Missing argument 'REF'"),
    ],
)
def test_bad_input_gets_one_sentence(
    small: Small, run: Run, options: tuple[str, ...], code: int, sentence: str
) -> None:
    """What is not there is named, with what was expected."""
    places = {"LAW": small.law, "NULL": small.null}
    result = run("check", *[places.get(option, option) for option in options])
    assert result.exit_code == code
    assert sentence in result.output.replace("\n", " ")
    assert "Traceback" not in result.output


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's, about httpx2
@pytest.mark.parametrize("name", ["header bomb", "card nested without end", "library that is imported"])
def test_a_hostile_server_is_refused_not_believed(
    world: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Over HTTP too, files are fetched unopened; what is no expert's file is left where it is."""
    attack = next(one for one in attacks.registered() if one.name == name)
    folder = attack.make(tmp_path / "made", world)
    (folder / "training_args.json").write_text("{}", encoding="utf-8")
    with loopback_hub.running(tmp_path / "root") as server:
        monkeypatch.setenv("MOEHUB_TOKEN", server.token)
        api = HfApi(server.url, token=server.token)
        api.create_repo("acme/law")
        api.upload_folder(folder_path=folder, repo_id="acme/law")
        result = run("check", "acme/law", "--hub", server.url, "--json")
    assert result.exit_code == 1, result.output
    assert {one["code"] for one in json.loads(result.stdout)["refusals"]} == {attack.code}
