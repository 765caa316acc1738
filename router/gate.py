"""The gate: tokens so far → experts for each token. One gate serves all layers of a MoE.

Shapes: B batch, T tokens, E columns (the null expert's last, where there is one).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moehub.errors import RouterError
from moehub.experts.statistics import Statistics
from moehub.router import pace
from moehub.router.arrow import ArrowGate
from moehub.router.layer import Routing
from moehub.router.method import NULL, Contributor, flatten, is_face, parse, unflatten
from moehub.router.route import Route
from moehub.router.settings import RouterSettings
from moehub.router.window import GateState, Window


@dataclass(frozen=True)
class Shared:
    """One route for every linear, decided before the first layer."""

    shared: Route

    def route(self, key: str, x: Tensor) -> Route:  # noqa: ARG002 (part of the signature)
        """Return the one route."""
        return self.shared


class Recorder:
    """Lets a gate of the layers decide, and keeps the mean weight of each expert for each token."""

    def __init__(self, inner: Routing) -> None:
        self.inner = inner
        self.total: Tensor | None = None
        self.calls = 0

    def route(self, key: str, x: Tensor) -> Route:
        """Return the inner routing's decision."""
        decided = self.inner.route(key, x)
        self.total = decided.dense if self.total is None else self.total + decided.dense
        self.calls += 1
        return decided


class PosteriorGate(nn.Module):
    """Evidence of one or more methods, filtered over time, at two switching rates."""

    def __init__(
        self, sources: Sequence[nn.Module], settings: RouterSettings, *, experts: int, has_null: bool, faces: int = 1
    ) -> None:
        """Join the sources.

        Args:
            sources: what gives evidence; one with a single column for the null gives it to each face alike.
            settings: the MoE's router settings.
            experts: E.
            has_null: whether the MoE has a null expert.
            faces: in how many parts its text was counted.
        """
        super().__init__()
        self.faces = faces if has_null else 0
        # Nobody is as probable as anybody, however many faces that is.
        each = [1.0] * experts + [1.0 / max(self.faces, 1)] * self.faces
        self.shares = torch.tensor(each, dtype=torch.float64) / sum(each)
        self.sources = nn.ModuleList(sources)
        self.settings = settings
        self.experts, self.has_null = experts, has_null

    def begin(self, batch: int, device: torch.device) -> GateState:
        """Return the state before the first token."""
        return GateState(
            pace.start(batch, len(self.settings.rates), self.shares.to(_filter_device(device))),
            tuple(source.begin(batch, device) for source in self.sources),  # type: ignore[operator]
        )

    def forward(self, window: Window, state: GateState) -> tuple[Tensor, GateState]:
        """Return the posterior after each token, float64 [B, T, E], and the state after the last.

        Args:
            window: the tokens.
            state: what `begin` or the call for the tokens before returned.
        """
        parts, memories = [], []
        for source, memory in zip(self.sources, state.memories, strict=True):
            part, after = source(window, memory)
            parts.append(self._spread(part))
            memories.append(after)
        evidence = torch.stack(parts).sum(0)
        settings = self.settings
        belief = pace.follow(
            evidence.to(state.belief.device),
            state.belief,
            rates=settings.rates,
            change=settings.pace_change,
            shares=self.shares.to(state.belief.device),
        )
        believed = belief.sum(2)
        if self.faces > 1:
            own, generic = believed.tensor_split([self.experts], -1)
            believed = torch.cat([own, generic.sum(-1, keepdim=True)], -1)
        return believed, GateState(belief[:, -1], tuple(memories))

    def _spread(self, evidence: Tensor) -> Tensor:
        """Return evidence [B, T, C] with the null's column once for each face, where it has a single one."""
        missing = self.experts + self.faces - evidence.shape[-1]
        if not missing:
            return evidence
        return torch.cat([evidence, evidence[..., -1:].expand(*evidence.shape[:-1], missing)], -1)

    def routing(self, filtered: Tensor) -> Shared:
        """Return what the layers are told, from a posterior [B, T, E]."""
        return Shared(
            Route.select(
                filtered.flatten(0, 1),
                top_k=self.settings.top_k,
                threshold=self.settings.threshold,
                has_null=self.has_null,
            )
        )


def gate_of(counted: Mapping[str, Statistics], null: Statistics | None, settings: RouterSettings) -> PosteriorGate:
    """Return the gate that statistics make, in memory: experts in the order of `counted`.

    Raises:
        RouterError: `settings` name a method that decides in each layer.
    """
    contributors = [Contributor(name, one, dict) for name, one in counted.items()]
    tables: dict[str, Tensor] = {}
    for method in parse(settings.method):
        tables |= flatten(method.name, method.solve(contributors, null, settings))
    gate = load_gate(tables, settings, names=list(counted), has_null=null is not None)
    if not isinstance(gate, PosteriorGate):
        raise RouterError(f"the router {settings.method!r} is made of adapters, not of statistics")
    return gate


def load_gate(
    tensors: Mapping[str, Tensor], settings: RouterSettings, *, names: Sequence[str], has_null: bool
) -> PosteriorGate | ArrowGate:
    """Return the gate that the tables of `router.safetensors` make.

    Args:
        tensors: everything in the file.
        settings: the MoE's router settings.
        names: experts in canonical order.
        has_null: whether the MoE has a null expert.
    """
    methods = parse(settings.method)
    parts = [
        method.load(
            unflatten(method.name, tensors),
            [*names, NULL] if has_null and method.kind == "evidence" else names,
            settings,
        )
        for method in methods
    ]
    if isinstance(parts[0], ArrowGate):
        return parts[0]
    faces = max(len({owner for owner in unflatten(method.name, tensors) if is_face(owner)}) for method in methods)
    return PosteriorGate(parts, settings, experts=len(names), has_null=has_null, faces=faces)


def _filter_device(device: torch.device) -> torch.device:
    # Apple's GPUs have no float64; the filter is small enough for the CPU.
    return torch.device("cpu") if device.type == "mps" else device
