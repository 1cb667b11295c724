"""The file ``exit.json`` of an experiment, which says why its last run ended; `core.runtime.last_words` writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EXIT_INTERRUPTED, EXIT_NONFINITE, EXIT_PREEMPTED, EXIT_USER_ERROR
from ..files import reading

FILE = "exit.json"
MOST_BYTES = 1 << 20
OUTCOMES = {
    0: "complete",
    EXIT_USER_ERROR: "mistake",
    EXIT_NONFINITE: "nonfinite",
    EXIT_PREEMPTED: "preempted",
    EXIT_INTERRUPTED: "interrupted",
}
"""What exit codes mean, in one word; all others are ``failed``."""


@dataclass(frozen=True)
class Words:
    """What ``exit.json`` holds.

    Attributes:
        code: the exit code, behind a launcher as without one, with ``outcome``, one of `OUTCOMES`.
        reason: one line.
        iteration: iteration that the run reached; None if it did not come to training.
        rank: rank that ended it, of ``ranks``.
        session: the job, or the launcher, that this run was an attempt of; ``attempt`` counts its restarts.
        host, time: host on which the run ended, and time of its end.
    """

    code: int
    outcome: str
    reason: str
    iteration: int | None
    rank: int
    ranks: int
    session: str
    attempt: int
    host: str
    time: str


def read_exit(folder: Path) -> Words | None:
    """What ``exit.json`` of an experiment says; None where there is none, or none that can be read."""
    try:
        content: Mapping[str, Any] = json.loads(reading.text(folder / FILE, MOST_BYTES))
        words = Words(**content)
        return words if _is_sane(words) else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _is_sane(words: Words) -> bool:
    """Whether the values are of the kinds that `Words` says."""
    iteration = 0 if words.iteration is None else words.iteration
    numbers = (words.code, iteration, words.rank, words.ranks, words.attempt)
    texts = (words.outcome, words.reason, words.session, words.host, words.time)
    return all(type(n) is int and abs(n) < 1 << 53 for n in numbers) and all(isinstance(t, str) for t in texts)
