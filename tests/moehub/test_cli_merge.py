import json
from pathlib import Path

import pytest

from moehub import files
from moehub.hub import open_hub
from tests.moehub.conftest import Run, Small


def test_the_plan_is_shown_and_the_moe_written(small: Small, run: Run, tmp_path: Path) -> None:
    """Merging shows every expert with its licence, and ends with what to try next."""
    result = run("merge", "--base", small.base, "--expert", small.law, "--output", tmp_path / "moe")
    assert result.exit_code == 0
    assert "apache-2.0" in result.stdout
    assert "note: no null expert" in result.stderr
    assert f"moehub generate {tmp_path / 'moe'}" in result.stderr.replace("\n", "")
    assert (tmp_path / "moe" / "merge.lock").is_file()


def test_a_dry_run_writes_nothing(small: Small, run: Run, tmp_path: Path) -> None:
    """--dry-run --json prints the plan and leaves the disk alone."""
    options = ("--router", "evidence", "--set", "kappa=0.4", "--top-k", 1, "--dry-run", "--json")
    result = run("merge", "--base", small.base, "--expert", small.law, "--output", tmp_path / "moe", *options)
    assert result.exit_code == 0
    plan = json.loads(result.stdout)
    assert (plan["router"]["kappa"], plan["router"]["top_k"]) == (0.4, 1)
    assert [expert["name"] for expert in plan["experts"]] == ["law"]
    assert list(tmp_path.iterdir()) == []


def test_add_and_remove_restore_the_hash(small: Small, run: Run, tmp_path: Path) -> None:
    """Through the command too, adding and removing leaves no trace."""
    moe = tmp_path / "moe"
    run("merge", "--base", small.base, "--expert", small.law, "--null", small.null, "--output", moe)
    before = files.tree_digest(moe)
    assert run("merge", "--into", moe, "--add", small.code).exit_code == 0
    assert files.tree_digest(moe) == files.tree_digest(small.moe)
    assert run("merge", "--into", moe, "--remove", "code").exit_code == 0
    assert files.tree_digest(moe) == before


def test_experts_come_from_a_hub_at_a_commit(small: Small, run: Run, tmp_path: Path) -> None:
    """An expert on a hub is pinned by its commit in the lock, and the lock makes the MoE again from the hub."""
    hub = tmp_path / "hub"
    published = open_hub(str(hub)).push(small.law, "acme/law", message="first")
    moe, again = tmp_path / "moe", tmp_path / "again"
    result = run("merge", "--base", small.base, "--expert", "acme/law", "--hub", hub, "--output", moe)
    assert result.exit_code == 0, result.output
    lock = json.loads((moe / "merge.lock").read_text(encoding="utf-8"))
    assert (lock["experts"][0]["source"], lock["experts"][0]["commit"]) == ("acme/law", published.commit)
    assert run("merge", moe / "merge.lock", "--hub", hub, "--output", again).exit_code == 0
    assert files.tree_digest(again) == files.tree_digest(moe)


def test_a_recipe_file_says_the_same(small: Small, run: Run, tmp_path: Path) -> None:
    """A recipe in YAML gives the bytes that the options give."""
    recipe = tmp_path / "merge.yaml"
    recipe.write_text(
        f"base: {small.base}\nexperts: [{small.code}, {small.law}]\nnull: {small.null}\n", encoding="utf-8"
    )
    assert run("merge", "--recipe", recipe, "--output", tmp_path / "moe").exit_code == 0
    assert files.tree_digest(tmp_path / "moe") == files.tree_digest(small.moe)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ((), 2, "nothing to merge"),
        (("--base", "BASE", "--expert", "LAW"), 2, "--output is missing"),
        (("--into", "MOE"), 2, "at least one --add REF or --remove NAME"),
        (("--into", "MOE", "--base", "BASE", "--add", "LAW"), 2, "give one or the other"),
        (("MOE/merge.lock", "--base", "BASE"), 2, "a merge.lock already says everything"),
        (("--base", "BASE", "--expert", "LAW", "--expert", "LAW", "--output", "OUT"), 1, "2 experts are called 'law'"),
        (("--base", "BASE", "--expert", "LAW", "--top-k", "7", "--output", "OUT"), 1, "--top-k 7 is more than"),
        (("--base", "BASE", "--expert", "LAW", "--set", "kapa=1", "--output", "OUT"), 2, "unknown key 'kapa'"),
        (("--base", "BASE", "--expert", "LAW", "--router", "magic", "--output", "OUT"), 1, "no router 'magic'"),
        (("--base", "nowhere", "--expert", "LAW", "--output", "OUT"), 1, "there is no folder nowhere"),
        (("--expert", "LAW", "--output", "OUT"), 2, "the base is missing"),
        (("--base", "BASE", "--expert", "missing/folder/x", "--output", "OUT"), 1, "there is no folder missing"),
        (("--base", "BASE", "--expert", "MOE", "--output", "OUT"), 1, "is no expert"),
    ],
)
def test_bad_input_gets_one_sentence(
    small: Small, run: Run, tmp_path: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    """Each mistake exits with its code and a sentence, and leaves nothing behind."""
    places = {"BASE": small.base, "LAW": small.law, "MOE": small.moe, "OUT": tmp_path / "out"}
    given = []
    for argument in arguments:
        first, slash, rest = argument.partition("/")
        given.append(f"{places[first]}{slash}{rest}" if first in places else argument)
    result = run("merge", *given)
    assert result.exit_code == code, result.output
    assert sentence in result.output.replace("\n", " ")
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []
