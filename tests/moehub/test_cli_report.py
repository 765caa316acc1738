import json
import sys
from pathlib import Path
from typing import Any

import pytest

from moehub import files
from tests.builders import tiny_expert
from tests.moehub.conftest import CODE, LAW, Run, Small


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Two texts, as options."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "law.txt").write_text(LAW * 4, encoding="utf-8")
    (folder / "code.txt").write_text(CODE * 4, encoding="utf-8")
    return "--data", f"law={folder / 'law.txt'}", "--data", f"code={folder / 'code.txt'}"


def report(run: Run, moe: Path, *more: object) -> dict[str, Any]:
    result = run("report", moe, "--json", *more)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def evaluated(run: Run, moe: Path, *more: object) -> dict[str, Any]:
    result = run("eval", moe, "--json", *more)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)[str(moe)]
    return found


def test_the_report_says_what_eval_says_of_the_moe_and_of_those_without_an_expert(
    small: Small, run: Run, tmp_path: Path, data: tuple[str, ...]
) -> None:
    """Losses, shares, and the loss of the MoE that was merged without the expert from the beginning."""
    found = report(run, small.moe, *data)
    whole, base = evaluated(run, small.moe, *data), evaluated(run, small.base, *data)
    options = ("--base", small.base, "--null", small.null, "--output", tmp_path / "moe")
    assert run("merge", "--expert", small.law, *options).exit_code == 0
    less = evaluated(run, tmp_path / "moe", *data)
    assert list(found["texts"]) == ["law", "code"]
    for text, account in found["texts"].items():
        assert account["tokens"] == whole[text]["tokens"]
        assert account["loss"] == pytest.approx(whole[text]["loss"], abs=1e-6)
        assert account["base_loss"] == pytest.approx(base[text]["loss"], abs=1e-6)
        assert account["experts"]["code"]["loss_without"] == pytest.approx(less[text]["loss"], abs=1e-5)
        shares = {name: worth["share"] for name, worth in account["experts"].items()} | {"null": account["null_share"]}
        assert shares == pytest.approx(whole[text]["routing"], abs=1e-6)


def test_all_texts_together_weigh_each_token_the_same(small: Small, run: Run, data: tuple[str, ...]) -> None:
    """Losses are means over the tokens of all texts, and so is what is lost without each expert."""
    found = report(run, small.moe, *data, "--alone")
    texts, together = found["texts"].values(), found["together"]
    assert together["tokens"] == sum(one["tokens"] for one in texts)
    assert together["gain"] == pytest.approx(sum(one["gain"] * one["tokens"] for one in texts) / together["tokens"])
    for name, worth in together["experts"].items():
        helps = sum(one["experts"][name]["helps"] * one["tokens"] for one in texts) / together["tokens"]
        assert worth["helps"] == pytest.approx(helps)
        assert worth["gain_alone"] == pytest.approx(together["base_loss"] - worth["loss_alone"])


def test_a_shorter_context_is_obeyed(small: Small, run: Run, data: tuple[str, ...]) -> None:
    """Windows of another length predict the same tokens with other losses."""
    long, short = (report(run, small.moe, *data, *more)["together"] for more in ((), ("--context", 16)))
    assert long["tokens"] == short["tokens"]
    assert long["base_loss"] != short["base_loss"]


def test_the_table_has_a_line_for_each_expert_and_says_what_it_does_not(
    small: Small, run: Run, data: tuple[str, ...]
) -> None:
    """Both numbers mislead alone, and the sentence below says how; what each does by itself is a column on demand."""
    result = run("report", small.moe, *data)
    assert result.exit_code == 0, result.output
    (law,) = [line for line in result.stdout.splitlines() if line.startswith("│ law ") and "%" in line]
    worth = report(run, small.moe, *data)["together"]["experts"]["law"]
    assert f"{100 * worth['share']:.1f} %" in law
    assert f"{worth['loss_without']:.4f}" in law
    assert f"{worth['helps']:+.4f}" in law
    said = " ".join(result.stdout.split())
    assert "Neither alone says what an expert is worth: text may be routed to it where it helps nothing" in said
    assert "because the other takes over" in said
    assert "alone on each text" not in said
    assert "alone on each text" in " ".join(run("report", small.moe, *data, "--alone").stdout.split())


def test_a_report_fits_a_narrow_screen(small: Small, run: Run, tmp_path: Path) -> None:
    """However many texts and however long the names, no line has more than 80 columns; what is left out is named."""
    name = "a-contributor-whose-name-is-longer-than-most-of-them"
    law = tiny_expert(tmp_path / "law", small.base, name=name, text=LAW * 30)
    moe = tmp_path / "moe"
    merged = run("merge", "--base", small.base, "--expert", law, "--expert", small.code, "--output", moe)
    assert merged.exit_code == 0, merged.output
    texts = [f"--data=text number {number}={small.text}" for number in range(7)]
    result = run("report", moe, *texts, "--alone")
    assert result.exit_code == 0, result.output
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    assert "7 texts are too wide for this screen, --json has them" in " ".join(result.stdout.split())


def test_the_plot_is_written(small: Small, run: Run, tmp_path: Path, data: tuple[str, ...]) -> None:
    """Beside the table, or beside --json, and nothing but the plot."""
    result = run("report", small.moe, *data, "--plot", tmp_path / "worth.png")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "worth.png").read_bytes().startswith(b"\x89PNG")
    report(run, small.moe, *data, "--plot", tmp_path / "worth.svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["worth.png", "worth.svg"]


def test_the_moe_is_left_as_it_was(small: Small, run: Run, data: tuple[str, ...]) -> None:
    """Leaving experts out writes nothing."""
    before = files.tree_digest(small.moe)
    report(run, small.moe, *data, "--alone")
    assert files.tree_digest(small.moe) == before


@pytest.mark.parametrize("kind", ["base", "expert"])
def test_only_a_moe_has_a_report(small: Small, run: Run, data: tuple[str, ...], kind: str) -> None:
    """A base or an expert has no contributors: the sentence names the command for them."""
    folder = small.base if kind == "base" else small.law
    result = run("report", folder, "--base", small.base, *data)
    assert result.exit_code == 2
    assert f"is about the experts of a MoE, and {folder} is a {kind}: use" in " ".join(result.output.split())


def test_a_figure_that_cannot_be_drawn_is_refused_before_anything_is_measured(
    small: Small, run: Run, tmp_path: Path, data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another format, or no matplotlib: a sentence with the cure, and exit code 2."""
    result = run("report", small.moe, *data, "--plot", tmp_path / "worth.pdf")
    assert result.exit_code == 2
    assert "expected one that ends in .png or .svg" in " ".join(result.output.split())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("report", small.moe, *data, "--plot", tmp_path / "worth.png")
    assert result.exit_code == 2
    assert "pip install 'moehub[plot]'" in " ".join(result.output.split())
    assert "measuring" not in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "code", "sentence"),
    [("mix", 2, "is no NAME=FILE"), ("mix=nowhere.txt", 1, "nowhere.txt does not exist")],
)
def test_bad_data_gets_one_sentence(small: Small, run: Run, data: str, code: int, sentence: str) -> None:
    """As in `moehub eval`."""
    result = run("report", small.moe, "--data", data)
    assert result.exit_code == code, result.output
    assert sentence in result.output.replace("\n", " ")
