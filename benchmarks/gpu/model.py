"""A whole Llama of random weights with experts on all linears: prefill and decode, each backend beside the base."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.gpu import STATIC, Budget, Run, Table
from benchmarks.gpu.gate import VOCABULARY, gate
from moehub.router.backends import BACKENDS
from moehub.router.gate import PosteriorGate, Shared
from moehub.router.layer import StackedLinear, Switchboard
from moehub.router.route import Route
from moehub.router.window import Window

EXPERTS, RANK = 64, 16
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_ORDER = ("triton", "gather", "dense", "grouped", "megablocks", "loop")
"""What is measured first: `loop` is the slowest by far."""


def works(run: Run) -> dict[str, Tensor]:
    """Return token ids [batch, tokens] for each work."""
    generator = torch.Generator().manual_seed(1)
    sizes = {"decode, batch 1": (1, 1), "decode, batch 8": (8, 1), "prefill 4 × 2048": (4, 2048)}
    if run.small:
        sizes |= {"decode, batch 8": (2, 1), "prefill 4 × 2048": (1, 3)}
    return {name: torch.randint(VOCABULARY, size, generator=generator).to(run.device) for name, size in sizes.items()}


def llama(run: Run) -> LlamaForCausalLM:
    """Return a base of 3 billion random weights in bfloat16, or a tiny one."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64 if run.small else 3072,
        intermediate_size=96 if run.small else 8192,
        num_hidden_layers=1 if run.small else 28,
        num_attention_heads=4 if run.small else 24,
        num_key_value_heads=2 if run.small else 8,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with run.device:
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


@torch.no_grad()
def measure(run: Run, budget: Budget) -> Table:
    """Return how many times the seconds of the base the MoE takes, the gate's decision included, and the gate alone."""
    names = [name for name in _ORDER if name in run.backends]
    experts = 3 if run.small else EXPERTS
    base = llama(run)
    board = sparse(base, experts)
    chooser = gate(experts).to(run.device)
    table = Table(("work", "base, ms", "gate alone", *names))
    table.notes.append(f"{base.num_parameters() / 1e9:.2f}·10⁹ weights, those of {experts} experts of rank {RANK} too.")
    for work, ids in works(run).items():
        if budget.spent():
            table.notes.append(f"Out of time before {work}.")
            break
        lines = _lines(run, base, board, chooser, names, work, ids)
        table.rows += lines
        for line in lines:
            run.say(" | ".join(line))
    return table


def sparse(base: LlamaForCausalLM, experts: int) -> Switchboard:
    """Put random experts beside every linear of a base, and return what switches them."""
    board = Switchboard(BACKENDS["loop"])
    for key, linear in list(base.named_modules()):
        if not key.endswith(LINEARS):
            continue
        d_out, d_in = linear.weight.shape
        like = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        A, B = (torch.randn(experts, RANK, width, **like) * 0.02 for width in (d_in, d_out))
        scale = torch.full((experts,), 2.0, device=linear.weight.device)
        parent, _, name = key.rpartition(".")
        layer = StackedLinear(linear, key=key, A=A, B=B, scale=scale, board=board)
        setattr(base.get_submodule(parent), name, layer)
    return board


def _lines(
    run: Run,
    base: LlamaForCausalLM,
    board: Switchboard,
    chooser: PosteriorGate,
    names: list[str],
    work: str,
    ids: Tensor,
) -> list[tuple[str, ...]]:
    """Return the line of a work, and for decoding a second one of CUDA graphs where there are any."""

    def decide() -> Route:
        window = Window(ids, torch.ones_like(ids, dtype=torch.bool), base.get_input_embeddings())
        board.routing = routing = chooser.routing(chooser(window, chooser.begin(len(ids), ids.device))[0])
        return routing.shared

    def forward() -> object:
        return base(input_ids=ids, use_cache=False, logits_to_keep=1)

    def whole() -> object:
        decide()
        return forward()

    board.routing = None
    plain = run.timer.time(forward)
    cells = [run.timer.time(decide).over(plain)]
    for name in names:
        board.backend = BACKENDS[name]
        cells.append(run.timer.time(whole).over(plain))
    lines = [(work, f"{plain.median * 1e3:.2f}", *cells)]
    if ids.shape[1] == 1:
        lines += _graph_line(run, board, decide(), forward, names, work)
    return lines


def _graph_line(
    run: Run, board: Switchboard, route: Route, forward: Callable[[], object], names: list[str], work: str
) -> list[tuple[str, ...]]:
    """Return the line of a work whose route was decided before and whose forward is one CUDA graph."""

    def through(backend: str | None) -> object:
        board.routing = None if backend is None else Shared(route)
        board.backend = BACKENDS[backend or "loop"]
        return forward()

    plain = run.timer.captured(partial(through, None))
    if plain is None:
        return []
    base, cells = run.timer.time(plain), []
    for name in names:
        captured = run.timer.captured(partial(through, name)) if name in STATIC else None
        cells.append("–" if captured is None else run.timer.time(captured).over(base))
    return [(f"{work}, graph, without the gate", f"{base.median * 1e3:.2f}", "–", *cells)]
