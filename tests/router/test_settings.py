import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from moehub import config
from moehub.errors import ConfigError
from moehub.router.settings import RouterSettings

POSITIVE = st.floats(1e-6, 1e6)
ANY_SETTINGS = st.builds(
    RouterSettings,
    method=st.sampled_from(["evidence", "lda", "arrow", "evidence+lda"]),
    top_k=st.integers(1, 64),
    threshold=st.floats(0, 0.999),
    kappa=POSITIVE,
    rho=st.floats(1e-6, 0.999),
    unigram_strength=POSITIVE,
    pair_strength=POSITIVE,
    pair_weight=st.floats(0, 10),
    lda_weight=POSITIVE,
    lda_shrinkage=st.floats(1e-6, 1),
    arrow_temperature=POSITIVE,
)


@given(chosen=ANY_SETTINGS)
def test_settings_survive_a_configuration_file(chosen: RouterSettings) -> None:
    """What `config.json` and a recipe in YAML store is read back as the same settings."""
    stored = chosen.to_dict()
    assert config.from_mapping(RouterSettings, stored, source="test") == chosen
    assert config.from_mapping(RouterSettings, yaml.safe_load(yaml.safe_dump(stored)), source="test") == chosen


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"top_k": 0}, "top_k = 0, expected 1 or more"),
        ({"threshold": 1.0}, "threshold = 1.0, expected 0 or more and below 1"),
        ({"threshold": -0.1}, "threshold = -0.1"),
        ({"rho": 0.0}, "rho = 0.0, expected between 0 and 1"),
        ({"rho": 1.0}, "rho = 1.0"),
        ({"lda_shrinkage": 0.0}, "lda_shrinkage = 0.0, expected above 0 and at most 1"),
        ({"lda_shrinkage": 1.1}, "lda_shrinkage = 1.1"),
        *(
            ({name: value}, f"{name} = {value}, expected a finite number above 0")
            for name in ("kappa", "unigram_strength", "pair_strength", "lda_weight", "arrow_temperature")
            for value in (0.0, -1.0, math.inf)
        ),
        *(({name: float("nan")}, f"{name} = nan") for name in ("threshold", "kappa", "rho", "pair_weight")),
        ({"pair_weight": -0.5}, "pair_weight = -0.5, expected a finite number, 0 or more"),
        ({"pair_weight": math.inf}, "pair_weight = inf"),
    ],
)
def test_no_gate_is_made_of_impossible_settings(change: dict[str, float], fault: str) -> None:
    """Each limit is kept on both sides, and the sentence names the setting, its value and what was expected."""
    with pytest.raises(ConfigError) as caught:
        RouterSettings(**change)  # type: ignore[arg-type]
    assert fault in str(caught.value)


def test_limits_themselves_are_allowed() -> None:
    """A threshold of 0 keeps everything, a shrinkage of 1 is a multiple of the identity."""
    assert RouterSettings(threshold=0.0, lda_shrinkage=1.0, pair_weight=0.0).threshold == 0.0
