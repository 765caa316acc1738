"""One linear with experts beside it, made of random numbers on a device.

Shapes: T tokens, E experts, r rank, d width of input and output.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from moehub.router.backends import BACKENDS
from moehub.router.route import Route

TOP_K = 2


@dataclass(frozen=True)
class Problem:
    """A linear, its experts, and tokens with their route."""

    W: Tensor
    """[d, d]."""
    x: Tensor
    """[T, d]."""
    A: Tensor
    """[E, r, d]."""
    B: Tensor
    """[E, r, d]."""
    scale: Tensor
    """[E]."""
    route: Route

    @classmethod
    def random(
        cls, *, tokens: int, experts: int, rank: int, width: int, zipf: bool, dtype: torch.dtype, device: torch.device
    ) -> "Problem":
        """Return a problem; with `zipf` the n-th expert is chosen 1/n as often as the first."""
        generator = torch.Generator(device).manual_seed(tokens * 7 + experts)

        def normal(*shape: int) -> Tensor:
            return (torch.randn(*shape, generator=generator, device=device) / shape[-1] ** 0.5).to(dtype)

        popularity = torch.arange(1, experts + 1, device=device).float().log().neg() * zipf
        noise = torch.rand(tokens, experts, generator=generator, device=device).clamp_min(1e-20)
        indices = (popularity - noise.log().neg().log()).topk(min(TOP_K, experts)).indices
        weights = torch.rand(indices.shape, generator=generator, device=device).add(0.1)
        return cls(
            normal(width, width),
            normal(tokens, width),
            normal(experts, rank, width),
            normal(experts, rank, width),
            torch.full((experts,), 2.0, device=device),
            Route(indices, weights / weights.sum(-1, keepdim=True), experts),
        )

    def base(self) -> Tensor:
        """Return what the linear alone computes, [T, d]."""
        return torch.nn.functional.linear(self.x, self.W)

    def lora(self, backend: str, y: Tensor) -> Tensor:
        """Return y with the experts' contributions, [T, d]."""
        return BACKENDS[backend](self.x, y, self.route, A=self.A, B=self.B, scale=self.scale)

    def least_bytes(self) -> int:
        """Return what the experts' part must move at least: chosen adapters and x and y once, the output once."""
        chosen = len(self.route.indices.unique())
        adapters = chosen * (self.A[0].numel() + self.B[0].numel())
        return (adapters + 3 * self.x.numel()) * self.x.element_size()
