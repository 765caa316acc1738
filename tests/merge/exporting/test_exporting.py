import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from moehub import files
from moehub.errors import MergeError
from moehub.hub.model_card import FRONT_MATTER
from moehub.merge.exporting import exporting
from moehub.merge.exporting.adapters import Experts
from moehub.merge.exporting.dense import Dense
from moehub.merge.exporting.exporting import export, prepare
from moehub.merge.exporting.loading import load_moe
from moehub.merge.exporting.mixtral import Mixtral
from moehub.merge.exporting.parity import LENGTH, PROMPTS, own_prompts, prompts_of
from moehub.merge.exporting.texts import rows_of
from tests.merge.exporting.conftest import Small


def test_a_faithful_export_reports_parity(small: Small, tmp_path: Path) -> None:
    """One expert, folded: logits differ by rounding, both write the same, perplexities are equal."""
    texts = {"law": small.texts["law"]}
    report = export(prepare(str(small.moe), Dense("law"), base=None, texts=texts), tmp_path / "out")
    assert report.parity is not None
    (parity,) = report.parity
    assert 0 <= parity.mean <= parity.largest < 1e-4
    assert (parity.next_token, parity.continuations) == (1.0, 1.0)
    both = parity.perplexities["law"]
    assert both.exported == pytest.approx(both.moe, rel=1e-4)
    rows = rows_of(small.parts.base, texts)["law"]
    assert both.tokens == sum(len(row.ids) - 1 for row in rows)


def test_what_differs_is_measured(small: Small, tmp_path: Path) -> None:
    """Mixtral's gates are others: differences are real numbers, shares are below one, and the card says all that."""
    target = Mixtral(gate_texts=small.texts)
    texts = {name: small.texts[name] for name in ("law", "code")}
    report = export(prepare(str(small.moe), target, base=None, texts=texts), tmp_path / "out")
    assert report.parity is not None
    (parity,) = report.parity
    assert parity.largest > 1e-3
    assert 0 < parity.mean < parity.largest
    assert 0 <= parity.continuations <= parity.next_token < 1
    assert set(parity.perplexities) == {"law", "code"}
    assert all(math.isfinite(both.exported) for both in parity.perplexities.values())
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    matter = yaml.safe_load(FRONT_MATTER.match(text)[1])  # type: ignore[index]
    assert matter["library_name"] == "transformers"
    assert matter["license"] == "apache-2.0"
    assert {"mixtral", "domain:law", "domain:code"} <= set(matter["tags"])
    for sentence in (*report.planned.lost, *report.notes):
        assert f"- {sentence}\n" in text
    assert f"{parity.largest:.2e}" in text
    assert str(small.folder) not in text


def test_each_adapter_is_compared_with_its_expert(small: Small, tmp_path: Path) -> None:
    """Two rows, each of them equal but for rounding."""
    report = export(prepare(str(small.moe), Experts(), base=None, texts={}), tmp_path / "out")
    assert report.parity is not None
    assert [(one.name, one.forced) for one in report.parity] == [("code", "code"), ("law", "law")]
    assert all(one.largest < 1e-4 and one.continuations == 1.0 for one in report.parity)
    assert (tmp_path / "out" / "README.md").is_file()


def test_equal_exports_are_equal_bytes(small: Small, tmp_path: Path) -> None:
    """No dates, no paths, no order of a set."""
    for name in ("one", "two"):
        target = Mixtral(gate_texts=small.texts)
        export(prepare(str(small.moe), target, base=None, texts={}), tmp_path / name, with_parity=False)
    assert files.tree_digest(tmp_path / "one") == files.tree_digest(tmp_path / "two")


def test_a_failure_leaves_nothing(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder appears whole, with its card, or not at all."""

    def fail(*_: object) -> None:
        raise MergeError("no memory")

    monkeypatch.setattr(exporting, "compare", fail)
    prepared = prepare(str(small.moe), Dense("law"), base=None, texts={})
    with pytest.raises(MergeError, match="no memory"):
        export(prepared, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a folder with something in it nor a file; and a disk is not filled."""
    prepared = prepare(str(small.moe), Dense("law"), base=None, texts={})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine", encoding="utf-8")
    for place in (tmp_path / "out", tmp_path / "out" / "thesis.txt"):
        with pytest.raises(MergeError, match="exists and is not empty"):
            export(prepared, place)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5))
    with pytest.raises(MergeError, match="free some space"):
        export(prepared, tmp_path / "new")


def test_prompts_are_pieces_of_the_texts_in_turn(small: Small) -> None:
    """One of each text, then the second of each; at most 64 tokens each, and 100 in all."""
    rows = rows_of(small.parts.base, small.texts)
    prompts = prompts_of(rows)
    assert len(prompts) == sum(math.ceil(len(row.ids) / LENGTH) for each in rows.values() for row in each)
    assert all(0 < len(prompt) <= LENGTH for prompt in prompts)
    assert [prompt.tolist() for prompt in prompts[:3]] == [rows[name][0].ids[:LENGTH].tolist() for name in rows]
    assert prompts[3].tolist() == rows["code"][0].ids[LENGTH : 2 * LENGTH].tolist()
    assert len(prompts_of({"law": rows["law"] * 40})) == PROMPTS
    assert prompts_of({}) == []


def test_without_texts_the_base_writes_prompts(small: Small) -> None:
    """A hundred, the same each time, of ids that exist."""
    moe = load_moe(small.parts, dtype=torch.float32)
    first, second = own_prompts(moe), own_prompts(moe)
    assert len(first) == 100
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert max(int(one.max()) for one in first) < moe.config.vocab_size
