"""Watching a training: its bar, its curves, its checkpoints, and the signs that it goes astray."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from transformers import TrainerCallback

from moehub.console import Advance
from moehub.experts import checkpoints
from moehub.experts.checkpoints import Checkpoint
from moehub.experts.curves import Curves
from moehub.experts.publication import diverged

OnStep: TypeAlias = Callable[[int, float], None]
"""Called after each optimizer step as `on_step(step, loss)`; the loss is in nats per token."""
Guard: TypeAlias = Callable[[int, Mapping[str, float]], None]
"""Called as `guard(step, values)`, under the names of `Curves`; raises a `TrainingError` to end the training."""


class Watch(TrainerCallback):
    """Moves the bar, keeps the curves, stops a training that diverges, and marks checkpoints that are whole."""

    trainer: Any
    """A trainer that counts the tokens it learned in `learned`."""

    def __init__(
        self,
        advance: Advance,
        since: Checkpoint | None,
        *,
        on_step: OnStep | None = None,
        curves: Curves | None = None,
        guard: Guard | None = None,
        step_tokens: float = 0.0,
    ) -> None:
        """Watch a training that goes on from `since`, where there is such a checkpoint.

        Args:
            advance: moves the bar.
            since: where it goes on from.
            on_step: whom to tell.
            curves: where the numbers are kept.
            guard: may end the training.
            step_tokens: what a step reads, for the speed that is shown; 0 counts what is learned instead.
        """
        self.advance, self.on_step, self.since, self.guard = advance, on_step, since, guard
        self.step_tokens = step_tokens
        self.curves = curves if curves is not None else Curves()
        self.started = time.monotonic()
        self.first, self.nats = (since.step, since.nats) if since is not None else (0, 0.0)
        self.logged = 0
        if since is not None:
            self.curves.load(since.path)
            advance(self.first, note="resumed")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:  # noqa: ARG002
        """Take in what the trainer says after a step.

        Raises:
            TrainingError: the training diverged, or a guard ends it.
        """
        if not logs or "loss" not in logs:
            return
        loss, norm = float(logs["loss"]), float(logs.get("grad_norm", 0))
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise diverged(f"at step {state.global_step} the loss is {loss:.4g} and the gradient's norm {norm:.4g}")
        self.nats += loss * (self.trainer.learned - self.logged)
        self.logged = self.trainer.learned
        values = self.curves.note(state.global_step, logs)
        if self.guard is not None:
            self.guard(state.global_step, values)
        self.advance(1, note=f"{_said(values)}, {self._speed(state.global_step):,.0f} tokens/s")
        if self.on_step is not None:
            self.on_step(state.global_step, loss)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Mark the checkpoint that was just written."""
        if args.should_save:
            now = self.now(state.global_step)
            checkpoints.mark(now.path, step=now.step, tokens=now.tokens, seconds=now.seconds, nats=now.nats)

    def now(self, step: int) -> Checkpoint:
        """Return where the training stands."""
        before = self.since or Checkpoint(Path(), 0, 0, 0.0)
        return Checkpoint(
            Path(str(self.trainer.args.output_dir)) / f"checkpoint-{step}",
            step,
            before.tokens + self.trainer.learned,
            round(before.seconds + time.monotonic() - self.started, 3),
            self.nats,
        )

    def _speed(self, step: int) -> float:
        """Return tokens a second."""
        tokens = (step - self.first) * self.step_tokens if self.step_tokens else self.trainer.learned
        return float(tokens) / max(time.monotonic() - self.started, 1e-9)


def _said(values: Mapping[str, float]) -> str:
    """Return what is shown beside the bar."""
    shown = [name for name in ("reward", "kl", "accuracy") if name in values]
    return ", ".join(f"{name} {values[name]:.3f}" for name in shown or ["loss"])
