"""Figures in one style: the only module that knows matplotlib, which must be installed only where something is drawn.

A figure is one row of panels, drawn without a window, and its file appears whole or not at all. Equal figures are
equal bytes.
"""

import contextlib
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from moehub import files
from moehub.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, RED, GREY = "#0072b2", "#d55e00", "#9a9a9a"
"""Of Okabe and Ito's palette, told apart by colour-blind people too."""
ENDINGS = (".png", ".svg")
_INK, _SOFT, _FAINT = "#222222", "#666666", "#e3e3e3"
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # it comes with matplotlib, so that a figure is the same on every machine
    "font.size": 9,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.labelcolor": _INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "grid.color": _FAINT,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "svg.hashsalt": "moehub",
}
_DOTS_PER_INCH = 150
_NOTE_PER_INCH = 17
"""Characters of a note."""
_LONGEST = 28
"""Characters of a name beside a bar."""


def require(file: Path) -> Path:
    """Return `file` if a figure can be written there; to be asked before the work whose figure it will be.

    Raises:
        ConfigError: it is neither PNG nor SVG by its name, or matplotlib is not installed.
    """
    if file.suffix.lower() not in ENDINGS:
        raise ConfigError(f"{file} is no name for a figure, expected one that ends in {' or '.join(ENDINGS)}")
    _library()
    return file


@contextlib.contextmanager
def figure(
    file: Path, *, title: str, size: tuple[float, float], panels: int = 1, note: str = "", shared: bool = True
) -> Iterator[list["Axes"]]:
    """Yield the panels of a figure to draw on; it is written to `file` when the block ends without an error.

    Args:
        file: ends in one of `ENDINGS`.
        title: stands above all panels.
        size: width and height, inches.
        panels: beside each other.
        note: stands below, in small letters.
        shared: whether they have one vertical axis.

    Raises:
        ConfigError: as `require`.
    """
    require(file)
    with _library().rc_context(_STYLE):
        from matplotlib.figure import Figure

        drawn = Figure(size, dpi=_DOTS_PER_INCH, layout="constrained")
        drawn.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        if note:
            wrapped = textwrap.fill(note, int(size[0] * _NOTE_PER_INCH))
            drawn.supxlabel(wrapped, x=0.01, ha="left", fontsize=7.5, color=_SOFT)
        yield list(drawn.subplots(1, panels, sharey=shared, squeeze=False)[0])
        kind = file.suffix.lower()[1:]
        with files.new_file(file) as temporary:
            drawn.savefig(temporary, format=kind, metadata={"Software": None} if kind == "png" else {"Date": None})


def bars(
    panel: "Axes",
    names: Sequence[str],
    values: Sequence[float | None],
    *,
    title: str,
    form: str = "{:.2f}",
    colours: Sequence[str] | None = None,
) -> None:
    """Draw one horizontal bar for each name, the first on top, with its value beside it.

    Args:
        panel: where.
        names: what the bars stand for.
        values: their lengths; below 0 to the left, None: no bar.
        title: what is measured, with its unit.
        form: how a value is written.
        colours: of each bar; `BLUE` for all where they are not given, `RED` below 0.
    """
    places = range(len(names))
    lengths = [value or 0.0 for value in values]
    chosen = colours or [RED if length < 0 else BLUE for length in lengths]
    drawn = panel.barh(places, lengths, height=0.72, color=chosen)
    said = ["" if value is None else form.format(value) for value in values]
    panel.bar_label(drawn, said, padding=3, fontsize=8)
    panel.set_yticks(places, [_short(name) for name in names])
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.set_title(title)
    panel.grid(visible=False, axis="y")
    panel.tick_params(axis="y", length=0)
    panel.axvline(0, color=GREY, linewidth=0.8)
    panel.spines["left"].set_visible(False)
    # Room for the values beside the bars.
    panel.margins(x=0.22)


def curve(panel: "Axes", points: Sequence[tuple[float, float]], *, title: str) -> None:
    """Draw values over steps, thin, and their running mean over a tenth of them, thick.

    Args:
        panel: where.
        points: (step, value), in order.
        title: what is measured, with its unit.
    """
    steps, values = zip(*points, strict=True)
    width = max(1, len(points) // 10)
    means = [sum(part) / len(part) for end in range(1, len(values) + 1) if (part := values[max(0, end - width) : end])]
    panel.plot(steps, values, color=BLUE, alpha=0.35, linewidth=0.8)
    panel.plot(steps, means, color=BLUE, linewidth=1.6)
    panel.set_title(title)
    panel.set_xlabel("step")


def dots(
    panel: "Axes",
    names: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    *,
    title: str,
    form: str = "{:.2f}",
) -> None:
    """Draw one dot for each name, the first on top, on the line of its interval, with its value above.

    Args:
        panel: where.
        names: what the dots stand for.
        values: where they are.
        intervals: lower and upper end of each.
        title: what is measured, with its unit.
        form: how a value is written.
    """
    places = range(len(names))
    panel.hlines(places, [low for low, _ in intervals], [high for _, high in intervals], color=BLUE, linewidth=1.4)
    panel.plot(values, places, "o", color=BLUE, markersize=5)
    for place, value in zip(places, values, strict=True):
        panel.annotate(form.format(value), (value, place), (0, 5), textcoords="offset points", ha="center", fontsize=8)
    panel.set_yticks(places, [_short(name) for name in names])
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.set_title(title)
    panel.grid(visible=False, axis="y")
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.margins(x=0.1)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _library() -> ModuleType:
    """Return matplotlib.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ConfigError(
            f"a figure needs matplotlib, which is not installed ({error}): run `pip install 'moehub[plot]'`"
        ) from error
    return mpl
