"""What tests reach into a MoE for."""

from moehub.merge.model import MoehubForCausalLM
from moehub.router.layer import StackedLinear


def stacked(model: MoehubForCausalLM, linear: str) -> StackedLinear:
    """Return the sparse layer at a linear of a MoE that was loaded to be trained."""
    layer = model.sparse_layers[linear]
    assert isinstance(layer, StackedLinear)
    return layer
