"""Whether every backend computes what `loop` does on a CPU in single precision: outputs and all gradients."""

import torch
from torch import Tensor

from benchmarks.gpu import Run
from benchmarks.gpu.problem import Problem
from moehub.errors import MoehubError
from moehub.router.backends import BACKENDS
from moehub.router.route import Route

_SHAPES = (  # tokens, experts, rank, width
    (1, 8, 16, 4096),
    (16, 64, 16, 4096),
    (300, 5, 8, 520),
    (512, 64, 16, 4096),
    (2048, 4, 64, 1024),
    (33, 128, 16, 2048),
)
_SMALL = ((1, 3, 8, 32), (37, 4, 8, 40))
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest error, as a share of the largest value."""


def faults(run: Run) -> tuple[int, list[str]]:
    """Return how many comparisons were made, and a line for each that failed."""
    made, found = 0, []
    for dtype, tolerance in _TOLERANCE.items():
        for tokens, experts, rank, width in _SMALL if run.small else _SHAPES:
            given = Problem.random(
                tokens=tokens, experts=experts, rank=rank, width=width, zipf=True, dtype=dtype, device=run.device
            )
            case = f"{tokens} tokens, {experts} experts, rank {rank}, width {width}, {dtype}"
            expected = _results("loop", given, torch.device("cpu"), torch.float32)
            for name in run.backends:
                try:
                    errors = _errors(name, given, expected)
                except (RuntimeError, MoehubError) as error:
                    found.append(f"{name}, {case}: {type(error).__name__}: {error}")
                    continue
                made += len(errors)
                bad = [f"{part} is off by {error:.1e}" for part, error in errors.items() if not error <= tolerance]
                found += [f"{name}, {case}: {', '.join(bad)}, allowed {tolerance:.0e} of the largest value"] * bool(bad)
            run.say(f"compared with the CPU: {case}")
    return made, found


def _errors(name: str, given: Problem, expected: dict[str, Tensor]) -> dict[str, float]:
    """Return the largest error of the output, without and with gradients, and of each gradient."""
    actual = _results(name, given, given.x.device, given.x.dtype)
    with torch.no_grad():  # few tokens may go another way then
        actual["output without gradients"] = given.lora(name, given.base())
    expected = {**expected, "output without gradients": expected["output"]}
    return {part: _off(actual[part], value) if part in actual else float("inf") for part, value in expected.items()}


def _off(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest value that was expected."""
    return float((actual.float().cpu() - expected).abs().max() / expected.abs().max().clamp_min(1e-6))


def _results(name: str, given: Problem, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the output and the gradients of a backend on a device."""
    leaves = {
        part: value.detach().to(device, dtype).requires_grad_()
        for part, value in {"x": given.x, "y": given.base(), "A": given.A, "B": given.B}.items()
    }
    leaves["scale"] = given.scale.detach().to(device).requires_grad_()
    leaves["weights"] = given.route.weights.detach().to(device).requires_grad_()
    route = Route(given.route.indices.to(device), leaves["weights"], given.route.experts)
    out = BACKENDS[name](leaves["x"], leaves["y"], route, A=leaves["A"], B=leaves["B"], scale=leaves["scale"])
    probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    (out * probe).sum().backward()
    found = {"output": out.detach()}
    return found | {f"gradient of {part}": leaf.grad for part, leaf in leaves.items() if leaf.grad is not None}
