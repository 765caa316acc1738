import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests.merge.exporting.conftest import make_small
from tests.moehub.conftest import CODE, GENERIC, LAW, Run, Small

FFN_TEXTS = {"law": LAW, "code": CODE, "null": GENERIC}


@pytest.fixture(scope="module")
def ffn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MoE that Mixtral can hold, with its texts beside it."""
    return make_small(tmp_path_factory.mktemp("ffn")).folder


def gate_texts(folder: Path) -> list[object]:
    return [option for name in FFN_TEXTS for option in ("--gate-text", f"{name}={folder / name}.txt")]


def test_mixtral_is_written_and_reported(ffn: Path, run: Run, tmp_path: Path) -> None:
    """The tables on standard output, the model in the folder, the report in its card."""
    out = tmp_path / "out"
    options = ("--data", f"law={ffn / 'law.txt'}", *gate_texts(ffn))
    result = run("export", ffn / "moe", "--format", "mixtral", "--output", out, *options)
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    for expected in ("parity with the MoE", "from --data", "perplexity", "not carried: the MoE's one gate"):
        assert expected in words
    assert "Mixtral with 3 experts, top 2" in " ".join(result.stderr.split())
    assert type(AutoModelForCausalLM.from_pretrained(out)).__name__ == "MixtralForCausalLM"
    assert "Parity with the MoE" in (out / "README.md").read_text(encoding="utf-8")


def test_the_report_is_json(small: Small, run: Run, tmp_path: Path) -> None:
    """Figures, what was lost, and what there is to say."""
    options = ("--format", "dense", "--expert", "law", "--output", tmp_path / "out", "--json")
    result = run("export", small.moe, *options)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["lost"] == ["the other experts: code", "the gate: every token goes to the one expert"]
    assert report["parity"][0]["largest"] < 1e-4
    assert report["parity"][0]["prompts"] == 100


def test_a_dry_run_writes_nothing(small: Small, run: Run, tmp_path: Path) -> None:
    """It says what would be there, and how large it would be."""
    result = run("export", small.moe, "--format", "peft", "--output", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "2 adapters of PEFT" in result.stdout
    assert not (tmp_path / "out").exists()
    options = ("--format", "peft", "--output", tmp_path / "out", "--dry-run", "--json")
    assert json.loads(run("export", small.moe, *options).stdout)["experts"] == ["code", "law"]


def test_an_adapter_is_mixed(small: Small, run: Run, tmp_path: Path) -> None:
    """Without a comparison where none is wanted."""
    options = ("--mixture", "law=0.6,code=0.4", "--method", "dare_ties", "--density", 0.5, "--no-parity")
    result = run("export", small.moe, "--format", "peft", "--output", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert "parity with" not in result.stdout
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    assert "Not measured." in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_attention_is_refused_with_a_cure(small: Small, run: Run, tmp_path: Path) -> None:
    """The experts of this MoE change q and v."""
    result = run("export", small.moe, "--format", "mixtral", "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "--attention average or --attention drop" in result.output
    assert list(tmp_path.iterdir()) == []


def test_the_base_may_have_moved(small: Small, run: Run, tmp_path: Path) -> None:
    """--base names it; its digest decides."""
    moved = tmp_path / "moved"
    shutil.copytree(small.base, moved)
    options = ("--format", "dense", "--expert", "code", "--base", moved, "--output", tmp_path / "out", "--no-parity")
    assert run("export", small.moe, *options).exit_code == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--format", "dense"), "name it with --expert"),
        (("--format", "gguf"), "name it with --llama-cpp"),
        (("--format", "peft", "--top-k", "1"), "--top-k belongs to --format gguf and mixtral"),
        (("--format", "mixtral", "--gate-text", "law"), "is no NAME=FILE"),
        (("--format", "peft", "--mixture", "law"), "is no list of NAME=WEIGHT"),
        (("--format", "peft", "--mixture", "law=1,law=2"), "names law twice"),
        (("--format", "peft", "--method", "ties"), "name what with --mixture"),
        (("--format", "gguf", "--llama-cpp", ".", "--expert", "law", "--top-k", "1"), "which has no --top-k"),
        (("--format", "onnx"), "'onnx' is not one of"),
    ],
)
def test_bad_usage_is_explained(
    small: Small, run: Run, tmp_path: Path, options: tuple[str, ...], sentence: str
) -> None:
    """Before anything is loaded."""
    result = run("export", small.moe, "--output", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())


def test_what_is_no_moe_is_refused(small: Small, run: Run, tmp_path: Path) -> None:
    """As everywhere."""
    result = run("export", small.law, "--format", "peft", "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "is no MoE" in result.output
