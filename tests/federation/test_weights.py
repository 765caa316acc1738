"""Adapters as they travel: drawn alike everywhere, named by one digest."""

import hashlib
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moehub.federation import weights
from tests.federation.runs import FORM

SHAPES = FORM.shapes(2)
DIGESTS = [
    "4031aef36e2f97c6a81c6f7029fae35a3e3f6d591de6a88a9be6d06f04c25837",
    "99aa4b03413846513fce295802e544669f08b32cdcce6aead730a7affbd0e3e2",
]
"""Of the first adapters of seeds 0 and 1."""


def test_the_first_adapter_is_the_same_everywhere() -> None:
    """These digests were computed once: another machine or version of numpy must draw the same bits."""
    assert [weights.digest(weights.initial(SHAPES, seed)) for seed in (0, 1)] == DIGESTS


def test_the_first_adapter_changes_nothing() -> None:
    """B is zero; A is uniform within ±1/√d_in, as PEFT draws it."""
    found = weights.initial({"x.lora_A.weight": (64, 100), "x.lora_B.weight": (5, 64)}, 3)
    a, b = found["x.lora_A.weight"], found["x.lora_B.weight"]
    assert not b.any()
    assert {a.dtype, b.dtype} == {np.dtype(np.float32)}
    assert 0.099 < float(np.abs(a).max()) <= 0.1
    assert abs(float(a.mean())) < 0.003
    assert abs(float(a.std()) - 0.1 / 3**0.5) < 0.002


def test_a_tensor_does_not_depend_on_the_others() -> None:
    """Each has a generator of its own: another linear more or less changes none."""
    whole = weights.initial(SHAPES, 0)
    (name, *_) = SHAPES
    assert (weights.initial({name: SHAPES[name]}, 0)[name] == whole[name]).all()
    drawn = [values.tobytes()[:16] for name, values in whole.items() if name.endswith(weights.A)]
    assert len(set(drawn)) == len(drawn)


@given(st.permutations(sorted(SHAPES)))
def test_the_digest_does_not_depend_on_the_order(names: list[str]) -> None:
    """Names are sorted first."""
    found = weights.initial(SHAPES, 0)
    assert weights.digest({name: found[name] for name in names}) == weights.digest(found)


def test_the_digest_depends_on_every_name_shape_and_bit() -> None:
    """One bit, one name, or the same values in another shape are another adapter."""
    found = weights.initial(SHAPES, 0)
    name = min(found)
    flipped = {**found, name: found[name].copy()}
    flipped[name].view(np.uint32)[0, 0] ^= 1
    renamed = {("x" + each if each == name else each): values for each, values in found.items()}
    reshaped = {**found, name: found[name].reshape(-1)}
    digests = {weights.digest(each) for each in (found, flipped, renamed, reshaped)}
    assert len(digests) == 4


def test_the_digest_is_sha256_of_names_shapes_and_bytes() -> None:
    """As its docstring says, so that others can compute it."""
    values = np.array([[1.5]], np.float32)
    expected = hashlib.sha256(b"x\x00(1, 1)\n" + values.tobytes()).hexdigest()
    assert weights.digest({"x": values}) == expected


def test_what_is_trained_is_b_alone_where_a_is_frozen() -> None:
    """Else both factors."""
    found = weights.initial(SHAPES, 0)
    assert set(weights.trained(found, frozen_a=True)) == {name for name in SHAPES if name.endswith(weights.B)}
    assert weights.trained(found, frozen_a=False).keys() == found.keys()


def test_size_and_norm_are_over_all_values() -> None:
    """Bytes of float32, and the Euclidean norm."""
    found: dict[str, Any] = {"x": np.array([3.0], np.float32), "y": np.array([[0.0, 4.0]], np.float32)}
    assert weights.size(found) == 12
    assert weights.norm(found) == 5.0
