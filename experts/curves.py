"""The curves of a training: kept while it runs, written beside the expert, drawn for whoever looks at it.

`training.json` holds, for each stage, `kind` and `curves`: name → list of [step, value]. `training.png` shows them,
where matplotlib is installed.
"""

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moehub import files, plots
from moehub.card import CURVES_FILE, CURVES_PLOT

_NAMES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "accuracy": "accuracy",
    "rewards/accuracies": "accuracy",
    "margin": "margin",
    "rewards/margins": "margin",
    "reward": "reward",
    "kl": "kl",
    "entropy": "entropy",
    "completions/mean_length": "length",
    "clip_ratio/region_mean": "clipped",
}
"""What the trainers log → what it is called here."""
_STATE = "trainer_state.json"
_LATEST = 5
_MOST_POINTS = 400
"""Of a curve that is kept: a page is not wider."""


class Curves:
    """What a training's numbers were, step by step."""

    def __init__(self) -> None:
        self.values: dict[str, list[tuple[int, float]]] = {}
        """Name → (step, value), in order."""

    def note(self, step: int, logs: Mapping[str, Any]) -> dict[str, float]:
        """Keep what was logged after `step` and return it under our names."""
        found = {mine: float(logs[theirs]) for theirs, mine in _NAMES.items() if theirs in logs}
        found |= {
            f"reward {name.split('/')[1]}": float(value)
            for name, value in logs.items()
            if name.startswith("rewards/") and name.endswith("/mean")
        }
        for name, value in found.items():
            points = self.values.setdefault(name, [])
            if math.isfinite(value) and (not points or points[-1][0] < step):
                points.append((step, value))
        return found

    def load(self, checkpoint: Path) -> None:
        """Keep what the trainer logged up to a checkpoint of its own."""
        try:
            state = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        for logs in state.get("log_history", ()):
            self.note(int(logs.get("step", 0)), logs)

    def latest(self, name: str) -> float | None:
        """Return the mean of a curve's last five values, None where there is no such curve."""
        values = [value for _, value in self.values.get(name, ())[-_LATEST:]]
        return sum(values) / len(values) if values else None

    def thinned(self) -> dict[str, list[tuple[int, float]]]:
        """Return each curve with at most 400 points, each the mean of its neighbours, rounded to 6 digits."""
        return {name: _thinned(points) for name, points in self.values.items() if points}


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    width = -(-len(points) // _MOST_POINTS)
    parts = [points[begin : begin + width] for begin in range(0, len(points), width)]
    return [(part[-1][0], float(f"{sum(value for _, value in part) / len(part):.6g}")) for part in parts]


def write(folder: Path, stages: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Write the curves of all stages into an expert's folder, and draw them where that can be done."""
    files.write_text(folder / CURVES_FILE, json.dumps({"stages": list(stages)}, separators=(",", ":")) + "\n")
    if importlib.util.find_spec("matplotlib") is not None:
        draw(folder / CURVES_PLOT, stages, title=title)


def draw(file: Path, stages: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Draw the last stages' curves, of each those that tell most, a panel for each."""
    shown = [
        (str(stage["kind"]), name, stage["curves"][name])
        for stage in stages
        for name in _TELLING.get(str(stage["kind"]), ("loss",))
        if len(stage["curves"].get(name, ())) > 1
    ][-_MOST_PANELS:]
    if not shown:
        return
    size = (2.9 * max(len(shown), 2), 2.7)
    with plots.figure(file, title=title, size=size, panels=len(shown), shared=False) as panels:
        for panel, (kind, name, points) in zip(panels, shown, strict=True):
            plots.curve(panel, points, title=f"{kind}: {name}")


_TELLING = {"dpo": ("accuracy",), "reward": ("accuracy",), "rl": ("reward", "kl")}
"""Stage → its curves that tell more than the loss."""
_MOST_PANELS = 5
