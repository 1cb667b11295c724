"""Curves of runs: losses and scores against iterations, samples or hours."""

from __future__ import annotations

import datetime
import itertools
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..runtime.records import iteration_of
from .files import Run, number

Axis = Literal["iterations", "samples", "hours"]
PAUSE = 60.0
"""Seconds between two records beyond which, if it is also ten times what is usual, a run was stopped in between."""


@dataclass
class Curves:
    """What a run's records say, by name: losses (``l_pix``) and whatever else was logged, scores as ``dataset/metric``.

    Attributes:
        points: points ``(x, y)`` of each curve in order, by name; values that were NaN or infinite are NaN.
    """

    run: Run
    points: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def curves(run: Run, axis: Axis = "iterations") -> Curves:
    """The curves of a run. Samples and hours of an iteration between two records are interpolated."""
    every = list(run.records())
    steps = [e for e in every if "iter" in e and "metrics" not in e]
    places = positions(run, steps, axis)
    found = Curves(run)
    for entry in steps:
        for name, value in entry.items():
            if name in ("iter", "epoch") or name.startswith("perf/"):
                continue
            if name == "lr":
                value = value[0] if isinstance(value, list) and value else None
            if value is None or isinstance(value, (int, float)):
                x = at(places, iteration_of(entry))
                found.points.setdefault(name, []).append((x, number(value)))
    for entry in run.validations:
        for metric, value in entry["metrics"].items():
            x = at(places, entry["iter"])
            found.points.setdefault(f"{entry['dataset']}/{metric}", []).append((x, number(value)))
    return found


def positions(run: Run, steps: Sequence[Mapping[str, Any]], axis: Axis) -> list[tuple[int, float]]:
    """Where iterations are on an axis: ``(iteration, x)``, in order, beginning with 0; empty for the axis of iterations."""
    if axis == "iterations":
        return []
    # Samples: as they were logged, or else as the options say.
    if axis == "samples":
        known = [(iteration_of(s), number(s["perf/samples"])) for s in steps if "perf/samples" in s]
        if known:
            return [(0, 0.0), *known]
        batch = run.options.get("datasets.train.batch_size_per_gpu", "1")
        accumulate = run.options.get("train.accumulate", "1")
        each = int(batch) * int(accumulate) if all(re.fullmatch(r"[0-9]{1,9}", t) for t in (batch, accumulate)) else 1
        return [(0, 0.0), (1, float(each))]
    # Hours: from the moments that were logged, without the pauses between runs.
    times = []
    for step in steps:
        try:
            moment = datetime.datetime.fromisoformat(str(step.get("perf/wall_clock"))).timestamp()
        except (ValueError, OverflowError, OSError):
            continue
        times.append((iteration_of(step), moment))
    gaps = [b[1] - a[1] for a, b in itertools.pairwise(times)]
    usual = statistics.median(gaps) if gaps else 0.0
    first = times[0][0] * number(steps[0].get("perf/time", 0.0)) if times else 0.0
    found, hours = [(0, 0.0)], (0.0 if math.isnan(first) else first) / 3600
    for i, (iteration, _) in enumerate(times):
        if i:
            stopped = gaps[i - 1] > max(PAUSE, 10 * usual)
            hours += max(0.0, usual if stopped else gaps[i - 1]) / 3600
        found.append((iteration, hours))
    return found


def at(places: Sequence[tuple[int, float]], iteration: int) -> float:
    """Where an iteration is: between two known ones, or beyond the last at the pace of the last two."""
    if len(places) < 2:
        return float(iteration)
    for (a, x), (b, y) in itertools.pairwise(places):
        if iteration <= b and b > a:
            return x + (y - x) * (iteration - a) / (b - a)
    (a, x), (b, y) = places[-2:]
    return y if b == a else y + (y - x) * (iteration - b) / (b - a)


def smoothed(points: Sequence[tuple[float, float]], weight: float) -> list[tuple[float, float]]:
    """An exponential moving average, corrected for its beginning as TensorBoard's is; `weight` in [0, 1) is of the past.

    NaN stays NaN and is left out of the average.

    >>> smoothed([(1, 1.0), (2, 3.0)], 0.5)
    [(1, 1.0), (2, 2.3333333333333335)]
    """
    mean, total, found = 0.0, 0.0, []
    for x, y in points:
        if math.isfinite(y):
            mean, total = weight * mean + (1 - weight) * y, weight * total + (1 - weight)
        found.append((x, mean / total if math.isfinite(y) else y))
    return found
