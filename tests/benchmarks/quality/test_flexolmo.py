import torch

from benchmarks.quality import gating
from benchmarks.quality.methods.flexolmo import Rows, joined, paired

_PLACE = "model.layers.0"
_KEY = f"{_PLACE}.self_attn.q_proj"


def test_in_training_an_expert_meets_the_public_model_alone() -> None:
    """Its weight is its share of the softmax over the pair."""
    mine, public, x = _rows(), torch.randn(6), torch.randn(5, 6)
    route = paired(mine, {_PLACE: public}, 1, 3).route(_KEY, x)
    logits = torch.stack([mine.logit(_PLACE, gating.rms(x)), gating.rms(x) @ public], -1)
    torch.testing.assert_close(route.dense[:, 1], logits.softmax(-1)[:, 0])
    assert not route.dense[:, [0, 2]].any()


def test_a_bias_is_never_above_zero() -> None:
    """Whatever training makes of it, it only ever holds an expert back."""
    rows, x = _rows(), torch.randn(5, 6)
    rows.biases.data[:] = 3.0
    torch.testing.assert_close(rows.logit(_PLACE, x), x @ rows.rows[0])


def test_where_the_public_model_wins_nobody_answers() -> None:
    """With one place, an expert is chosen where r·x + b is above the public row's product, and above all others'."""
    everybody, public, x = [_rows(), _rows()], torch.randn(6), torch.randn(40, 6)
    route = joined(everybody, {_PLACE: public}, 1).route(_KEY, x)
    z = gating.rms(x)
    logits = torch.stack([*(one.logit(_PLACE, z) for one in everybody), z @ public], -1)
    assert torch.equal(route.dense, torch.nn.functional.one_hot(logits.argmax(-1), 3)[:, :2].float())


def _rows() -> Rows:
    return Rows({_PLACE: torch.randn(6)})
