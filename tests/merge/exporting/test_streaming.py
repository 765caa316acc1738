import errno
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from moehub.errors import BaseModelError, MergeError
from moehub.experts import dora
from moehub.merge.exporting import fold, streaming
from moehub.merge.exporting.fold import Update, Workbench, multiplies_bfloat16
from moehub.merge.exporting.mapped import INDEX, mapped
from moehub.merge.exporting.streaming import Item, place, write_weights

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, torch.Tensor]:
    """Tensors of several types and odd shapes in `tmp_path/base`."""
    torch.manual_seed(0)
    tensors = {
        "a": torch.randn(37, 11).bfloat16(),
        "b": torch.randn(11, 37),
        "norm": torch.randn(7).half(),
        "steps": torch.arange(5),
        "one": torch.tensor(3.5),
    }
    (tmp_path / "base").mkdir()
    save_file(tensors, tmp_path / "base" / "model.safetensors")
    return tensors


def change(rows: int, columns: int, *, transposed: bool = False) -> Update:
    A, B = torch.randn(3, columns), torch.randn(rows, 3).bfloat16()
    return Update(((A, B, 0.5), (torch.randn(2, columns), torch.randn(rows, 2), -2.0)), transposed)


def plain(update: Update) -> torch.Tensor:
    total = sum((scale * B.float() @ A.float() for A, B, scale in update.pairs), torch.zeros(()))
    return total.T if update.transposed else total


@pytest.mark.parametrize("dtype", [None, *DTYPES])
@pytest.mark.parametrize("band", [16, 1 << 18])
def test_every_tensor_is_what_was_asked_for(
    weights: dict[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype | None,
    band: int,
) -> None:
    """Copied, converted, changed or given: equal to the plain computation in float32, rounded once."""
    monkeypatch.setattr(fold, "BAND", band)
    first, second, given = change(37, 11), change(37, 11, transposed=True), torch.randn(4, 2)
    items = [
        Item("norm", source="norm"),
        Item("steps", source="steps"),
        Item("one", source="one"),
        Item("a", source="a", change=first),
        Item("a.again", source="a"),
        Item("b", source="b", change=second),
        Item("given", value=given),
    ]
    out = tmp_path / "out"
    out.mkdir()
    with mapped(tmp_path / "base") as base:
        write_weights(place(items, base, dtype), base, out)
    written = load_file(out / "model.safetensors")
    expected = {
        "norm": (weights["norm"], torch.float16),
        "one": (weights["one"], torch.float32),
        "a": (weights["a"].float() + plain(first), torch.bfloat16),
        "a.again": (weights["a"], torch.bfloat16),
        "b": (weights["b"] + plain(second), torch.float32),
        "given": (given, torch.float32),
    }
    assert written.keys() == {*expected, "steps"}
    assert torch.equal(written["steps"], weights["steps"])
    for name, (tensor, own) in expected.items():
        wanted = tensor.to(dtype or own)
        # What float32 sums in another order may be rounded to the next number of 16 bits.
        slack = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[wanted.dtype]
        torch.testing.assert_close(written[name], wanted, atol=1e-5, rtol=slack)


def test_an_index_says_what_lies_where(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Where one file would be too large; a folder cut that way is read by its index."""
    out, again = tmp_path / "out", tmp_path / "again"
    out.mkdir()
    again.mkdir()
    items = [Item(name, source=name) for name in weights]
    with mapped(tmp_path / "base") as base:
        write_weights(place(items, base), base, out, largest=800)
    assert (out / INDEX).is_file()
    assert len(list(out.glob("model-*.safetensors"))) > 1
    (out / "consolidated.safetensors").write_bytes(b"the same weights in another form")
    with mapped(out) as base:
        write_weights(place(items, base), base, again)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in load_file(again / "model.safetensors").items())


def test_a_change_of_another_shape_is_refused(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Before anything is written."""
    assert weights
    with mapped(tmp_path / "base") as base, pytest.raises(MergeError, match="does not fit a of the base"):
        place([Item("a", source="a", change=change(11, 37))], base)


def test_integers_cannot_be_changed(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """As the weights of a quantised base."""
    assert weights
    with mapped(tmp_path / "base") as base, pytest.raises(BaseModelError, match="stored as I64"):
        base.tensor("steps")


@pytest.mark.parametrize("damage", ["truncated", "garbage", "missing"])
def test_a_damaged_base_is_refused(weights: dict[str, torch.Tensor], tmp_path: Path, damage: str) -> None:
    """With the file's name and the cure."""
    assert weights
    path = tmp_path / "base" / "model.safetensors"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9] if damage == "truncated" else b"\x10" + b"\0" * 7 + b"no json, really!")
    with pytest.raises(BaseModelError, match=r"model\.safetensors.*download the base again"):
        mapped(tmp_path / "base").__enter__()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("band", [16, 1 << 18])
def test_rows_are_rescaled_and_rounded_once(
    monkeypatch: pytest.MonkeyPatch, transposed: bool, dtype: torch.dtype, band: int
) -> None:
    """A DoRA's weight has the lengths of rows that it says, in whatever bands and whichever way it lies."""
    monkeypatch.setattr(fold, "BAND", band)
    monkeypatch.setattr(dora, "_BAND", band)
    weight, lengths = torch.randn(37, 11).to(dtype), torch.rand(11 if transposed else 37) + 0.5
    pair = torch.randn(3, 37 if transposed else 11), torch.randn(11 if transposed else 37, 3), 0.5
    update = Update((pair,), transposed, lengths)
    rows = torch.cat([one.clone() for one in Workbench().bands(weight, update, dtype)])
    made = weight.double().T if transposed else weight.double()
    made = made + pair[2] * pair[1].double() @ pair[0].double()
    made = made * (lengths.double() / made.norm(dim=1))[:, None]
    slack = {torch.float32: 1e-5, torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype]
    torch.testing.assert_close(rows.double(), made.T if transposed else made, atol=1e-5, rtol=slack)


def test_products_of_bfloat16_equal_those_of_float32() -> None:
    """The quick way and the plain one differ by one rounding in a few numbers of a thousand, at odd sizes too."""
    if not multiplies_bfloat16():
        pytest.skip("this processor does not multiply bfloat16 itself, and the quick way is not taken")
    torch.manual_seed(0)
    for rows, columns, rank in ((64, 48, 4), (1000, 37, 3), (1, 5, 1), (700, 1024, 16)):
        weight = (0.02 * torch.randn(rows, columns)).bfloat16()
        update = Update(((0.1 * torch.randn(rank, columns), 0.1 * torch.randn(rows, rank), 0.7),))
        bench = Workbench()
        quick = torch.cat([band.clone() for band in bench.split(weight, update.factors())])
        slow = torch.cat([band.clone() for band in bench.plain(weight, update.factors(), torch.bfloat16)])
        assert float((quick != slow).float().mean()) < 5e-3
        torch.testing.assert_close(quick.float(), slow.float(), atol=1e-6, rtol=2**-7)


def test_a_full_disk_stops_the_writing(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, and nothing is written over the fault."""

    def full(_: object, piece: memoryview | bytes) -> None:
        if isinstance(piece, memoryview):  # the header is bytes, and still fits
            raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "out"
    out.mkdir()
    with mapped(tmp_path / "base") as base:
        placed = place([Item(name, source=name) for name in weights], base)
        monkeypatch.setattr(streaming, "_write", full)
        with pytest.raises(OSError, match="No space left"):
            write_weights(placed, base, out)
