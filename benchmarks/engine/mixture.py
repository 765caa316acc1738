"""Training through the MoE: forward and backward of 4 × 256 tokens, beside the same with one LoRA.

*Experts*: all of them learn, two for every token. *Gate*: its tables learn, experts are only read. The peer is a dense
loop as MoE-PEFT has it: every expert is computed for every token and weighted by the gate, most of them by zero.
A Llama of hidden 1024 with 4 layers, 8 experts of rank 16 on all linears; processor time on one thread.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from benchmarks.engine import Row, interleaved, world
from moehub import base as bases
from moehub.router.route import Route

_EXPERTS, _LAYERS = 8, 4


def measure(turns: int) -> list[Row]:
    """Return a row for each precision and each of experts and gate."""
    torch.set_num_threads(1)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        plain = world.base(dtype, layers=_LAYERS)
        with tempfile.TemporaryDirectory() as folder:
            adapters = world.mapped(world.write_experts(Path(folder), plain, _EXPERTS))
            trained = world.moe(plain, adapters, world.gate(_EXPERTS), trainable=True)
            looped = world.moe(plain, adapters, world.gate(_EXPERTS), trainable=True)
            looped.board.backend = dense_loop
            read = world.moe(plain, adapters, world.gate(_EXPERTS))
            works = {
                "one LoRA": _step(_one_lora(plain), ".lora_"),
                "experts": _step(trained, (".A", ".B")),
                "gate": _step(read, "gate."),
                "dense loop": _step(looped, (".A", ".B")),
            }
            ratios, seconds = interleaved(works, against="one LoRA", turns=turns)
        name, tokens = str(dtype).removeprefix("torch."), 1024 / seconds
        for what in ("experts", "gate"):
            ratio, loop = ratios[what], ratios["dense loop"]
            speed = f"{1 / ratio.median:.2f} [{1 / ratio.most:.2f}, {1 / ratio.least:.2f}]"
            backend = (trained if what == "experts" else read).backend
            others = f"one LoRA {tokens:.0f} tokens/s, dense loop {1 / loop.median:.2f}"
            case = f"{what}, {_EXPERTS} experts, {name}, {backend}"
            rows.append(Row("training through the MoE, speed", case, speed, "≥ 0.80 of one LoRA", others))
    return rows


def dense_loop(x: Tensor, y: Tensor, route: Route, *, A: Tensor, B: Tensor, scale: Tensor) -> Tensor:
    """Compute every expert for every token, one after another."""
    weights = route.dense
    for expert in range(len(A)):
        factor = (weights[:, expert, None] * scale[expert]).to(x.dtype)
        y = y + (x @ A[expert].T) @ B[expert] * factor
    return y


def _step(model: Any, learned: str | tuple[str, ...]) -> Callable[[], object]:
    """Return a forward and a backward in which the parameters of these names learn."""
    marks = (learned,) if isinstance(learned, str) else learned
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(name.startswith(mark) or mark in name for mark in marks))
    ids = world.text(_EXPERTS).rows
    model.train()

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()

    return step


def _one_lora(plain: Any) -> Any:
    targets = list(world.LINEARS)
    with bases.quiet_transformers():
        config = LoraConfig(r=world.RANK, target_modules=targets, task_type="CAUSAL_LM")
        return get_peft_model(world.twin(plain), config, autocast_adapter_dtype=False)
