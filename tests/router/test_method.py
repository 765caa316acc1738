import pytest
import torch

from moehub.errors import ConfigError, RouterError
from moehub.router.method import flatten, parse, unflatten
from moehub.router.settings import RouterSettings


def test_methods_are_joined_in_one_order() -> None:
    """evidence+lda and lda+evidence are the same gate."""
    assert [one.name for one in parse("lda+evidence")] == [one.name for one in parse("evidence+lda")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("oracle", "no router 'oracle', expected evidence, lda, likelihood, arrow"),
        ("lda+lda", "names a method twice"),
        ("arrow+lda", "'arrow' decides in each layer and cannot be joined"),
    ],
)
def test_what_cannot_be_a_router_is_refused(text: str, sentence: str) -> None:
    """Unknown, doubled and unjoinable names each get a sentence."""
    with pytest.raises(RouterError, match=sentence):
        parse(text)


def test_flatten_and_unflatten_are_inverse() -> None:
    """Tables come back from a file that holds other methods' too."""
    tables = {"law": {"a.index": torch.arange(3)}, "null": {"model.layers.0.q": torch.ones(2)}}
    both = flatten("evidence", tables) | flatten("lda", {"law": {"bias": torch.zeros(1)}})
    assert unflatten("evidence", both) == tables


def test_settings_report_all_faults() -> None:
    """Every impossible setting is named at once."""
    with pytest.raises(ConfigError) as caught:
        RouterSettings(top_k=0, rho=1.5, kappa=-1.0)
    assert all(name in str(caught.value) for name in ("top_k = 0", "rho = 1.5", "kappa = -1.0"))
