"""How far malicious nodes turn the aggregated adapter away from the true one.

    python -m benchmarks.federation attack [--steps 20] [--seed 0] [--write]

Ten nodes train one round of a small Llama with random weights on real text of this machine: Python's standard
library, dealt out at random (IID), or two nodes each of Python, C++, licences, JSON and prose (non-IID). Then 0, 2 or 4
of them lie, and each aggregation makes an adapter of the ten replies. The cosine is that between its change of the
products B·A and the mean change of the honest nodes, over all linears.

flip     −100 times the node's own change
noise    normal noise of the same norm as the node's own change
collude  all send the honest nodes' mean − 1.5 standard deviations ("A Little Is Enough", Baruch et al. 2019)

A reply with NaN is refused before aggregation, as is one of more than ten times the median norm: here there are none of
the first kind, and those of the second are let through.
"""

import argparse
import dataclasses
import itertools
import logging
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.federation import where
from benchmarks.road import keep
from moehub.console import console, results
from moehub.experts.settings import TrainConfig
from moehub.federation.aggregation import Update, aggregate
from moehub.federation.settings import FederationConfig
from moehub.federation.weights import A, B, Weights, initial, trained

Attack: TypeAlias = Callable[[int, Weights, Weights, Sequence[Weights]], Weights]
"""Node, start, its own reply, all honest replies → what it sends."""

NODES, MALICIOUS = 10, 3
"""krum withstands at most 3 of 10."""
DEVIATIONS = 1.5
METHODS: dict[str, dict[str, Any]] = {
    "fedavg, no clip": {"aggregation": "fedavg", "clip": False},
    "fedavg": {"aggregation": "fedavg"},
    "ffa, no clip": {"aggregation": "ffa", "clip": False},
    "ffa": {"aggregation": "ffa"},
    "product, no clip": {"aggregation": "product", "clip": False},
    "product": {"aggregation": "product"},
    "median": {"aggregation": "median"},
    "trimmed (3)": {"aggregation": "trimmed"},
    "trimmed (4)": {"aggregation": "trimmed", "malicious": 4},
    "krum (3)": {"aggregation": "krum"},
    "multikrum (3)": {"aggregation": "multikrum"},
}
"""Label → what differs from the defaults; in brackets, how many malicious nodes the method is told to withstand."""
_TRAIN = TrainConfig(
    rank=4, alpha=8, learning_rate=2e-3, warmup=0.0, context_length=128, batch_size=4, holdout=0.0, dtype="float32"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the honest nodes, attack, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of each node")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    options = parser.parse_args(arguments)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    train = dataclasses.replace(_TRAIN, max_steps=options.steps, seed=options.seed)
    sections = []
    for title, texts in (("IID", _alike(options.seed)), ("non-IID", _apart())):
        rows = _rows(train, texts, title)
        results.print(_table(title, rows))
        sections.append(f"{title}:\n\n{_markdown(rows)}")
    if options.write:
        keep("The federation under attack", "\n\n".join([_how(options.steps), where(), *sections]))


def flip(node: int, start: Weights, own: Weights, honest: Sequence[Weights]) -> Weights:  # noqa: ARG001 (an Attack)
    """Turn the own change around, a hundred times as large; of A and B one factor is turned."""
    return {name: start[name] - 100 * (each - start[name]) if name.endswith(B) else each for name, each in own.items()}


def noise(node: int, start: Weights, own: Weights, honest: Sequence[Weights]) -> Weights:  # noqa: ARG001 (an Attack)
    """Send normal noise as long as the own change, tensor by tensor."""
    draw = np.random.default_rng(node)
    drawn = {name: draw.normal(size=each.shape) for name, each in own.items()}
    return {
        name: (
            start[name] + drawn[name] * (np.linalg.norm(own[name] - start[name]) / np.linalg.norm(drawn[name]))
        ).astype(np.float32)
        for name in own
    }


def collude(node: int, start: Weights, own: Weights, honest: Sequence[Weights]) -> Weights:  # noqa: ARG001 (an Attack)
    """Send what is within the honest nodes' spread, all the same."""
    stacked = {name: np.stack([each[name] for each in honest]) for name in own}
    return {name: each.mean(axis=0) - np.float32(DEVIATIONS) * each.std(axis=0) for name, each in stacked.items()}


ATTACKS: dict[str, Attack] = {"flip": flip, "noise": noise, "collude": collude}
COLUMNS: tuple[tuple[int, str], ...] = ((0, ""), *itertools.product((2, 4), ATTACKS))


def measure(settings: FederationConfig, first: Weights, replies: Sequence[Weights], liars: int, attack: str) -> float:
    """Return the cosine between what the aggregation changes and what the honest nodes change; the first nodes lie.

    `first` is the whole adapter that the round began with, `replies` are what honest nodes send.
    """
    start, honest = trained(first, frozen_a=settings.frozen_a), replies[liars:]
    sent = [ATTACKS[attack](node, start, replies[node], honest) for node in range(liars)]
    updates = [Update(f"node-{node}", 100, lambda each=each: each) for node, each in enumerate([*sent, *honest])]  # type: ignore[misc]
    found = aggregate(settings, start, updates, round=1).weights
    truth = np.mean([_change(first, each) for each in honest], axis=0)
    changed = _change(first, found)
    return float(truth @ changed / np.linalg.norm(truth) / np.linalg.norm(changed))


def _change(first: Weights, weights: Weights) -> NDArray[np.float64]:
    """Return the change of B·A of all linears, in one row."""
    after = {**first, **weights}
    return np.concatenate(
        [(_product(after, name) - _product(first, name)).ravel() for name in first if name.endswith(A)]
    )


def _product(weights: Weights, a: str) -> NDArray[np.float64]:
    return weights[a.removesuffix(A) + B].astype(np.float64) @ weights[a].astype(np.float64)


def _rows(train: TrainConfig, texts: Sequence[str], title: str) -> dict[str, list[float]]:
    """Return method → cosines in the order of `COLUMNS`."""
    first, frozen, free = _replies(train, texts, title)
    kept = dataclasses.replace(train, max_steps=None)
    rows = {}
    for label, changes in METHODS.items():
        settings = FederationConfig(**{"base": "tiny", "train": kept, "malicious": MALICIOUS, **changes})
        replies = frozen if settings.frozen_a else free
        rows[label] = [measure(settings, first, replies, liars, attack) for liars, attack in COLUMNS]
    return rows


def _replies(train: TrainConfig, texts: Sequence[str], title: str) -> tuple[Weights, list[Weights], list[Weights]]:
    """Return the first adapter, and what the nodes send with A frozen and with both factors trained."""
    from moehub import base as bases
    from tests.builders import tiny_base

    with tempfile.TemporaryDirectory() as folder:
        with bases.quiet_transformers():
            base = bases.find(str(tiny_base(Path(folder) / "base")))
        frozen, free = [], []
        for node, text in enumerate(texts):
            console.print(f"{title}: node {node + 1} of {len(texts)} trains")
            frozen.append(_train(base, train, text, Path(folder), frozen_a=True))
            free.append(_train(base, train, text, Path(folder), frozen_a=False))
    shapes = {name: each.shape for name, each in free[0].items()}
    return initial(shapes, train.seed), frozen, free


def _train(base: Any, train: TrainConfig, text: str, folder: Path, *, frozen_a: bool) -> Weights:
    """Return what one node sends after its round."""
    import torch
    from peft import set_peft_model_state_dict

    from moehub.experts import adaptation, loop
    from moehub.experts.examples import Text
    from moehub.experts.material import prepare

    with adaptation.quiet():
        material = prepare(base.load_tokenizer(), [Text(text)], train, longest=256)
        model = adaptation.adapt(adaptation.load(base, train), train)
        shapes = {name: tuple(each.shape) for name, each in adaptation.state(model).items()}
        begin = {name: torch.from_numpy(each) for name, each in initial(shapes, train.seed).items()}  # type: ignore[arg-type]
        set_peft_model_state_dict(model, begin)
        for name, parameter in model.named_parameters():
            if frozen_a and "lora_A" in name:
                parameter.requires_grad = False
        console.quiet = True
        try:
            loop.run(model, material.rows()[0], train, loop.arguments(folder / "run", train), title="a node")
        finally:
            console.quiet = False
        return trained({name: each.numpy() for name, each in adaptation.state(model).items()}, frozen_a=frozen_a)


def _alike(seed: int, length: int = 12_000) -> list[str]:
    """Return ten texts of Python sources, dealt out at random."""
    from moehub.demo import sources

    pieces = list(_pieces(sources.python(), NODES * length))
    random.Random(seed).shuffle(pieces)  # noqa: S311 (a deal of texts)
    return ["".join(pieces[node::NODES]) for node in range(NODES)]


def _apart(length: int = 12_000) -> list[str]:
    """Return ten texts, two of each kind."""
    from moehub.demo import sources

    kinds = [sources.python, sources.cpp, sources.legal, sources.json, sources.generic]
    halves = [("".join(_pieces(kind(), 2 * length)), half) for half in range(2) for kind in kinds]
    return [text[half * length : (half + 1) * length] for text, half in halves]


def _pieces(documents: Iterator[str], length: int, piece: int = 400) -> Iterator[str]:
    """Yield stretches of the documents until `length` characters are read."""
    read = 0
    for document in documents:
        for begin in range(0, len(document), piece):
            yield document[begin : begin + piece]
            read += min(piece, len(document) - begin)
            if read >= length:
                return


def _table(title: str, rows: dict[str, list[float]]) -> Table:
    table = Table(title=f"Cosine to the true update, {title}, {NODES} nodes")
    table.add_column("aggregation")
    for liars, attack in COLUMNS:
        table.add_column(f"{liars} lie\n{attack}" if attack else "none\nlies", justify="right")
    for label, cosines in rows.items():
        table.add_row(label, *(f"[{_colour(each)}]{each:.2f}[/]" for each in cosines))
    return table


def _colour(cosine: float) -> str:
    return "green" if cosine > 0.9 else "yellow" if cosine > 0.5 else "red"


def _markdown(rows: dict[str, list[float]]) -> str:
    head = " | ".join(f"{liars} lie: {attack}" if attack else "none lies" for liars, attack in COLUMNS)
    lines = [f"| {label} | {' | '.join(f'{each:.2f}' for each in cosines)} |" for label, cosines in rows.items()]
    return "\n".join([f"| aggregation | {head} |", f"|---|{'---:|' * len(COLUMNS)}", *lines])


def _how(steps: int) -> str:
    return (
        "`python -m benchmarks.federation attack --write`: cosine between the change that an aggregation makes and the "
        f"honest nodes' mean change, {NODES} nodes, one round of {steps} real optimizer steps from the first adapter, "
        "one seed. In brackets: how many malicious nodes the method is told to withstand (krum: 3 of 10 at most). "
        "flip: −100 times the own change; noise: normal, of the own change's norm; collude: the mean − 1.5 standard "
        "deviations. Replies with NaN, or of more than ten times the median norm, are refused before aggregation; here "
        "the second kind is let through."
    )


if __name__ == "__main__":
    main()
