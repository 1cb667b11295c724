"""A figure of curves, a panel for each name and a line for each run."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError, printable, require
from .curves import Axis, Curves, smoothed

COLUMNS = 3
SUFFIXES = (".png", ".svg", ".pdf")


def draw(path: Path, every: Sequence[Curves], names: Sequence[str], axis: Axis, smooth: float, log: bool) -> None:
    """Write the figure.

    Args:
        path: path that ends in .png, .svg or .pdf.
        names: names of the curves, in order; each is a panel.
        smooth: weight of the past, see `smoothed`; raw values stay visible behind. Scores are not smoothed.
        log: whether losses have a logarithmic axis, where all are positive.

    Raises:
        UserError: another suffix, or it cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: a figure's name ends in {', '.join(SUFFIXES)}")
    require("matplotlib", "relume plot")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    # A panel for each curve, in it a line for each run; smoothed lines have the raw values behind them.
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    with rc_context({"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "relume"}):
        figure = Figure(figsize=(5.2 * columns, 3.4 * rows + 0.5), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        shown: dict[str, Line2D] = {}
        for panel, name in zip(panels, names, strict=False):
            score = "/" in name
            positive = True
            for i, each in enumerate(every):
                points = each.points.get(name)
                if not points:
                    continue
                colour, style = f"C{i % 10}", ("-", "--", ":", "-.")[i // 10 % 4]
                positive &= all(y > 0 for _, y in points if math.isfinite(y))
                line = points if score or not smooth else smoothed(points, smooth)
                if line is not points:
                    panel.plot(*zip(*points, strict=True), color=colour, alpha=0.25, linewidth=0.8)
                marker = "o" if score or len(points) == 1 else ""
                (drawn,) = panel.plot(
                    *zip(*line, strict=True), color=colour, linestyle=style, marker=marker, markersize=3, linewidth=1.4
                )
                shown.setdefault(label(every, i), drawn)
            panel.set_title(printable(name, 60), fontsize=10)
            panel.set_xlabel(axis, fontsize=9)
            panel.tick_params(labelsize=8)
            panel.grid(alpha=0.3)
            if log and not score and positive:
                panel.set_yscale("log")
        # The places without a curve, the legend, and the file.
        for panel in panels[len(names) :]:
            panel.set_visible(False)
        below = min(len(shown), max(1, 2 * columns))
        figure.legend([*shown.values()], [*shown], loc="outside lower center", ncols=below, fontsize=8, frameon=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
        except OSError as e:
            raise UserError(f"{path}: cannot be written ({e.strerror or e})") from e


def label(every: Sequence[Curves], i: int) -> str:
    """What a run is called: its name, with the folder in front where two have the same."""
    run = every[i].run
    alike = [c for c in every if c.run.name == run.name]
    return printable(run.name if len(alike) == 1 else str(run.root), 60)
