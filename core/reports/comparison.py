"""What several runs scored on the same pictures: the numbers of ``relume compare``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import UserError, listing
from ..runtime import lock
from .files import INPUT, Direction, Run, number
from .statistics import Interval, bootstrap, decimals

Rows = Mapping[str, Mapping[str, Any]]
"""The row of each image."""


@dataclass
class Compared:
    """One run, or one folder of pictures.

    Attributes:
        label: what it is called here.
        rows: scores of each image, by data set and image; empty where only means are known.
        means: mean scores, by data set and metric.
    """

    label: str
    run: Run
    rows: Mapping[str, Rows]
    means: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Cell:
    """One score of the table.

    Attributes:
        mean, deviation: mean and standard deviation (the sample's) over the pictures that all have.
        images: how many those are; 0 where only the run's own mean is known.
        against: the mean difference to the first entry and its interval; NaN for the first itself.
        rank: 1 for the best; equal means have equal ranks.
    """

    mean: float
    deviation: float
    images: int
    against: Interval
    rank: int


NOTHING = Interval(math.nan, math.nan, math.nan)


@dataclass
class DataSet:
    """What all entries have of one data set.

    Attributes:
        images: images that every entry with scores per picture has, in the first one's order.
    """

    name: str
    entries: Sequence[Compared]
    images: list[str]
    metrics: list[str]
    better: dict[str, Direction]

    def values(self, entry: Compared, metric: str) -> np.ndarray:
        """Scores of `images`, NaN where there is none."""
        rows = entry.rows.get(self.name, {})
        return np.array([number(rows.get(i, {}).get(metric)) for i in self.images], np.float64)

    @cached_property
    def cells(self) -> dict[str, list[Cell]]:
        """By metric, a cell for each entry."""
        return {metric: self._column(metric) for metric in self.metrics}

    def _column(self, metric: str) -> list[Cell]:
        columns = [self.values(e, metric) for e in self.entries]
        detailed = [bool(np.isfinite(c).any()) for c in columns]
        shared = np.ones(len(self.images), bool)
        for column, known in zip(columns, detailed, strict=True):
            shared &= np.isfinite(column) if known else True
        first = columns[0][shared] if detailed[0] else None
        found = []
        for i, (entry, column, known) in enumerate(zip(self.entries, columns, detailed, strict=True)):
            if not known:
                mean = entry.means.get(self.name, {}).get(metric, math.nan)
                found.append((mean, math.nan, 0, NOTHING))
                continue
            own = column[shared]
            against = bootstrap(own - first) if i and first is not None else NOTHING
            deviation = float(own.std(ddof=1)) if len(own) > 1 else math.nan
            mean = float(own.mean()) if len(own) else math.nan
            found.append((mean, deviation, len(own), against))
        sign = -1 if self.better[metric] == "higher" else 1
        order = sorted({sign * f[0] for f in found if not math.isnan(f[0])})
        return [Cell(*f, rank=order.index(sign * f[0]) + 1 if not math.isnan(f[0]) else 0) for f in found]

    def digits(self, metric: str) -> int:
        """Decimals that the differences' intervals in a column leave meaning to."""
        cells = self.cells[metric]
        return decimals([c.against.half for c in cells], [c.mean for c in cells])


@dataclass
class Comparison:
    """Several entries on one or more data sets; `notes` say what was left out and why."""

    entries: list[Compared]
    sets: list[DataSet]
    notes: list[str] = field(default_factory=list)


def entry_of(run: Run, label: str, notes: list[str]) -> Compared | None:
    """A run's scores; None, and a note, if it has none."""
    rows, means = run.scores(), run.means
    if (owner := lock.owner(run.root)) is not None:
        at = max((v["iter"] for v in run.validations), default=0)
        notes.append(f"{label}: is still running ({owner.host}); its scores are those of iteration {at:,}")
    notes += run.broken
    if not rows and not means:
        notes.append(f"{label}: has no scores yet, and is left out")
        return None
    if not rows:
        notes.append(
            f"{label}: has no scores per picture (visualization/*_scores.jsonl), so only its means are compared"
        )
    return Compared(label, run, rows, means)


def compared(entries: list[Compared], notes: list[str]) -> Comparison:
    """Bring entries together on the data sets and pictures that they share.

    Raises:
        UserError: no entry, no data set that all have, or no picture of it.
    """
    if not entries:
        raise UserError(f"there is nothing to compare: {'; '.join(notes) or 'no run was given'}")
    every = list(dict.fromkeys(d for e in entries for d in (*e.rows, *e.means)))
    shared = [d for d in every if all(d in e.rows or d in e.means for e in entries)]
    if not shared:
        said = "; ".join(f"{e.label}: {', '.join(dict.fromkeys([*e.rows, *e.means]))}" for e in entries)
        raise UserError(f"no data set has been scored by all: {said}")
    for name in (d for d in every if d not in shared):
        having = [e.label for e in entries if name in e.rows or name in e.means]
        notes.append(f"{name}: only {listing(having)} scored this data set, which is left out")
    sets = [together(name, entries, notes) for name in shared]
    return Comparison(entries, sets, notes)


def together(name: str, entries: list[Compared], notes: list[str]) -> DataSet:
    """One data set.

    Raises:
        UserError: entries with scores per picture have none in common, or no metric.
    """
    # Pictures that all runs have scored.
    detailed = [e for e in entries if e.rows.get(name)]
    images = [i for i in (detailed[0].rows[name] if detailed else ()) if all(i in e.rows[name] for e in detailed)]
    if detailed and not images:
        examples = "; ".join(f"{e.label} has {next(iter(e.rows[name]))}, ..." for e in detailed)
        raise UserError(f"{name}: no picture has been scored by all: {examples}")
    union = list(dict.fromkeys(i for e in detailed for i in e.rows[name]))
    if len(images) < len(union):
        left = [i for i in union if i not in set(images)]
        said = (
            f"{name}: compared on the {len(images)} pictures that all have, of {len(union)}; left out: {listing(left)}"
        )
        notes.append(said)
    # Metrics that all runs have.
    having = [_metrics(e, name) for e in entries]
    metrics = [m for m in having[0] if all(m in other for other in having)]
    lacking = list(dict.fromkeys(m for each in having for m in each if m not in metrics))
    if lacking:
        notes.append(f"{name}: not scored by all, and left out: {listing(lacking)}")
    if not metrics:
        raise UserError(f"{name}: no metric has been computed by all")
    # Pictures whose value is not finite do not count.
    found = DataSet(name, entries, images, metrics, {m: _direction(m, entries) for m in metrics})
    for metric in metrics if images else ():
        lost = sum(bool(np.isnan(found.values(e, metric)).any()) for e in detailed)
        if lost:
            bad = {i for e in detailed for i, v in zip(images, found.values(e, metric), strict=True) if math.isnan(v)}
            notes.append(
                f"{name}: {metric} of {listing(sorted(bad))} is not finite or is missing in {lost} of {len(detailed)} runs; "
                "these pictures do not count for it"
            )
    return found


def _metrics(entry: Compared, name: str) -> list[str]:
    rows = entry.rows.get(name, {})
    of_rows = [k for row in rows.values() for k, v in row.items() if v is None or isinstance(v, (int, float))]
    found = [*of_rows, *([] if rows else entry.means.get(name, {}))]
    return [m for m in dict.fromkeys(found) if m not in ("iter", "index")]


def _direction(metric: str, entries: Sequence[Compared]) -> Direction:
    """As the first run says it that says something."""
    bare = metric.removesuffix(INPUT)
    told = next((e.run for e in entries if bare in e.run.better or f"val.metrics.{bare}.type" in e.run.options), None)
    return (told or entries[0].run).direction(metric)
