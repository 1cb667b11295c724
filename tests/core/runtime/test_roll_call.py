"""core/runtime/roll_call.py: only those are named of whom nothing is heard."""

from __future__ import annotations

import threading
import time

import pytest
import torch.distributed as dist

from relume.core.runtime import roll_call
from relume.core.runtime.roll_call import Absent, RollCall, said_of


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> list[RollCall]:
    """Four ranks that have met."""
    monkeypatch.setattr(roll_call, "LOOK", 0.02)
    store = dist.HashStore()
    return [RollCall(store, rank, 4, "verdict") for rank in range(4)]


def called(ranks: list[RollCall], seconds: float) -> list[Absent]:
    """What each of some ranks finds when all of them call."""
    found: dict[int, Absent] = {}
    callers = [threading.Thread(target=lambda r=r: found.update({r.rank: r.call(seconds)})) for r in ranks]  # type: ignore[misc]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return [found[r.rank] for r in ranks]


def test_the_dead_are_told_from_those_who_do_not_know_yet(ranks: list[RollCall]) -> None:
    for rank in ranks[:3]:
        rank.listen()
    assert called(ranks[:2], 0.3) == [Absent([3], [2])] * 2
    said = said_of(Absent([3], [2]), "rank {}".format, 600.0, "closed")
    assert said == "rank 3 did not answer within 600 s (dist_params.timeout) or died: closed"
    said = said_of(Absent([], [1, 2]), "rank {}".format, 5.0, "timed out")
    assert said == "rank 1, rank 2 still runs, but did not come within 5 s (dist_params.timeout): timed out"


def test_a_rank_that_was_busy_hears_why_the_others_left(ranks: list[RollCall]) -> None:
    ranks[2].listen()
    called(ranks[:2], 0.1)
    ranks[0].store.set("verdict", "because")
    until = time.monotonic() + 100
    while ranks[2].heard is None and time.monotonic() < until:
        time.sleep(0.01)
    assert ranks[2].heard == b"because"


def test_nobody_waits_when_all_have_come(ranks: list[RollCall]) -> None:
    begin = time.monotonic()
    assert called(ranks, 60.0) == [Absent([], [])] * 4
    assert time.monotonic() - begin < 30
