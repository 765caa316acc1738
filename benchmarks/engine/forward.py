"""Prefill and decoding beside the plain base: real routing and uniform random routing, 8 to 256 experts.

A Llama with random weights (hidden 1024, 16 layers, vocabulary 8192), experts of rank 16 on all seven linears, top 2.
*Real*: the default gate from counts of real text, dealt to as many contributors, reading text that nobody counted.
*Uniform*: two random experts for every token. The gate's own work is part of both. Processor time on one thread.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from benchmarks.engine import Row, interleaved, world
from moehub.console import console
from moehub.merge.model import MoehubForCausalLM
from moehub.router.gate import Shared
from moehub.router.route import Route

_GOALS = {"prefill": {"float32": 1.10, "bfloat16": 1.20}, "decode 1": 1.10, "decode 8": 1.25}
_WORKS = {"prefill": 4, "decode 1": 1, "decode 8": 8}
"""Work → rows of the batch."""
_PROMPT, _STEPS = 32, 8


def measure(
    turns: int,
    *,
    experts: Sequence[int] = (8, 64, 256),
    dtypes: Sequence[str] = ("float32", "bfloat16"),
    works: Sequence[str] = tuple(_WORKS),
) -> list[Row]:
    """Return a row for each work, precision, number of experts and routing."""
    torch.set_num_threads(1)
    return [row for dtype in dtypes for row in _of_precision(getattr(torch, dtype), experts, works, turns)]


@torch.no_grad()
def _of_precision(dtype: torch.dtype, experts: Sequence[int], names: Sequence[str], turns: int) -> Iterator[Row]:
    plain = world.base(dtype)
    with tempfile.TemporaryDirectory() as folder:
        files = world.write_experts(Path(folder), plain, max(experts))
        models = {count: world.moe(plain, world.mapped(files[:count]), world.gate(count)) for count in experts}
        for work, batch in ((name, _WORKS[name]) for name in names):
            works: dict[str, Callable[[], object]] = {"base": _work(plain, work, batch)}
            for count, model in models.items():
                works[f"{count} real"] = _work(model, work, batch)
                works[f"{count} uniform"] = _uniform(model, _work(model, work, batch), count)
            ratios, seconds = interleaved(works, against="base", turns=turns)
            goal = _GOALS[work]
            limit = goal[str(dtype).removeprefix("torch.")] if isinstance(goal, dict) else goal
            for name in list(works)[1:]:
                number, routing = name.split()
                case = f"{number} experts, {str(dtype).removeprefix('torch.')}, {routing}"
                yield Row(work, case, str(ratios[name]), f"≤ {limit}", f"base {seconds * 1000:.0f} ms")
                console.print(f"{work}: {case}: {ratios[name]}", markup=False)


def _work(model: Any, work: str, batch: int) -> Callable[[], object]:
    rows = world.text(8).rows
    if work == "prefill":
        return lambda: model(input_ids=rows, use_cache=False, logits_to_keep=1)
    ids = rows.repeat(2, 1)[:batch]
    cache = DynamicCache(config=model.config.get_text_config())
    model(input_ids=ids[:, :_PROMPT], past_key_values=cache, use_cache=True)

    def decode() -> None:
        for step in range(_PROMPT, _PROMPT + _STEPS):
            model(input_ids=ids[:, step : step + 1], past_key_values=cache, use_cache=True)
        cache.crop(-_STEPS)

    return decode


def _uniform(model: MoehubForCausalLM, work: Callable[[], object], experts: int) -> Callable[[], object]:
    """Return the work with every token sent to two random experts, whatever the gate says."""
    generator = torch.Generator().manual_seed(experts)

    def route(filtered: torch.Tensor) -> Shared:
        tokens = filtered.shape[0] * filtered.shape[1]
        indices = torch.rand(tokens, experts, generator=generator).topk(2).indices
        return Shared(Route(indices, torch.full((tokens, 2), 0.5), experts))

    def run() -> None:
        routing = model.gate.routing
        model.gate.routing = route  # type: ignore[method-assign]
        try:
            work()
        finally:
            model.gate.routing = routing  # type: ignore[method-assign]

    return run


def main() -> None:
    """Print the rows of chosen sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--works", nargs="+", choices=list(_WORKS), default=list(_WORKS))
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    measure(options.turns, experts=options.experts, dtypes=options.dtypes, works=options.works)


if __name__ == "__main__":
    main()
