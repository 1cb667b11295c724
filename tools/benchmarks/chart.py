"""A chart of a kept measurement: how many times faster than its peer each row is."""

from __future__ import annotations

from pathlib import Path

from relume.core.errors import UserError, require

BEHIND, AHEAD = "#b46a5c", "#4678a8"


def draw_gains(gains: dict[str, float], path: Path) -> None:
    """Write a bar for each time among `gains`, the largest first; rows of memory are left out.

    Raises:
        UserError: there is no such row, matplotlib is missing, or the file cannot be written.
    """
    bars = sorted(((times, what) for what, times in gains.items() if " peak" not in what), reverse=True)
    if not bars:
        raise UserError(f"{path}: there is nothing to draw, for no time was kept")
    require("matplotlib", "the benchmark's --draw")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1 + 0.27 * len(bars)), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for place, (times, _) in enumerate(bars):
        panel.barh(place, times, color=AHEAD if times >= 1 else BEHIND)
        panel.text(times + 0.02, place, f"{times:.2f} x", va="center", fontsize=8)
    panel.axvline(1, color="black", linewidth=1)
    panel.set_yticks(range(len(bars)), [what for _, what in bars], fontsize=8)
    panel.invert_yaxis()
    panel.margins(x=0.1)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_xlabel("times faster than the peer of the same run (one CPU thread)", fontsize=9)
    try:
        figure.savefig(path, dpi=100)
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: cannot be written ({e})") from e
