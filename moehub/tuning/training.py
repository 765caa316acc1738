"""Joint polish: the gate's numbers and correction, and where asked for the experts, learn what predicts the text.

    loss = −mean log p(next token) + balance · imbalance(gate) + z · drift(gate)

The gate decides before the first layer and for all layers. So each step makes it once for all of its rows, works the
base off in parts that fit the memory, and then takes the gradient of the gate's weights back through the filter.

A loop of its own and not the Trainer's: what is learned are a few thousand numbers, in minutes; there is nothing to
resume, and a gate for all rows of a step does not fit its way of cutting a batch.

Shapes: B rows, T tokens of the longest, E columns of the gate.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from transformers import get_scheduler

from moehub.console import progress
from moehub.errors import RouterError, TrainingError
from moehub.experts.evaluation import batches as parted
from moehub.experts.evaluation import evaluate_loss, summed_loss
from moehub.experts.packing import Row, collate
from moehub.models import Opened
from moehub.router.arrow import ArrowGate
from moehub.router.balance import drift, imbalance
from moehub.router.gate import Shared
from moehub.router.layer import StackedLinear
from moehub.router.route import Route
from moehub.router.tuned import Decision, Facts, OpenGate, open_gate
from moehub.tuning.material import Rows, batches, learned
from moehub.tuning.settings import TuneConfig

_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


@dataclass(frozen=True)
class Outcome:
    """What came of a tuning."""

    before: float
    """Held-out loss of the MoE as it stood, nats per token."""
    after: float
    """Of the MoE as it is kept; never above `before`."""
    held_out_tokens: int
    tokens: int
    """Learned, in all steps, also those that were not kept."""
    steps: int
    kept: int
    """The step whose state was the best on held-out text; 0: the start."""
    began: dict[str, float]
    """The gate's numbers at the start."""
    numbers: dict[str, float]
    """As they are kept."""
    seconds: float


def tune(opened: Opened, rows: Rows, config: TuneConfig, *, experts: bool = False) -> tuple[Outcome, OpenGate]:
    """Train the gate of a MoE in place, and leave it in its best state on held-out text.

    Args:
        opened: a MoE; its gate is replaced by the one that is returned.
        rows: what to learn from and measure on.
        config: how.
        experts: whether the experts are trained too; the MoE must have been loaded with `trainable=True` then.

    Returns:
        What came of it, and the gate: `closed` makes it the MoE's own, `change` says what was learned.

    Raises:
        RouterError: the MoE's gate cannot be tuned.
        TrainingError: the loss left the finite, or a memory is full.
    """
    started, model = time.monotonic(), opened.model
    gate = model.gate = opened_gate(opened, config)
    model.requires_grad_(requires_grad=False)
    groups = _groups(model, gate, config, experts=experts)
    began, steps = gate.numbers(), rows.steps(config)
    before, held_out_tokens = evaluate_loss(model, rows.held_out)
    parameters = [parameter for group in groups for parameter in group["params"]]
    best = _Best(before, 0, [parameter.detach().clone() for parameter in parameters])
    optimizer = AdamW(groups, weight_decay=config.weight_decay)
    scheduler = get_scheduler(_SCHEDULES[config.schedule], optimizer, int(config.warmup * steps), steps)
    measured = {round(steps * number / config.measurements) for number in range(1, config.measurements + 1)}
    tokens, said = 0, f"held-out {before:.4f}"
    with progress(f"tuning {opened.name}", steps) as advance:
        for step, some in enumerate(batches(rows.training, config, steps), 1):
            loss = _step(model, gate, some, config)
            norm = clip_grad_norm_(parameters, config.clip or math.inf)
            if not math.isfinite(loss) or not bool(torch.isfinite(norm)):
                raise TrainingError(
                    f"the tuning diverged (at step {step} the loss is {loss:.4g} and the gradient's norm {norm:.4g}): "
                    "lower learning_rate, correction_rate or expert_rate, for example by half, and tune again"
                )
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            tokens += learned(some)
            if step in measured:
                now, _ = evaluate_loss(model, rows.held_out)
                said = f"held-out {now:.4f}"
                best = _Best(now, step, [one.detach().clone() for one in parameters]) if now < best.loss else best
            advance(1, note=f"loss {loss:.3f}, {said}")
    with torch.no_grad():
        for parameter, value in zip(parameters, best.state, strict=True):
            parameter.copy_(value).requires_grad_(requires_grad=False)
    numbers, seconds = gate.numbers(), time.monotonic() - started
    return Outcome(before, best.loss, held_out_tokens, tokens, steps, best.step, began, numbers, seconds), gate


def opened_gate(opened: Opened, config: TuneConfig) -> OpenGate:
    """Return the gate of a MoE ready to be learned.

    Raises:
        RouterError: it decides in each layer, or has nothing to decide.
    """
    gate, model = opened.model.gate, opened.model
    if isinstance(gate, ArrowGate):
        raise RouterError(
            "the router 'arrow' decides in each layer from the adapters alone, and has nothing that can be tuned: "
            "merge with --router evidence"
        )
    hidden = model.get_input_embeddings().weight.shape[1] if config.correction else None
    opening = open_gate(gate, hidden=hidden, numbers=config.numbers).to(model.base.device)
    if len(opening.correction.bias) < 2:
        raise RouterError(
            "this MoE has one expert and no null expert, so its gate has nothing to decide: add an expert"
        )
    return opening


def facts(gate: OpenGate, outcome: Outcome, *, experts: bool) -> Facts:
    """Return how a gate came to be what it is, after one more round."""
    before = gate.facts
    return Facts(
        tokens=before.tokens + outcome.tokens,
        rounds=before.rounds + 1,
        loss_before=outcome.before,
        loss_after=outcome.after,
        held_out_tokens=outcome.held_out_tokens,
        experts=before.experts or experts,
    )


@dataclass(frozen=True)
class _Best:
    loss: float
    step: int
    state: list[Tensor]


def _groups(model: Any, gate: OpenGate, config: TuneConfig, *, experts: bool) -> list[dict[str, Any]]:
    """Return what is learned, each kind with its rate."""
    named = gate.learned()
    vectors = [named.pop("weight")] if config.correction and "weight" in named else []
    named.pop("weight", None)
    layers = [layer for layer in model.sparse_layers.values() if isinstance(layer, StackedLinear)] if experts else []
    adapters = [matrix for layer in layers for matrix in (layer.A, layer.B)]
    groups = [
        {"params": list(named.values()), "lr": config.learning_rate},
        {"params": vectors, "lr": config.correction_rate},
        {"params": adapters, "lr": config.expert_rate},
    ]
    for group in groups:
        for parameter in group["params"]:  # type: ignore[attr-defined]
            parameter.requires_grad_(requires_grad=True)
    return [group for group in groups if group["params"]]


def _step(model: Any, gate: OpenGate, rows: Sequence[Row], config: TuneConfig) -> float:
    """Leave the gradients of one step behind, and return its loss in nats per token, without the other two."""
    decision, text_BT = _decide(model, gate, rows)
    weights_BTE = decision.gate.detach().requires_grad_()
    numbers = {id(row): number for number, row in enumerate(rows)}
    total, tokens = 0.0, learned(rows)
    for part in parted(rows, config.part_tokens):
        chosen = [numbers[id(row)] for row in part]
        loss = _loss(model, gate, part, weights_BTE[chosen], config) / tokens
        loss.backward()
        total += float(loss.detach())
    kept_NE = decision.gate[text_BT]
    order = config.balance * imbalance(kept_NE, has_null=gate.has_null)
    order = order + config.z * drift(decision.log_scale[text_BT])
    reached = torch.zeros_like(weights_BTE) if weights_BTE.grad is None else weights_BTE.grad
    torch.autograd.backward([decision.gate, order], [reached, torch.ones_like(order)])
    return total


def _decide(model: Any, gate: OpenGate, rows: Sequence[Row]) -> tuple[Decision, Tensor]:
    """Return the gate of rows, and which of its places are text, bool [B, T]."""
    embed = model.get_input_embeddings()
    ids = collate(rows)["input_ids"].to(embed.weight.device)
    lengths = torch.tensor([len(row.ids) for row in rows], device=ids.device)
    text = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    decision = gate.decide(model.window(ids, text), gate.begin(len(ids), ids.device))
    return decision, text.to(decision.gate.device)


def _loss(model: Any, gate: OpenGate, rows: Sequence[Row], weights: Tensor, config: TuneConfig) -> Tensor:
    """Return the summed loss of rows that are routed by these gate weights [B, ≥ T, E]."""
    device = model.get_input_embeddings().weight.device
    inputs = {name: tensor.to(device) for name, tensor in collate(rows).items()}
    labels = inputs.pop("labels")
    route = Route.select(
        weights[:, : labels.shape[1]].flatten(0, 1),
        top_k=config.top_k or gate.settings.top_k,
        threshold=config.threshold,
        has_null=gate.has_null,
    )
    model.board.routing = Shared(route.to(device))
    try:
        return summed_loss(model.base(**inputs, use_cache=False).logits, labels)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the device has too little memory for this tuning: set a smaller part_tokens, batch_size or context_length"
        ) from error
