"""A gate that was tuned on text: the posterior is the prior, and what was learned is added to its logarithm.

    x_t(e) = log p_t(e) + w_e·h_t + b_e,      g_t = softmax(x_t)

p_t is the posterior of `moehub.router.gate`, with κ, ρ and the like as they were learned; h_t is the mean over the
latest tokens' normed embeddings (`moehub.experts.features`). With w and b zero and the numbers untouched, every bit is
the untuned gate's. Unlike counts, what is learned of one expert depends on all others: none can be taken out exactly.

Shapes: B batch, T tokens, E columns (the null expert's last, where there is one), D feature dimensions.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moehub.experts.features import Recipe, ema, project, recipe_for
from moehub.router.gate import PosteriorGate, Shared
from moehub.router.posterior import relative
from moehub.router.settings import RouterSettings
from moehub.router.window import GateState, Memory, Window

CHANCES = ("rho", "calm_rho", "pace_change")
"""The filter's numbers, each a probability; those of the evidence are factors."""


@dataclass(frozen=True)
class Facts:
    """How a gate came to be tuned; what nobody measured is None."""

    tokens: int = 0
    """Learned, by everybody, in all rounds."""
    rounds: int = 1
    """How often it was tuned, each time from where it stood."""
    contributors: int = 1
    """Who took part in the last round, each with text of its own."""
    loss_before: float | None = None
    """Of the MoE as it stood before the last round, on held-out text, nats per token."""
    loss_after: float | None = None
    """Of the MoE as it is, on the same text."""
    held_out_tokens: int = 0
    """How many tokens those are."""
    experts: bool = False
    """Whether the experts were trained with it."""


@dataclass(frozen=True)
class Decision:
    """What a tuned gate makes of a window."""

    gate: Tensor
    """g, float64 [B, T, E]."""
    log_scale: Tensor
    """log Σ_e exp x_t(e), float64 [B, T]: 0 where nothing was learned."""
    state: GateState


class Correction(nn.Module):
    """w_e·h_t + b_e, or b_e alone."""

    def __init__(self, bias: Tensor, weight: Tensor | None = None, recipe: Recipe | None = None) -> None:
        """Keep b [E], and w [E, D] with the recipe of the features that it reads."""
        super().__init__()
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.weight = None if weight is None else nn.Parameter(weight, requires_grad=False)
        self.recipe = recipe

    def begin(self, batch: int, device: torch.device) -> Memory:
        """Return the memory before the first token: the running mean [B, D] and the tokens seen [B], or nothing."""
        if self.weight is None:
            return ()
        carry = torch.zeros(batch, self.weight.shape[1], dtype=torch.float64, device=device)
        return carry, carry.new_zeros(batch)

    def forward(self, window: Window, memory: Memory, device: torch.device) -> tuple[Tensor, Memory]:
        """Return the correction of each token, float64 [B, T, E] on `device`, and the memory after the last."""
        bias = self.bias.to(device).double()
        if self.weight is None or self.recipe is None:
            return bias.expand(*window.ids.shape, -1), ()
        carry, seen = memory
        features = project(window.embed(window.ids).detach(), self.recipe).to(device).double()
        smoothed, carry, seen = ema(features, window.mask.to(device), carry, seen, self.recipe)
        return smoothed @ self.weight.to(device).double().T + bias, (carry, seen)


class TunedGate(nn.Module):
    """A posterior with a correction; it can do what a `PosteriorGate` can."""

    def __init__(self, prior: PosteriorGate, correction: Correction, facts: Facts) -> None:
        super().__init__()
        self.prior, self.correction, self.facts = prior, correction, facts

    @property
    def has_null(self) -> bool:
        """Whether the last column is the null expert's."""
        return self.prior.has_null

    @property
    def settings(self) -> RouterSettings:
        """What the prior acts with."""
        return self.prior.settings

    def numbers(self) -> dict[str, float]:
        """Return the settings that can be tuned, as they are."""
        return {name: float(getattr(self.settings, name)) for name in tunable(self.prior)}

    def begin(self, batch: int, device: torch.device) -> GateState:
        """Return the state before the first token; the correction's memory stands last."""
        state = self.prior.begin(batch, device)
        return dataclasses.replace(state, memories=(*state.memories, self.correction.begin(batch, state.belief.device)))

    def decide(self, window: Window, state: GateState) -> Decision:
        """Return the gate after each token, and what it was scaled by."""
        *memories, memory = state.memories
        prior, after = self.prior(window, dataclasses.replace(state, memories=tuple(memories)))
        correction, memory = self.correction(window, memory, prior.device)
        mass = prior * relative(correction, prior).exp()
        total = mass.sum(-1, keepdim=True)
        # Not 1 but the prior's own sum: then a correction of zero multiplies by 1 and changes no bit.
        gate = mass * (prior.sum(-1, keepdim=True) / total)
        log_scale = total[..., 0].log() + correction.amax(-1)
        return Decision(gate, log_scale, dataclasses.replace(after, memories=(*after.memories, memory)))

    def forward(self, window: Window, state: GateState) -> tuple[Tensor, GateState]:
        """Return the gate after each token, float64 [B, T, E], and the state after the last."""
        decision = self.decide(window, state)
        return decision.gate, decision.state

    def routing(self, filtered: Tensor) -> Shared:
        """Return what the layers are told, from a gate [B, T, E]."""
        return self.prior.routing(filtered)


class OpenGate(TunedGate):
    """A tuned gate while it is learned: its numbers, its biases and its weights are parameters.

    A number v is learned as δ, its shift from where it began: v·e^δ, and for a probability the odds ·e^δ. So it stays
    what it is, and δ = 0 is exactly v.
    """

    def __init__(self, prior: PosteriorGate, correction: Correction, facts: Facts, *, numbers: bool = True) -> None:
        """Open a gate; `numbers` says whether its numbers are learned too."""
        super().__init__(prior, correction, facts)
        self.began = super().numbers()
        learned = [name for name, value in self.began.items() if value > 0] if numbers else []
        self.shifts = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in learned})
        self.correction.requires_grad_(requires_grad=True)
        self._start = {name: _kept(parameter) for name, parameter in self.learned().items()}

    def learned(self) -> dict[str, nn.Parameter]:
        """Return every parameter by the name that it has in an update: `number/…`, `bias`, and `weight`."""
        return {f"number/{name}": shift for name, shift in self.shifts.items()} | dict(
            self.correction.named_parameters()
        )

    def change(self) -> dict[str, Tensor]:
        """Return how far each parameter is from where it began, float64 on the CPU."""
        return {name: _kept(parameter) - self._start[name] for name, parameter in self.learned().items()}

    @torch.no_grad()
    def move(self, change: Mapping[str, Tensor]) -> None:
        """Put each parameter this far from where it began; the inverse of `change`."""
        for name, parameter in self.learned().items():
            parameter.copy_(self._start[name] + change[name])

    @torch.no_grad()
    def numbers(self) -> dict[str, float]:
        """Return the numbers as they are now."""
        return self.began | {name: float(value) for name, value in self._values(torch.device("cpu")).items()}

    def decide(self, window: Window, state: GateState) -> Decision:
        """Return the gate after each token: gradients reach all that is learned."""
        _put(self.prior, self._values(state.belief.device))
        return super().decide(window, state)

    def closed(self, facts: Facts) -> TunedGate:
        """Return the gate as it is now, with nothing left to learn."""
        _put(self.prior, self.numbers())
        self.correction.requires_grad_(requires_grad=False)
        return TunedGate(self.prior, self.correction, facts)

    def _values(self, device: torch.device) -> dict[str, Tensor]:
        shifts = {name: shift.to(device).double() for name, shift in self.shifts.items()}
        return {
            name: self.began[name] * shift.exp() / (1 + self.began[name] * shift.expm1() if name in CHANCES else 1)
            for name, shift in shifts.items()
        }


def tunable(gate: PosteriorGate) -> list[str]:
    """Return the names of the settings that a gate can be tuned by: the filter's, and those of its evidence."""
    return [*CHANCES, *(name for source in gate.sources for name in source.numbers)]  # type: ignore[union-attr]


def open_gate(gate: PosteriorGate | TunedGate, *, hidden: int | None, numbers: bool = True) -> OpenGate:
    """Return a gate that can be learned, and decides as `gate` does until it is; it takes `gate` over.

    Args:
        gate: tuned before or not.
        hidden: the size of the base's embeddings, from which a correction is to be learned too; None: biases alone,
            and a weight that was learned before.
        numbers: whether κ, ρ and the like are learned.
    """
    if isinstance(gate, TunedGate):
        prior, correction, facts = gate.prior, gate.correction, gate.facts
    else:
        prior, facts = gate, Facts(rounds=0)
        correction = Correction(torch.zeros(gate.experts + gate.has_null))
    if hidden is not None and correction.weight is None:
        recipe = recipe_for(hidden)
        correction = Correction(
            correction.bias.data, correction.bias.data.new_zeros(len(correction.bias), recipe.dimensions), recipe
        )
    return OpenGate(prior, correction, facts, numbers=numbers)


def _kept(parameter: Tensor) -> Tensor:
    """Return a copy, float64 on the CPU: differences of float32 are exact in it."""
    return parameter.detach().cpu().double().clone()


def _put(gate: PosteriorGate, values: Mapping[str, Tensor] | Mapping[str, float]) -> None:
    """Let a gate act with these numbers."""
    gate.settings = dataclasses.replace(gate.settings, **dict(values))  # type: ignore[arg-type]
    for source in gate.sources:
        source.act(gate.settings)  # type: ignore[operator]
