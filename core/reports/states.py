"""How runs stand: running, finished, stopped, NaN; how far, how good, how much longer. From files alone, without torch."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..runtime import exit_file, lock
from ..runtime.records import iteration_of
from .files import Run, number

UNCOMPARED = ("name", "path.experiments_root", "path.results_root", "path.resume_state")
"""Options that differ between any two runs and mean nothing."""
STATES = {"complete": "finished", "preempted": "stopped", "interrupted": "stopped", "nonfinite": "NaN"}
"""What the outcomes of ``exit.json`` are called; all others are ``failed``."""


@dataclass(frozen=True)
class Best:
    """The best score of the metric that chooses the best weights, at which iteration and on which data set."""

    dataset: str
    metric: str
    value: float
    iteration: int
    better: str


@dataclass(frozen=True)
class Standing:
    """How a run stands.

    Attributes:
        name: name of its folder.
        state: ``running``, ``finished``, ``stopped``, ``NaN``, ``failed`` or ``not started``.
        reason: reason why it ended, in one line, where that is known.
        iteration: iteration that it has reached, of ``total``.
        best: None without a validation.
        eta: seconds that remain of a run that is running; None where nobody knows.
        disk: bytes.
        updated: time of its last record, ISO 8601.
        differences: options that differ from the run that was chosen: its value and this one's, None where there is none.
        broken: what could not be read.
    """

    name: str
    state: str
    reason: str | None
    iteration: int
    total: int | None
    best: Best | None
    eta: float | None
    disk: int
    updated: str | None
    differences: Mapping[str, tuple[str | None, str | None]]
    broken: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        content = asdict(self)
        if self.best is not None and not math.isfinite(self.best.value):
            content["best"]["value"] = None
        return content

    @property
    def short(self) -> str:
        """The state as a table has it: ``stopped at 1,200``."""
        at = self.state in ("stopped", "NaN", "failed")
        return f"{self.state} at {self.iteration:,}" if at else self.state


def standing(run: Run, against: Run | None = None) -> Standing:
    """How a run stands; with `against`, in what options it differs from that one."""
    last = run.last
    iteration = max([iteration_of(last), *(v["iter"] for v in run.validations[-1:])])
    words = exit_file.read_exit(run.root)
    if words is not None and words.iteration is not None:
        iteration = max(iteration, words.iteration)
    state, reason = state_of(run, words, last, iteration)
    updated = last.get("perf/wall_clock")
    eta = remaining(last) if state == "running" else None
    differences = {} if against is None else differing(against.options, run.options)
    return Standing(
        run.name,
        state,
        reason,
        iteration,
        run.total,
        best_validation(run),
        eta,
        run.disk(),
        updated if isinstance(updated, str) else None,
        differences,
        tuple(run.broken),
    )


def state_of(
    run: Run, words: exit_file.Words | None, last: Mapping[str, Any], iteration: int
) -> tuple[str, str | None]:
    """The state, and why."""
    owner = lock.owner(run.root)
    nan = any(value is None for key, value in last.items() if key.startswith("l_"))
    if owner is not None:
        return "running", f"process {owner.pid} on {owner.host}" + (
            "; its last loss was NaN or infinite" if nan else ""
        )
    if words is not None:
        return STATES.get(words.outcome, "failed"), None if words.code == 0 else words.reason
    if run.tested:
        return "finished", None
    if run.total is not None and iteration >= run.total:
        return "finished", None
    if nan:
        return "NaN", "the last loss was NaN or infinite"
    if not iteration and not last:
        return "not started", None
    return "stopped", "without a last word: killed, or its machine was lost"


def best_validation(run: Run) -> Best | None:
    """The best validation by the metric that chooses; of several data sets, of the first that has it."""
    metric = run.chosen
    if metric is None:
        means = [(d, m, v) for d, scores in run.means.items() for m, v in scores.items()] if run.tested else []
        return Best(means[0][0], means[0][1], means[0][2], 0, run.direction(means[0][1])) if means else None
    scored = [(v["dataset"], number(v["metrics"].get(metric)), v["iter"]) for v in run.validations]
    dataset = run.options.get("val.best.dataset")
    of_one = [s for s in scored if s[0] == dataset] or [s for s in scored if s[0] == scored[0][0]]
    finite = [s for s in of_one if not math.isnan(s[1])]
    if not finite:
        return None
    better = run.direction(metric)
    sign = 1 if better == "higher" else -1
    found = max(finite, key=lambda s: sign * s[1])  # the first of equals, as training keeps it
    return Best(found[0], metric, found[1], found[2], better)


def remaining(last: Mapping[str, Any]) -> float | None:
    """Seconds that remain now: what a record said, less the time since."""
    eta = number(last.get("perf/eta"))
    if math.isnan(eta):
        return None
    try:
        then = datetime.datetime.fromisoformat(str(last.get("perf/wall_clock")))
    except ValueError:
        return eta
    passed = (datetime.datetime.now(then.tzinfo) - then).total_seconds()
    return max(0.0, eta - max(0.0, passed))


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """By key, the options of two runs that differ, None for an option that a run has not."""
    keys = [k for k in dict.fromkeys([*one, *other]) if k not in UNCOMPARED]
    return {k: (one.get(k), other.get(k)) for k in keys if one.get(k) != other.get(k)}
