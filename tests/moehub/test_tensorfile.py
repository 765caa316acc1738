import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from moehub.tensorfile import TensorFile, spans


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of tensors of every type that adapters have, one of them empty."""
    tensors = {
        "full": torch.randn(3, 5),
        "half": torch.randn(7, 2).bfloat16(),
        "other half": torch.randn(4).half(),
        "double": torch.randn(2, 2).double(),
        "empty": torch.zeros(0, 4),
    }
    save_file(tensors, tmp_path / "file", metadata={"format": "pt"})
    return tmp_path / "file"


def test_tensors_are_those_that_the_library_reads(file: Path) -> None:
    """Names, types, shapes and values are safetensors' own."""
    opened, expected = TensorFile(file), load_file(file)
    assert opened.spans.keys() == expected.keys()
    for name, tensor in expected.items():
        mine = opened.tensor(name)
        assert (mine.dtype, mine.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(mine, tensor)


def test_the_address_is_where_the_tensors_lie(file: Path) -> None:
    """A kernel that is given an address reads what Python sees."""
    opened = TensorFile(file)
    assert opened.tensor("half").data_ptr() == opened.address + opened.spans["half"].begin


def test_writing_changes_the_memory_and_not_the_file(file: Path) -> None:
    """The map is private; what is released is read from the file again."""
    opened = TensorFile(file)
    before, tensor = load_file(file)["full"], opened.tensor("full")
    tensor += 1
    assert torch.equal(load_file(file)["full"], before)
    opened.release()
    opened.bring()
    assert torch.equal(tensor, before)


def test_a_type_that_adapters_do_not_have_is_refused(tmp_path: Path) -> None:
    """Integers are no adapter, and no torch type is guessed for them."""
    save_file({"counts": torch.arange(3)}, tmp_path / "file")
    with pytest.raises(ValueError, match="is of type I64, expected F64, F32, F16, BF16"):
        TensorFile(tmp_path / "file").tensor("counts")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "."),
        (b"\xff" * 8 + b"{}", "longer than the file"),
        ((2).to_bytes(8, "little") + b"[]", "none of safetensors"),
        ((2).to_bytes(8, "little") + b"{]", "."),
    ],
)
def test_what_is_no_tensor_file_is_a_value_error(tmp_path: Path, content: bytes, sentence: str) -> None:
    """Whoever opens a stranger's file gets one kind of error."""
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        spans(tmp_path / "file")


def test_a_tensor_beyond_the_end_is_refused(tmp_path: Path) -> None:
    """A file that was cut off is found out before anything reads beyond it."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 15)
    with pytest.raises(ValueError, match="'x' lies outside: the file is truncated"):
        TensorFile(tmp_path / "file")


@pytest.mark.parametrize("shape", [[5], [2, 3], [-4], ["4"]])
def test_a_shape_that_does_not_fit_is_refused(tmp_path: Path, shape: list[object]) -> None:
    """The kernel reads as much as the shape says, so the shape must be what lies there."""
    header = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, 16]}}).encode()
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 16)
    with pytest.raises(ValueError, match=r"another size|none of safetensors"):
        TensorFile(tmp_path / "file")


def test_opening_warns_of_nothing(file: Path) -> None:
    """Torch warns about memory that cannot be written; this one can."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TensorFile(file).tensor("full")
