import dataclasses

import pytest

from moehub import config
from moehub.errors import ConfigError
from moehub.experts.settings import TrainConfig


def test_defaults_are_valid() -> None:
    """Nothing needs to be set."""
    assert TrainConfig().rank == 16


@pytest.mark.parametrize(
    "assignment",
    [
        "rank=0",
        "alpha=0",
        "alpha=.inf",
        "dropout=1",
        "dropout=-0.1",
        "targets=[]",
        "targets=q_proj,,v_proj",
        "learning_rate=0",
        "learning_rate=nan",
        "epochs=0",
        "epochs=.nan",
        "max_steps=0",
        "batch_size=0",
        "accumulation=3",
        "accumulation=0",
        "context_length=7",
        "warmup=1",
        "weight_decay=-1",
        "clip=-1",
        "seed=-1",
        "holdout=0.6",
        "holdout_tokens=0",
        "save_every=0",
        "pair_bits=7",
        "pair_bits=25",
        "triple_bits=7",
        "triple_bits=25",
        "suppress_below=-1",
        "private=-1",
        "private=0.01",
        "private=.inf",
        "private_delta=0",
        "private_delta=0.5",
        "private_clip=0",
        "private_clip=1000000",
        'license=""',
        'license="two words"',
        "schedule=linearly",
        "dtype=float16",
        "too_long=ignore",
        "rank=8.5",
        "features=maybe",
        "rang=8",
    ],
)
def test_faulty_settings_are_refused_by_name(assignment: str) -> None:
    """Whatever cannot be trained with is refused before anything is read."""
    with pytest.raises(ConfigError, match=assignment.partition("=")[0]):
        config.load(TrainConfig, assignments=[assignment])


def test_feature_sums_and_private_counts_exclude_each_other() -> None:
    """Sums of features carry no noise, so counts beside them would be private for nothing."""
    with pytest.raises(ConfigError, match="features = True, expected false beside private"):
        TrainConfig(features=True, private=1.0)


def test_all_contradictions_are_reported_at_once() -> None:
    """One run tells a person everything."""
    with pytest.raises(ConfigError) as caught:
        TrainConfig(rank=0, epochs=-1, batch_size=8, accumulation=3)
    lines = str(caught.value).splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["rank", "epochs", "accumulation"]
    assert "a divisor of batch_size = 8" in lines[-1]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("all-linear", ["all-linear"]),
        ("q_proj", ["q_proj"]),
        ("q_proj, v_proj", ["q_proj", "v_proj"]),
        ("[q_proj, v_proj]", ["q_proj", "v_proj"]),
    ],
)
def test_targets_are_a_list_or_separated_by_commas(targets: str, expected: list[str]) -> None:
    """Both ways of writing several names on a command line are understood."""
    assert config.load(TrainConfig, assignments=[f"targets={targets}"]).target_names() == expected


def test_every_setting_is_documented() -> None:
    """The source says what each field is for."""
    import ast
    import inspect

    (definition,) = ast.parse(inspect.getsource(TrainConfig)).body
    assert isinstance(definition, ast.ClassDef)
    described = [
        field.target.id
        for field, text in zip(definition.body, definition.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr)
    ]
    assert described == [field.name for field in dataclasses.fields(TrainConfig)]
