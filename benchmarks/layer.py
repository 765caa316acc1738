"""What the sparse layer and the gate cost beside the plain base.

    python -m benchmarks.layer [--experts 4 16 64] [--dtype float32 bfloat16] [--repeats 5]

A Llama with random weights (hidden 1024, 16 layers, vocabulary 8192), LoRA rank 16 on all seven linears, top 2,
routed by the `evidence` gate whose tables are made from random counts, so that every expert gets tokens. Process
CPU time on one thread; base and MoE take turns in one run, and the figure is the median of the ratios.
"""

import argparse
import platform
import statistics as stats
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from moehub.experts.adapter import Adapter
from moehub.experts.statistics import Statistics
from moehub.merge.stack import stack
from moehub.router.backends import BACKENDS
from moehub.router.gate import PosteriorGate
from moehub.router.layer import Switchboard
from moehub.router.method import NULL, Contributor, parse
from moehub.router.settings import RouterSettings
from moehub.router.window import Window

VOCABULARY, PAIR_BITS, RANK = 8192, 16, 16


def main() -> None:
    """Print one table of ratios for each number of experts and each dtype."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, 1 thread, torch {torch.__version__}; median of {chosen.repeats} [min, max]")
    print("| dtype | experts | work | gate / base | " + " | ".join(f"{name} / base" for name in BACKENDS) + " |")
    print("|---|---|---|---|" + "---|" * len(BACKENDS))
    for dtype in chosen.dtype:
        for experts in chosen.experts:
            _measure(getattr(torch, dtype), experts, chosen.layers, chosen.repeats)


@torch.no_grad()
def _measure(dtype: torch.dtype, experts: int, layers: int, repeats: int) -> None:
    base = _base(dtype, layers)
    board = Switchboard(BACKENDS["loop"])
    stack(base, _adapters(base, experts), board)
    gate = _gate(experts)
    generator = torch.Generator().manual_seed(1)
    works = {"prefill 4 × 256": (4, 256), "decode batch 1": (1, 1), "decode batch 8": (8, 1)}
    for work, (batch, tokens) in works.items():
        ids = torch.randint(VOCABULARY, (batch, tokens), generator=generator)
        inner = 1 if tokens > 1 else 4

        def route(ids: Tensor = ids) -> None:
            state = gate.begin(len(ids), ids.device)
            window = Window(ids, torch.ones_like(ids, dtype=torch.bool), base.get_input_embeddings())
            board.routing = gate.routing(gate(window, state)[0])

        def forward(ids: Tensor = ids) -> None:
            base(input_ids=ids, use_cache=False)

        def plain(forward: Callable[[], None] = forward) -> None:
            board.routing = None
            forward()

        def through(name: str, forward: Callable[[], None] = forward, route: Callable[[], None] = route) -> None:
            board.backend = BACKENDS[name]
            route()
            forward()

        runs = {"gate": route} | {name: lambda name=name: through(name) for name in BACKENDS}
        ratios: dict[str, list[float]] = {name: [] for name in runs}
        for repeat in range(repeats + 1):
            reference = _seconds(plain, inner)
            for name, run in runs.items():
                ratio = _seconds(run, inner) / reference
                if repeat:  # the first round warms up
                    ratios[name].append(ratio)
        cells = [f"{stats.median(one):.3f} [{min(one):.3f}, {max(one):.3f}]" for one in ratios.values()]
        print(f"| {str(dtype).removeprefix('torch.')} | {experts} | {work} | " + " | ".join(cells) + " |", flush=True)


def _base(dtype: torch.dtype, layers: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=16,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def _adapters(base: LlamaForCausalLM, experts: int) -> list[Adapter]:
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    linears = {key: module for key, module in base.named_modules() if key.endswith(names)}
    generator = torch.Generator().manual_seed(2)

    def pair(linear: torch.nn.Module) -> tuple[Tensor, Tensor]:
        d_out, d_in = linear.weight.shape  # type: ignore[misc]
        return (
            torch.randn(RANK, d_in, generator=generator) * 0.02,
            torch.randn(d_out, RANK, generator=generator) * 0.02,
        )

    return [
        Adapter({key: pair(linear) for key, linear in linears.items()}, dict.fromkeys(linears, 2.0))
        for _ in range(experts)
    ]


def _gate(experts: int) -> PosteriorGate:
    generator = torch.Generator().manual_seed(3)

    def counted() -> Statistics:
        unigrams = torch.randint(0, 50, (VOCABULARY,), generator=generator)
        return Statistics("t", unigrams, torch.randint(0, 10, (1 << PAIR_BITS,), generator=generator))

    settings = RouterSettings()
    (method,) = parse("evidence")
    names = [f"{number:03d}" for number in range(experts)]
    tables = method.solve([Contributor(name, counted(), dict) for name in names], counted(), settings)
    return PosteriorGate([method.load(tables, [*names, NULL], settings)], settings, experts=experts, has_null=True)


def _seconds(run: Callable[[], None], inner: int) -> float:
    begin = time.process_time()
    for _ in range(inner):
        run()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
