from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from moehub.experts.faces import MOST, count_generic, faces_of
from moehub.experts.statistics import Statistics, count

VOCABULARY = 40
HOW: dict[str, Any] = {"tokenizer": "t", "vocabulary": VOCABULARY, "pair_bits": 8, "triple_bits": 9}


def document(low: int, high: int, seed: int, tokens: int = 60) -> Tensor:
    return torch.randint(low, high, (tokens,), generator=torch.Generator().manual_seed(seed))


WORDS = [document(0, 20, seed) for seed in range(40)]
DIGITS = [document(20, 30, seed) for seed in range(40)]
MIXED = [one for pair in zip(WORDS, DIGITS, strict=True) for one in pair]


def test_kinds_of_text_become_faces_of_their_own() -> None:
    """Pages of words and pages of digits never share a face."""
    found = faces_of(MIXED, 4)
    assert not set(found[::2]) & set(found[1::2])


def test_the_same_text_has_the_same_faces() -> None:
    """Nothing is drawn anew: a MoE that is made again is the same."""
    assert faces_of(MIXED, 4) == faces_of(MIXED, 4)


def test_faces_add_up_to_the_text() -> None:
    """Every token is counted in exactly one face, and the whole stays as it was."""
    whole = count(MIXED, **HOW)
    found = count_generic(MIXED, **HOW)
    assert torch.equal(found.unigrams, whole.unigrams)
    assert 2 <= len(found.faces) <= MOST
    for kind, counts in whole.counts.items():
        total = sum((face.counts[kind] for face in found.faces), torch.zeros_like(counts))
        assert torch.equal(total, counts)


@pytest.mark.parametrize("documents", [MIXED[:8], [torch.arange(5)] * 200], ids=["few", "short"])
def test_little_text_has_one_face(documents: list[Tensor]) -> None:
    """Where there is too little to tell kinds apart the statistics stay as they are."""
    assert count_generic(documents, **HOW).faces == ()


def test_a_long_text_is_taken_in_pieces() -> None:
    """One file without separators has faces too."""
    together = [torch.cat([document(0, 20, 1, tokens=40_000), document(20, 30, 2, tokens=40_000)])]
    assert len(count_generic(together, **HOW).faces) >= 2


def test_faces_are_saved_with_their_whole(tmp_path: Path) -> None:
    """What is read back is what was saved, faces included."""
    saved = count_generic(MIXED, **HOW)
    saved.save(tmp_path / "s.safetensors")
    loaded = Statistics.load(tmp_path / "s.safetensors")
    assert len(loaded.faces) == len(saved.faces)
    for mine, theirs in zip(loaded.faces, saved.faces, strict=True):
        assert all(torch.equal(counts, theirs.counts[kind]) for kind, counts in mine.counts.items())
