"""Gates by layer, trained federated: text stays where it is, gates travel.

McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", algorithm 1, on the
gates of `learned`, one a block. In each round everybody takes some steps from the common gates on its own text, and the
results are averaged, weighted by tokens. Whoever averages takes part with public text, as much as one contributor has,
so that the column of nobody is learned from somebody. Local steps are AdamW's, begun anew each round, where the paper
has plain gradient descent. Chosen on the texts for tuning, by trials of one round: the learning rate, and whether all
columns are mixed while training or two. The best round is kept.
"""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from benchmarks.quality import gating, training
from benchmarks.quality.gating import Gates, K
from benchmarks.quality.method import Layered, Method
from benchmarks.quality.training import Learner
from benchmarks.quality.world import World
from moehub.console import Advance, progress
from moehub.experts.packing import IGNORED, Row

RATES = (3e-3, 3e-2)
ROUNDS = 5
LOCAL = 8
"""Steps of everybody in a round."""

State = dict[str, Tensor]


class Client:
    """Somebody with text."""

    def __init__(self, learner: Learner, name: str, rows: Sequence[Row]) -> None:
        self.learner = learner
        self.tokens = sum(int((row.labels != IGNORED).sum()) for row in rows)
        """What its gates weigh in the mean."""
        self._stream: Iterator[list[Row]] = training.batches({name: rows}, f"fedavg {name}", training.OWN_TOKENS)

    def train(self, gates: Gates, k: int, *, rate: float, steps: int, advance: Advance = lambda *_: None) -> State:
        """Return the gates after some steps on the client's own text; those that were given stay."""
        mine = copy.deepcopy(gates)

        def loss(rows: Sequence[Row]) -> Tensor:
            return self.learner.loss(self.learner.pack(rows), gating.by_block(mine, k))

        training.descend(mine, loss, self._stream, rate=rate, steps=steps, advance=advance)
        return mine.state_dict()


def averaged(states: Sequence[State], weights: Sequence[float]) -> State:
    """Return the weighted mean of states."""
    total = sum(weights)
    return {
        name: torch.stack([state[name] * (weight / total) for state, weight in zip(states, weights, strict=True)]).sum(
            0
        )
        for name in states[0]
    }


def one_round(gates: Gates, clients: Sequence[Client], k: int, *, rate: float, advance: Advance) -> None:
    """Let all clients train from the gates, and make these the mean of what comes back."""
    states = [client.train(gates, k, rate=rate, steps=LOCAL, advance=advance) for client in clients]
    gates.load_state_dict(averaged(states, [client.tokens for client in clients]))


def make(world: World) -> Layered:
    """Choose rate and columns, and run the rounds."""
    learner, texts = Learner(world), training.tuning(world)
    columns = len(world.names) + 1
    pool: Mapping[str, list[Row]] = training.pooled(world)

    def begin() -> tuple[Gates, list[Client]]:
        gates = Gates(learner.places, learner.hidden, columns, seed=world.seed)
        return gates, [Client(learner, name, rows) for name, rows in pool.items()]

    def entrant(gates: Gates) -> Layered:
        size = 4 * ROUNDS * sum(one.numel() for one in gates.parameters())
        return Layered(world, lambda _: gating.by_block(gates, K), size)

    settings = list(itertools.product(RATES, (K, columns)))
    found = {}
    with progress("fedavg gates", (len(settings) + ROUNDS) * LOCAL * len(pool)) as advance:
        for rate, k in settings:
            gates, clients = begin()
            one_round(gates, clients, k, rate=rate, advance=advance)
            found[rate, k] = training.tune_loss(texts, entrant(gates))
        rate, k = min(found, key=lambda setting: found[setting])
        gates, clients = begin()
        losses, best = [], copy.deepcopy(gates)
        for _ in range(ROUNDS):
            one_round(gates, clients, k, rate=rate, advance=advance)
            losses.append(training.tune_loss(texts, entrant(gates)))
            best = copy.deepcopy(gates) if losses[-1] == min(losses) else best
    made = entrant(best)
    ended = "still improving" if losses[-1] == min(losses) else "no longer improving"
    made.note = (
        f"rate {rate:g}, {k} columns while training, {ROUNDS} rounds of {LOCAL} steps each; "
        f"tune loss {min(losses):.4f}, {ended}"
    )
    return made


FEDAVG = Method("fedavg gates", "own text, in rounds", False, make)
