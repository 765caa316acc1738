"""What an adapter of a base looks like, without the base."""

import json
from pathlib import Path

import numpy as np
import pytest

from moehub import base as bases
from moehub.errors import ConfigError
from moehub.experts import adaptation
from moehub.experts.settings import TrainConfig
from moehub.federation.form import Form, form_of
from tests.builders import tiny_base
from tests.federation.runs import FORM


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("targets", ["all-linear", None])
def test_the_form_is_that_of_an_adapter_on_the_base(tmp_path: Path, architecture: str, targets: str | None) -> None:
    """Names, shapes and targets are those that PEFT makes on the loaded base."""
    base = bases.find(str(tiny_base(tmp_path, architecture=architecture)))
    one = {"llama": "q_proj", "gpt_neox": "dense", "gpt2": "c_attn"}[architecture]
    config = TrainConfig(rank=3, targets=targets or one)
    form = form_of(base, config)
    with adaptation.quiet():
        model = adaptation.adapt(adaptation.load(base, config), config)
    state = adaptation.state(model)
    assert form.shapes(3) == {name: tuple(state[name].shape) for name in sorted(state)}
    assert form.targets == adaptation.targets(model)
    assert form.base == base.pin()
    assert form.vocabulary == len(base.load_tokenizer())


def test_shapes_follow_the_rank() -> None:
    """A is [r, d_in] and B is [d_out, r], in the order of names."""
    shapes = FORM.shapes(5)
    assert list(shapes) == sorted(shapes)
    assert shapes["base_model.model.layers.0.q_proj.lora_A.weight"] == (5, 8)
    assert shapes["base_model.model.layers.0.q_proj.lora_B.weight"] == (6, 5)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 5 * (8 + 6 + 12 + 8)


def test_a_form_travels_as_one_line_of_json() -> None:
    """And comes back as it was."""
    assert "\n" not in FORM.to_json()
    assert Form.from_json(FORM.to_json()) == FORM


def test_linears_that_are_not_there_are_named(base_folder: Path) -> None:
    """As in any training."""
    with pytest.raises(ConfigError, match="targets holds w_zz"):
        form_of(bases.find(str(base_folder)), TrainConfig(targets=("w_zz",)))


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "{",
        lambda _: "[]",
        lambda values: json.dumps({**values, "more": 1}),
        lambda values: json.dumps({**values, "base": 1}),
        lambda values: json.dumps({**values, "vocabulary": "x"}),
        lambda values: json.dumps({**values, "linears": {"x": [1]}}),
        lambda values: json.dumps({key: value for key, value in values.items() if key != "targets"}),
    ],
)
def test_what_is_no_form_is_refused(change: object) -> None:
    """With the command that makes one."""
    with pytest.raises(ConfigError, match="moehub federate bundle"):
        Form.from_json(change(json.loads(FORM.to_json())))  # type: ignore[operator]
