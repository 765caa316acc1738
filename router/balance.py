"""The two losses that keep a gate which is learned in order.

Shapes: N tokens of text, E columns of the gate (the null expert's last, where there is one).
"""

from torch import Tensor

_TINY = 1e-12


def imbalance(gate: Tensor, *, has_null: bool) -> Tensor:
    """Return E · Σ_e f_e·P_e over the experts: 1 where all get as much, E where one gets everything.

    f_e is the share of the tokens that go to expert e first, P_e its mean probability, both as parts of what goes to
    experts at all: what belongs to nobody counts for nothing (Fedus et al. 2021, "Switch Transformers", equation 4).

    Args:
        gate: probabilities, [N, E].
        has_null: whether the last column is the null expert's.
    """
    experts = gate.shape[-1] - has_null
    first = gate.argmax(-1)
    f = first[first < experts].bincount(minlength=experts).to(gate.dtype)
    P = gate[:, :experts].mean(0)
    return experts * (f / f.sum().clamp_min(1) * P).sum() / P.sum().clamp_min(_TINY)


def drift(log_scale: Tensor) -> Tensor:
    """Return the mean of (log Σ_e exp x_e)² over tokens, from these logarithms [N].

    It keeps logits from growing where softmax does not feel it (Zoph et al. 2022, "ST-MoE", equation 5: the z-loss).
    """
    return log_scale.square().mean()
