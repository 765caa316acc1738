from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from moehub.corpus import signatures
from moehub.corpus.signatures import OPEN, Secret, alike, enciphered, not_mine, read, read_secret, sign
from moehub.corpus.sketches import PLACES, sketch
from moehub.errors import DataError
from tests.corpus.texts import changed, text


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    (tmp_path / "salt").write_text("a long secret that nobody guesses\n", encoding="utf-8")
    return read_secret(tmp_path / "salt")


def rows_of(*texts: str) -> signatures.Rows:
    return sketch(texts).signatures


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    """And holds the same bytes for the same texts in another order."""
    signed = sign(rows_of(text(1), text(2)))
    (tmp_path / "a.sig").write_bytes(signed.to_bytes())
    found = read(tmp_path / "a.sig")
    assert (found.rows.tolist(), found.digest) == (signed.rows.tolist(), signed.digest)
    assert sign(rows_of(text(2), text(1))).to_bytes() == signed.to_bytes()
    assert signed.rows.tolist() == sorted(signed.rows.tolist())


def test_no_text_is_in_a_file() -> None:
    """Nor any of its words."""
    content = sign(rows_of("confidential lessee clause")).to_bytes()
    assert not any(word in content for word in (b"confidential", b"lessee", b"clause"))


def test_what_others_have_is_found() -> None:
    """The same and nearly the same, and nothing else."""
    one = text(1, 300)
    theirs = rows_of(one, text(2))
    mine = rows_of(text(3), changed(one, 4), text(2).upper())
    assert alike(mine, theirs, 0.8).tolist() == [False, True, True]
    assert alike(mine, theirs[:0], 0.8).tolist() == [False] * 3
    assert alike(mine[:0], theirs, 0.8).tolist() == []


def test_candidates_that_share_a_band_are_all_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is alike may stand behind one that is not."""
    monkeypatch.setattr(signatures, "band_keys", lambda rows, _: np.zeros((len(rows), 1), dtype=np.uint64))
    one = text(1, 100)
    crowd = [changed(one, 12, seed=number) for number in range(60)]
    assert alike(rows_of(one), rows_of(*crowd), 0.8).tolist() == [False]
    assert alike(rows_of(one), rows_of(*crowd, changed(one, 1)), 0.8).tolist() == [True]


def test_a_secret_hides_values_and_keeps_what_is_equal(secret: Secret) -> None:
    """Places that are equal stay equal, and only those."""
    rows = rows_of(text(1, 200), changed(text(1, 200), 10))
    hidden = enciphered(rows, secret)
    assert (hidden[0] == hidden[1]).tolist() == (rows[0] == rows[1]).tolist()
    assert (hidden == rows).mean() < 0.01
    assert alike(hidden, rows, 0.8).tolist() == [False, False]


def test_equal_values_in_two_places_are_hidden_apart(secret: Secret) -> None:
    """So a row does not show which of its values are equal."""
    hidden = enciphered(np.full((1, PLACES), 7, dtype=np.uint32), secret)
    assert len(np.unique(hidden)) == PLACES


def test_files_of_another_secret_are_refused(tmp_path: Path, secret: Secret) -> None:
    """Because nothing would ever be alike; the sentence says what to do."""
    (tmp_path / "open.sig").write_bytes(sign(rows_of(text(1))).to_bytes())
    (tmp_path / "hidden.sig").write_bytes(sign(rows_of(text(1)), secret).to_bytes())
    assert len(read(tmp_path / "hidden.sig", secret).rows) == 1
    with pytest.raises(DataError, match="with a secret: name the file that you share with --salt-file"):
        read(tmp_path / "hidden.sig")
    with pytest.raises(DataError, match="without a secret, and you have one: leave --salt-file out"):
        read(tmp_path / "open.sig", secret)
    with pytest.raises(DataError, match="another secret than --salt-file holds"):
        read(tmp_path / "hidden.sig", Secret(bytes(32), "other"))


@pytest.mark.parametrize("content", [b"short", b"   \n"])
def test_a_secret_is_long(tmp_path: Path, content: bytes) -> None:
    """A short one would be guessed."""
    (tmp_path / "salt").write_bytes(content)
    with pytest.raises(DataError, match=r"bytes, expected a secret of at least 16 .*openssl rand"):
        read_secret(tmp_path / "salt")


def test_a_missing_secret_is_said(tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(DataError, match=r"nowhere cannot be read \(No such file or directory\)"):
        read_secret(tmp_path / "nowhere")


def test_what_is_no_file_of_signatures_is_refused(tmp_path: Path) -> None:
    """Text, a file of other tensors, and signatures made by another recipe."""
    (tmp_path / "text.sig").write_text("no tensors", encoding="utf-8")
    save_file({"weights": np.zeros((2, 2), dtype=np.float32)}, tmp_path / "weights.sig")
    save_file({"signatures": np.zeros((2, 64), dtype=np.uint32)}, tmp_path / "other.sig", metadata={"moehub": "[]"})
    for name, why in (("text.sig", "is no file of"), ("weights.sig", "is no file of"), ("other.sig", "made by")):
        with pytest.raises(DataError, match=why):
            read(tmp_path / name)
    with pytest.raises(DataError, match="is no file of signatures"):
        read(tmp_path / "nowhere.sig")


def test_one_contributor_keeps_what_several_have() -> None:
    """All follow the same rule with the same files, so nobody has to ask."""
    shared = text(1, 200)
    texts = [[shared, text(10)], [changed(shared, 2), text(20)], [shared.upper(), text(30), text(20)]]
    files = [sign(rows_of(*some)) for some in texts]
    left = [not_mine(files[who], rows_of(*some), files, 0.8).tolist() for who, some in enumerate(texts)]
    assert sum(not some[0] for some in left) == 1
    assert [left[0][1], left[2][1]] == [False, False]
    assert left[1][1] != left[2][2]


def test_a_text_is_not_dropped_for_one_that_is_dropped_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a chain of three the middle goes, and both ends stay."""
    first = text(1, 100)
    second = changed(first, 5, seed=1)
    third = changed(second, 5, seed=2)
    rows = [rows_of(one) for one in (first, second, third)]
    assert [alike(rows[one], rows[other], 0.6).tolist() for one, other in ((1, 0), (2, 1), (2, 0))] == [
        [True],
        [True],
        [False],
    ]
    files = [sign(one) for one in rows]
    order = {file.rows.tobytes(): str(number) for number, file in enumerate(files)}
    monkeypatch.setattr(signatures.Signatures, "digest", property(lambda self: order[self.rows.tobytes()]))
    assert [not_mine(files[who], rows[who], files, 0.6).tolist() for who in range(3)] == [[False], [True], [False]]


def test_without_a_secret_signatures_are_as_they_were() -> None:
    """OPEN hides nothing."""
    rows = rows_of(text(1))
    assert enciphered(rows, OPEN) is rows
