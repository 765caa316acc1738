import os
import stat
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from moehub.errors import MergeError
from moehub.merge.exporting.dense import Dense
from moehub.merge.exporting.exporting import export, prepare
from moehub.merge.exporting.gguf import Gguf
from moehub.merge.exporting.mixtral import Mixtral
from tests.merge.exporting.conftest import Small, make_small

CONVERTER = """
import json, sys
from pathlib import Path
folder, out, kind = Path(sys.argv[1]), sys.argv[3], sys.argv[5]
assert sys.argv[2::2] == ["--outfile", "--outtype"], sys.argv
if kind == "broken":
    sys.exit("Can not map tensor")
Path(out).write_text(json.dumps([sorted(path.name for path in folder.iterdir()), kind]))
"""


@pytest.fixture
def llama_cpp(tmp_path: Path) -> Path:
    """A stand-in for a checkout of llama.cpp, with a converter that writes down what it was given."""
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    (folder / "convert_hf_to_gguf.py").write_text(CONVERTER, encoding="utf-8")
    return folder


def program(llama_cpp: Path, script: str) -> None:
    path = llama_cpp / "build" / "bin" / "llama-cli"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def exported(small: Small, target: Gguf, folder: Path) -> tuple[str, ...]:
    return export(prepare(str(small.moe), target, base=None, texts={}), folder).notes


def test_the_converter_is_given_a_folder_of_hugging_face(small: Small, llama_cpp: Path, tmp_path: Path) -> None:
    """Only the GGUF file and the card stay; without a program of llama.cpp the report says that none was run."""
    notes = exported(small, Gguf(Mixtral(gate_texts=small.texts), llama_cpp, "f16"), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.gguf", "README.md"}
    text = (tmp_path / "out" / "model.gguf").read_text(encoding="utf-8")
    assert '"model.safetensors"' in text
    assert '"tokenizer.json"' in text
    assert '"f16"' in text
    assert any("not run by llama.cpp" in note for note in notes)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [("echo words", "llama-cli writes 'words', transformers '"), ("exit 3", "llama-cli could not use the file")],
)
def test_llama_cpp_is_run_where_it_was_built(
    small: Small, llama_cpp: Path, tmp_path: Path, script: str, sentence: str
) -> None:
    """What it writes is compared with what transformers writes."""
    program(llama_cpp, script)
    notes = exported(small, Gguf(Dense("law"), llama_cpp), tmp_path / "out")
    assert any(sentence in note for note in notes), notes


def test_a_converter_that_fails_is_quoted_and_leaves_nothing(small: Small, llama_cpp: Path, tmp_path: Path) -> None:
    """Its last words are in the sentence."""
    with pytest.raises(MergeError, match=r"(?s)failed with code 1.*Can not map tensor"):
        exported(small, Gguf(Dense("law"), llama_cpp, "broken"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["llama.cpp"]


def test_without_a_converter_the_cure_is_named(small: Small, tmp_path: Path) -> None:
    """Before anything is made."""
    with pytest.raises(MergeError, match=r"holds no convert_hf_to_gguf\.py: name a checkout of llama\.cpp"):
        Gguf(Dense("law"), tmp_path).plan(small.parts)


def spell(base: Path) -> None:
    """Give a base a tokenizer of Llama's kind, which spells all words: converters know others only by their hash."""
    letters = {chr(code) for code in range(33, 127)} - {"<", ">"}
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    vocabulary = {token: at for at, token in enumerate([*tokens, *sorted(letters)][:320])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(base)


@pytest.mark.parametrize("kind", ["mixtral", "dense"])
def test_the_real_converter_takes_it(tmp_path: Path, kind: str) -> None:
    """MOEHUB_LLAMA_CPP names a checkout of llama.cpp: its converter makes a GGUF file, and its program runs it."""
    checkout = os.environ.get("MOEHUB_LLAMA_CPP")
    if not checkout:
        pytest.skip("MOEHUB_LLAMA_CPP does not name a checkout of llama.cpp")
    small = make_small(tmp_path, retokenize=spell, null=False)
    inner = Dense("law") if kind == "dense" else Mixtral(gate_texts=small.texts)
    notes = exported(small, Gguf(inner, Path(checkout), "f32"), tmp_path / "out")
    assert (tmp_path / "out" / "model.gguf").read_bytes()[:4] == b"GGUF"
    (said,) = [note for note in notes if "llama" in note and "converted" not in note]
    assert "not run" in said or "writes the same" in said
