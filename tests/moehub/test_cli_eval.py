import json
import math
import shutil
from pathlib import Path

import pytest

from moehub import files
from moehub.hub.measured import MEASURED_FILE, MeasuredText, parse_measured
from moehub.hub.parcel import travels
from tests.moehub.conftest import CODE, LAW, Run, Small


def scores(small: Small, run: Run, model: Path, *more: object) -> dict[str, dict[str, dict[str, float]]]:
    result = run("eval", model, "--base", small.base, "--data", f"mix={small.text}", "--json", *more)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_base_expert_and_moe_are_measured_on_the_same_tokens(small: Small, run: Run) -> None:
    """One call measures all three kinds; they see the same number of tokens and differ in loss."""
    found = scores(small, run, small.moe, "--against", small.base, "--against", small.law)
    mixed = [found[str(one)]["mix"] for one in (small.moe, small.base, small.law)]
    assert len({score["tokens"] for score in mixed}) == 1
    assert len({round(score["loss"], 6) for score in mixed}) == 3
    assert all(score["perplexity"] == pytest.approx(math.exp(score["loss"])) for score in mixed)
    assert [score["routing"] is None for score in mixed] == [False, True, True]


def test_routing_shares_name_the_right_expert(small: Small, run: Run, tmp_path: Path) -> None:
    """Shares sum to one, and most tokens of a domain go to its expert."""
    for name, text in (("law", LAW), ("code", CODE)):
        (tmp_path / f"{name}.txt").write_text(text * 4, encoding="utf-8")
        routing = scores(small, run, small.moe, "--data", f"{name}={tmp_path / f'{name}.txt'}")[str(small.moe)][name][
            "routing"
        ]
        assert sum(routing.values()) == pytest.approx(1)  # type: ignore[attr-defined]
        assert routing[name] > 0.7  # type: ignore[index]


def test_the_context_does_not_change_which_tokens_count(small: Small, run: Run) -> None:
    """Windows of another length still predict every token exactly once."""
    long, short = scores(small, run, small.base), scores(small, run, small.base, "--context", 16)
    assert long[str(small.base)]["mix"]["tokens"] == short[str(small.base)]["mix"]["tokens"]


def test_the_table_shows_loss_and_routing(small: Small, run: Run) -> None:
    """Without --json there are two tables."""
    result = run("eval", small.moe, "--data", f"mix={small.text}")
    assert result.exit_code == 0
    words = set(result.stdout.split())
    assert {"loss", "perplexity", "share", "null"} <= words


def test_models_stand_beside_each_other(small: Small, run: Run) -> None:
    """With --against each text has one line, and each model a column."""
    options = ("--data", f"mix={small.text}", "--against", small.law, "--base", small.base)
    lines = run("eval", small.moe, *options).stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("│ mix") and line.count(".") == 2 and "," not in line][:1]
    found = scores(small, run, small.moe, "--against", small.law)
    assert all(f"{found[str(one)]['mix']['loss']:.4f}" in line for one in (small.moe, small.law))


@pytest.mark.parametrize(
    ("data", "code", "sentence"),
    [
        ("mix", 2, "is no NAME=FILE"),
        ("mix=nowhere.txt", 1, "nowhere.txt does not exist"),
        ("mix=EMPTY", 1, "empty.txt is empty"),
        ("mix=LATIN", 1, "UTF-8"),
    ],
)
def test_bad_data_gets_one_sentence(
    small: Small, run: Run, tmp_path: Path, data: str, code: int, sentence: str
) -> None:
    """Missing, empty and wrongly encoded files are explained."""
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes("größe".encode("latin-1"))
    data = data.replace("EMPTY", str(tmp_path / "empty.txt")).replace("LATIN", str(tmp_path / "latin.txt"))
    result = run("eval", small.moe, "--data", data)
    assert result.exit_code == code, result.output
    assert sentence in result.output.replace("\n", " ")


def test_scores_are_kept_with_the_moe(small: Small, run: Run, tmp_path: Path) -> None:
    """With --keep the figures of the MoE and of its base lie in its folder, and travel with it."""
    moe = tmp_path / "moe"
    shutil.copytree(small.moe, moe)
    found = scores(small, run, moe, "--keep", "--against", small.law, "--against", small.base)
    kept = parse_measured((moe / MEASURED_FILE).read_text(encoding="utf-8"))
    mix = found[str(moe)]["mix"]
    assert kept.config == files.sha256(moe / "config.json")
    assert kept.texts == {
        "mix": MeasuredText(mix["loss"], mix["tokens"], mix["routing"], found[str(small.base)]["mix"]["loss"])  # type: ignore[arg-type]
    }
    assert travels("moe", MEASURED_FILE)


def test_what_is_not_its_base_is_not_kept_as_one(small: Small, run: Run, tmp_path: Path) -> None:
    """The loss of an expert, put beside the MoE, is not taken for the base's."""
    moe = tmp_path / "moe"
    shutil.copytree(small.moe, moe)
    scores(small, run, moe, "--keep", "--against", small.law)
    assert parse_measured((moe / MEASURED_FILE).read_text(encoding="utf-8")).texts["mix"].base_loss is None


def test_a_changed_moe_loses_its_scores(small: Small, run: Run, tmp_path: Path) -> None:
    """What was measured before an expert left says nothing about the MoE afterwards."""
    moe = tmp_path / "moe"
    shutil.copytree(small.moe, moe)
    scores(small, run, moe, "--keep")
    name = json.loads((moe / "config.json").read_text(encoding="utf-8"))["experts"][0]["name"]
    result = run("merge", "--into", moe, "--remove", name)
    assert result.exit_code == 0, result.output
    assert not (moe / MEASURED_FILE).exists()


def test_only_a_moe_keeps_scores(small: Small, run: Run) -> None:
    """--keep with anything else than a MoE's folder is refused before anything is measured."""
    result = run("eval", small.law, "--base", small.base, "--data", f"mix={small.text}", "--keep")
    assert result.exit_code == 2
    assert "expected the folder of a MoE" in result.output
    assert not (small.law / MEASURED_FILE).exists()
