"""Gates that are trained: linear in what they look at, one for all layers or one a block.

Shapes: T tokens of a batch, all rows together; D numbers that a gate looks at; C columns, the experts' and, last,
nobody's.
"""

import re
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from moehub.router.route import Route

K = 2
"""Experts for a token, nobody included."""
_BLOCK = re.compile(r"^(.*?\.\d+)\.")


class Blocks:
    """Lets the first linear of each block decide for the block; one object for one forward."""

    def __init__(self, decide: Callable[[str, Tensor], Route]) -> None:
        """Take what makes a route of a block's name and its first linear's input x [T, D]."""
        self._decide = decide
        self._name = ""
        self._route: Route | None = None

    def route(self, key: str, x: Tensor) -> Route:
        """Return the route of the block that the linear is in."""
        name = block(key)
        if self._route is None or name != self._name:
            self._name, self._route = name, self._decide(name, x)
        return self._route


class Reading:
    """Sends every token to the base alone, and keeps what each block reads."""

    def __init__(self, experts: int) -> None:
        self.inputs: dict[str, Tensor] = {}
        """Block → its input, of root mean square 1: float32 [T, D]."""
        self.routing = Blocks(self._keep)
        self._experts = experts

    def _keep(self, place: str, x: Tensor) -> Route:
        self.inputs[place] = rms(x)
        return Route.fixed(None, tokens=len(x), experts=self._experts, device=x.device)


def block(key: str) -> str:
    """Return the name of the block that a linear is in: `model.layers.3.mlp.up_proj` → `model.layers.3`."""
    found = _BLOCK.match(key)
    return key if found is None else found[1]


def blocks(keys: Iterable[str]) -> list[str]:
    """Return the blocks that linears are in."""
    return sorted({block(key) for key in keys})


class Gates(nn.Module):
    """A linear gate with a bias at each of some places."""

    def __init__(self, places: Iterable[str], width: int, columns: int, *, seed: int) -> None:
        """Begin with small random weights: equal ones would always choose the same columns."""
        super().__init__()
        self.places = {place: number for number, place in enumerate(places)}
        random = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(len(self.places), columns, width, generator=random) * 0.02)
        self.bias = nn.Parameter(torch.zeros(len(self.places), columns))

    def logits(self, place: str, x: Tensor) -> Tensor:
        """Return the logits at a place: [T, D] to [T, C]."""
        number = self.places[place]
        return x @ self.weight[number].T + self.bias[number]


def chosen(logits: Tensor, k: int, *, nobody: bool = True) -> Route:
    """Return the route of the k largest columns, softmax over those alone; the last column may be nobody's."""
    return Route.select(logits.softmax(-1), top_k=k, threshold=0.0, has_null=nobody)


def lone(expert: int, weights: Tensor, experts: int) -> Route:
    """Return the route that sends every token to one expert, with weights [T] of its own."""
    return Route(torch.full((len(weights), 1), expert), weights[:, None], experts)


def by_block(gates: Gates, k: int, seen: list[Tensor] | None = None) -> Blocks:
    """Return the routing of one forward in which each block's gate reads the block's input; `seen` gets the logits."""

    def decide(place: str, x: Tensor) -> Route:
        logits = gates.logits(place, rms(x))
        if seen is not None:
            seen.append(logits)
        return chosen(logits, k)

    return Blocks(decide)


def rms(x: Tensor) -> Tensor:
    """Return vectors of mean square 1, float32: [..., D]."""
    x = x.float()
    return x * x.square().mean(-1, keepdim=True).add(1e-12).rsqrt()


def window_mean(x: Tensor, positions: Tensor, window: int | None) -> Tensor:
    """Return the mean of the last `window` vectors of a token's own text, or of all so far: [T, D] to [T, D].

    Args:
        x: vectors.
        positions: int64 [T], how many tokens of the same text come before.
        window: the longest reach, the token itself included; None: the whole text so far.
    """
    reach = positions + 1 if window is None else (positions + 1).clamp_max(window)
    sums = nn.functional.pad(x.double().cumsum(0), (0, 0, 1, 0))
    ends = torch.arange(1, len(x) + 1)
    return ((sums[ends] - sums[ends - reach]) / reach[:, None]).to(x.dtype)


def imbalance(logits: Tensor, k: int) -> Tensor:
    """Return N·Σ f_i·P_i: 1 where all columns are chosen alike.

    f_i is the share of the choices that fall on column i, P_i its mean probability (Fedus, Zoph and Shazeer 2021,
    "Switch Transformers", equations 4 to 6, for k choices a token).
    """
    columns = logits.shape[-1]
    picks = torch.bincount(logits.topk(k, -1).indices.flatten(), minlength=columns) / (len(logits) * k)
    return columns * (picks * logits.softmax(-1).mean(0)).sum()


def z_loss(logits: Tensor) -> Tensor:
    """Return the mean of (log Σ exp)² (Zoph et al. 2022, "ST-MoE", equation 5)."""
    return logits.logsumexp(-1).square().mean()
