"""A comparison as the table of a paper: Markdown, LaTeX, CSV. The best of a column is bold, the second underlined."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable

from ..errors import escaped
from ..errors.escaping import Form
from .comparison import Comparison, DataSet
from .files import INPUT


def markdown(comparison: Comparison) -> str:
    """A table for each data set."""
    parts = []
    for data in comparison.sets:
        arrows = {m: "↑" if data.better[m] == "higher" else "↓" for m in columns(data)}
        rows = cells(data, "markdown", "**{}**".format, "<u>{}</u>".format)
        head = ["", *(f"{escaped(m, 'markdown')} {arrows[m]}" for m in columns(data))]
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"{escaped(data.name, 'markdown')}, {size(data)}\n\n{table}\n")
    return "\n".join(parts)


def latex(comparison: Comparison) -> str:
    """A tabular in the booktabs style for each data set."""
    parts = []
    for data in comparison.sets:
        names = columns(data)
        arrows = {m: r"$\uparrow$" if data.better[m] == "higher" else r"$\downarrow$" for m in names}
        rows = cells(data, "latex", r"\textbf{{{}}}".format, r"\underline{{{}}}".format)
        head = ["", *(f"{escaped(m, 'latex')} {arrows[m]}" for m in names)]
        body = [" & ".join(row) + r" \\" for row in rows]
        lines = [f"% {escaped(data.name, 'latex')}, {size(data)}; needs \\usepackage{{booktabs}}"]
        lines += [rf"\begin{{tabular}}{{l{'r' * len(names)}}}", r"\toprule", " & ".join(head) + r" \\", r"\midrule"]
        parts.append("\n".join([*lines, *body, r"\bottomrule", r"\end{tabular}"]) + "\n")
    return "\n".join(parts)


def comma_separated(comparison: Comparison) -> str:
    """A line for each run, data set and metric, unrounded."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    head = ["run", "dataset", "metric", "better", "images", "mean", "std", "difference", "low", "high", "rank"]
    writer.writerow(head)
    for data in comparison.sets:
        for metric in data.metrics:
            for entry, cell in zip(data.entries, data.cells[metric], strict=True):
                figures = [cell.mean, cell.deviation, cell.against.mean, cell.against.low, cell.against.high]
                shown = ["" if math.isnan(f) else repr(f) for f in figures]
                names = [escaped(t, "csv") for t in (entry.label, data.name, metric)]
                about = [*names, data.better[metric], cell.images]
                writer.writerow([*about, *shown, cell.rank or ""])
    return file.getvalue()


def columns(data: DataSet) -> list[str]:
    """The metrics that are columns: the input's scores are a row."""
    return [m for m in data.metrics if not m.endswith(INPUT)] or data.metrics


def size(data: DataSet) -> str:
    """``10 pictures``."""
    return f"{len(data.images)} pictures" if data.images else "means only"


def cells(data: DataSet, form: Form, best: Callable[[str], str], second: Callable[[str], str]) -> list[list[str]]:
    """The rows: the input's, where it was scored, then one for each entry."""
    rows = []
    if any(f"{m}{INPUT}" in data.metrics for m in columns(data)):
        inputs = []
        for metric in columns(data):
            cell = data.cells[f"{metric}{INPUT}"][0] if f"{metric}{INPUT}" in data.metrics else None
            known = cell is not None and not math.isnan(cell.mean)
            inputs.append(f"{cell.mean:.{data.digits(metric)}f}" if cell is not None and known else "-")
        rows.append(["input", *inputs])
    for i, entry in enumerate(data.entries):
        row = [escaped(entry.label, form)]
        for metric in columns(data):
            cell = data.cells[metric][i]
            text = "-" if math.isnan(cell.mean) else f"{cell.mean:.{data.digits(metric)}f}"
            marked = {1: best, 2: second}.get(cell.rank) if len(data.entries) > 1 else None
            row.append(marked(text) if marked else text)
        rows.append(row)
    return rows
