"""MetaMoE: a gate trained on public text that stands in for the contributors' own.

Jiang, Chen and Pan 2026, "MetaMoE: Diversity-Aware Proxy Selection for Privacy-Preserving Mixture-of-Experts
Unification". What the abstract leaves open was taken from the authors' published code, not from the paper's formulas.

1. Each contributor trains a classifier of its own text against public text; g_i is its probability that public text i
   is of the contributor. Of the most probable ones a diverse few are its proxies: greedy maximisation of the
   determinant of g_i g_j cos(z_i, z_j), z being the mean of the base's last hidden states.
2. In each block, a row for each expert begins as the mean of what the block reads in the contributor's text and
   proxies.
3. The gate reads (1 − λ) x + λ c, where c is the mean of what the block reads of the text in the base alone (a forward
   of its own), and λ between 0 and 1 is learned, from 0.5. Rows and λ are trained on all proxies.

What is not as there: experts are frozen (the authors train them on proxies too, before and after joining); c is the
mean of the text so far, where theirs is of the whole text, which the next token could be read from; the classifier is
logistic regression on z, where theirs is the model fine-tuned; vectors have root mean square 1 and rows begin at length
1. Public text is what the base was trained on, which holds some of each domain. There is no column of nobody. Chosen on
the texts for tuning: the learning rate, and whether one or two experts answer; two are mixed while training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.quality import gating, training
from benchmarks.quality.gating import Blocks, K, Reading
from benchmarks.quality.method import Batch, Layered, Method
from benchmarks.quality.training import Learner
from benchmarks.quality.world import World
from moehub.console import progress
from moehub.experts.examples import Text
from moehub.experts.packing import Row
from moehub.router.route import Route

RATES = (1e-3, 1e-2)
_PUBLIC = 3_000
"""Public texts that proxies are chosen from."""
_OWN = 128
"""Own texts that a contributor's classifier sees."""
_READ = 128
"""Tokens of a text that it is classified by."""
_LIKELY = 300
_PROXIES = 48
"""For one contributor."""
_TRIAL, _MOST = 30, 250


class ContextGates(nn.Module):
    """For each block, a row for each expert and how much of the context is read."""

    def __init__(self, centres: Sequence[Mapping[str, Tensor]]) -> None:
        """Begin from what each block reads in each contributor's text: block → [D]."""
        super().__init__()
        self._numbers = {place: number for number, place in enumerate(centres[0])}
        self.rows = nn.Parameter(torch.stack([torch.stack([one[place] for one in centres]) for place in centres[0]]))
        self.shares = nn.Parameter(torch.full((len(self._numbers),), 0.5))

    def routing(self, contexts: Mapping[str, Tensor], k: int) -> Blocks:
        """Return the routing of one forward, from each block's context [T, D]."""

        def decide(place: str, x: Tensor) -> Route:
            number = self._numbers[place]
            share = self.shares[number].clamp(0, 1)
            mixed = (1 - share) * gating.rms(x) + share * contexts[place]
            return gating.chosen(mixed @ self.rows[number].T, k, nobody=False)

        return Blocks(decide)


def relevance(own: Tensor, public: Tensor, *, decay: float = 1e-3) -> Tensor:
    """Return how probably each public text [N, D] is of those who wrote `own` [M, D], by logistic regression: [N]."""
    x = torch.cat([own, public]).double()
    centre, spread = x.mean(0), x.std(0).clamp_min(1e-6)
    x = nn.functional.pad((x - centre) / spread, (0, 1), value=1.0)
    y = torch.cat([torch.ones(len(own)), torch.zeros(len(public))]).double()
    balance = torch.cat([y[: len(own)] / len(own), torch.full((len(public),), 1 / len(public), dtype=torch.float64)])
    weights = torch.zeros(x.shape[-1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        each = nn.functional.binary_cross_entropy_with_logits(x @ weights, y, reduction="none")
        loss: Tensor = (each * balance).sum() + decay * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return (x[len(own) :] @ weights.detach()).sigmoid()


def diverse(kernel: Tensor, count: int) -> list[int]:
    """Return items of a kernel [N, N] whose determinant is large, chosen one by one.

    (Chen, Zhang and Zhou 2018, "Fast Greedy MAP Inference for Determinantal Point Process", algorithm 1.)
    """
    kernel = kernel.double()
    left, factors, taken = kernel.diagonal().clone(), kernel.new_zeros(0, len(kernel)), list[int]()
    while len(taken) < min(count, len(kernel)) and float(left.max()) > 1e-10:
        best = int(left.argmax())
        row = (kernel[best] - factors[:, best] @ factors) / left[best].sqrt()
        factors = torch.cat([factors, row[None]])
        left = left - row.square()
        taken.append(best)
        left[taken] = -torch.inf
    return taken


def proxies(own: Tensor, public: Tensor, *, likely: int, count: int) -> list[int]:
    """Return which public texts [N, D] stand in for `own` [M, D]: probable ones, and unlike each other."""
    probable = relevance(own, public)
    first = probable.topk(min(likely, len(public))).indices
    g, z = probable[first], public[first].double()
    return [int(first[one]) for one in diverse(g[:, None] * (z @ z.T) * g[None], count)]


def contexts(inputs: Mapping[str, Tensor], positions: Tensor) -> dict[str, Tensor]:
    """Return the mean of each block's inputs [T, D] over the text so far."""
    return {place: gating.window_mean(x, positions, None) for place, x in inputs.items()}


def entrant(world: World, gates: ContextGates, k: int, size: int = 0) -> Layered:
    """Return what reads each text twice: in the base for its context, then with the experts."""

    def routing(batch: Batch) -> Blocks:
        reading = Reading(len(world.names))
        world.forward(batch.ids, reading.routing, logits_to_keep=1)
        positions = torch.arange(batch.ids.shape[1]).repeat(len(batch.ids))
        return gates.routing(contexts(reading.inputs, positions), k)

    return Layered(world, routing, size)


def make(world: World) -> Layered:
    """Choose proxies, and train the gates on them."""
    learner, texts = Learner(world), training.tuning(world)
    public = training.rows(world, [Text(text[:1600], origin="public") for text in world.texts.base[:_PUBLIC]])[:_PUBLIC]
    seen = learner.embeddings([_cut(row) for row in public], training.TOKENS)
    pool, centres = {}, []
    for name in world.names:
        own = training.own(world, name)[:_OWN]
        mine = learner.embeddings([_cut(row) for row in own], training.TOKENS)
        pool[name] = [public[one] for one in proxies(mine, seen, likely=_LIKELY, count=_PROXIES)]
        centres.append(learner.centres([*own[: _OWN // 2], *pool[name]]))

    gates = ContextGates(centres)

    def loss(some: Sequence[Row]) -> Tensor:
        packed = learner.pack(some)
        return learner.loss(packed, gates.routing(contexts(learner.inputs(packed), packed.positions), K))

    def tune() -> float:
        return training.tune_loss(texts, entrant(world, gates, K))

    rates = {}
    with progress("metamoe gate", len(RATES) * _TRIAL + _MOST) as advance:
        for rate in RATES:
            gates = ContextGates(centres)
            stream = training.batches(pool, f"metamoe {world.seed}", training.TOKENS)
            training.descend(gates, loss, stream, rate=rate, steps=_TRIAL, advance=advance)
            rates[rate] = tune()
        rate = min(rates, key=lambda one: rates[one])
        gates = ContextGates(centres)
        stream = training.batches(pool, f"metamoe {world.seed}", training.TOKENS)
        ended = training.settle(gates, loss, stream, tune, rate=rate, most=_MOST, advance=advance)
    found = {k: training.tune_loss(texts, entrant(world, gates, k)) for k in (1, K)}
    k = min(found, key=lambda one: found[one])
    made = entrant(world, gates, k, 4 * len(learner.places) * learner.hidden + 4 * _PROXIES)
    shares = ", ".join(f"{float(share):.2f}" for share in gates.shares.detach().clamp(0, 1))
    made.note = f"rate {rate:g}, k {k}, λ {shares}; {ended}"
    return made


def _cut(row: Row) -> Row:
    size = min(len(row.ids), _READ)
    return replace(row, ids=row.ids[:size], labels=row.labels[:size], lengths=(size,))


METAMOE = Method("metamoe gate", "own text, public text", False, make)
