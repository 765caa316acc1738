"""MegaBlocks' dropless layer over dense experts, with our gate in the place of its router.

For experts that were folded into copies of the base's feed-forward network. Shapes: T tokens, K experts per token,
E experts, h hidden size, f size of the network's inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moehub.errors import RouterError
from moehub.router.backends.megablocks.library import load
from moehub.router.route import Route


@dataclass(frozen=True)
class SwiGLU:
    """One feed-forward network: w2 · (silu(w1 · x) * (v1 · x)), as Llama has it."""

    w1: Tensor
    """The gate projection, [f, h]."""
    v1: Tensor
    """The up projection, [f, h]."""
    w2: Tensor
    """The down projection, [h, f]."""


class DenseExperts(nn.Module):
    """y = Σ_e g_e · FFN_e(x) over the experts that a route names."""

    def __init__(self, experts: Sequence[SwiGLU], *, top_k: int) -> None:
        """Copy the experts' weights into MegaBlocks' layer.

        Args:
            experts: all of one shape, dtype and device, and E·f at least 128; on CUDA, MegaBlocks multiplies
                bfloat16 alone where its own grouped multiplication is built.
            top_k: K.

        Raises:
            RouterError: MegaBlocks cannot be loaded.
        """
        super().__init__()
        library, first = load(), experts[0].w1
        self.top_k, self.experts = top_k, len(experts)
        arguments = library.arguments(
            hidden_size=first.shape[1],
            ffn_hidden_size=first.shape[0],
            moe_num_experts=len(experts),
            moe_top_k=top_k,
            moe_loss_weight=0,
            activation_fn=nn.functional.silu,
            mlp_type="glu",
            mlp_impl="grouped",
            bias=False,
            return_bias=False,
            fp16=first.dtype == torch.float16,
            bf16=first.dtype == torch.bfloat16,
            device=first.device,
            init_method=nn.init.zeros_,
            output_layer_init_method=nn.init.zeros_,
        )
        self.layer = library.dMoE(arguments)
        self.layer.router = self.gate = _Decided()
        weights = self.layer.experts.mlp
        with torch.no_grad():
            weights.w1.copy_(torch.cat([expert.w1 for expert in experts]))
            weights.v1.copy_(torch.cat([expert.v1 for expert in experts]))
            weights.w2.copy_(torch.cat([expert.w2.T for expert in experts]))

    def forward(self, x: Tensor, route: Route) -> Tensor:
        """Return [T, h] for x [T, h].

        Raises:
            RouterError: the route is for other experts or another K.
        """
        if (route.experts, route.indices.shape[1]) != (self.experts, self.top_k):
            raise RouterError(
                f"a route over {route.experts} experts with {route.indices.shape[1]} a token does not fit this layer, "
                f"expected {self.experts} experts with {self.top_k}: make the layer with that top_k"
            )
        self.gate.route = route
        return self.layer(x)


class _Decided(nn.Module):
    """Stands where MegaBlocks' learned router would, and says what our gate has decided."""

    route: Route

    def forward(self, x: Tensor) -> tuple[None, Tensor, Tensor]:
        """Return no scores, which only its balancing loss would want, and weights and experts [T, K]."""
        return None, self.route.weights.to(x.dtype), self.route.indices
