"""Who is still there, when ranks have lost touch with one another: each answers through the store in which they met.

A rank that is sound may not know yet that others have failed: it loads samples, or waits for one of those who have left. For
such a rank a thread answers, so that only those are named whom nobody has heard.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import torch.distributed as dist

LOOK = 1.0
"""Seconds between a rank's looks whether the roll is called."""


class Absent(NamedTuple):
    """Ranks that did not come to a call: of the `dead` nothing was heard, the `busy` are alive."""

    dead: list[int]
    busy: list[int]


class RollCall:
    """The call of a run, which has one at most.

    Args:
        store: store in which the ranks met.
        rank: rank of this process, of `world`.
        verdict: the key under which one of them says at last why they leave.

    Attributes:
        heard: the verdict, where this rank has heard it while it was busy: the store may be gone when it is free.
    """

    def __init__(self, store: dist.Store, rank: int, world: int, verdict: str) -> None:
        self.store, self.rank, self.world, self.verdict = store, rank, world, verdict
        self.heard: bytes | None = None
        self._over = threading.Event()

    def listen(self) -> None:
        """Answer from now on that this rank is alive, should another one call."""
        threading.Thread(target=self._attend, daemon=True, name="relume-roll-call").start()

    def close(self) -> None:
        """Answer no longer."""
        self._over.set()

    def _attend(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store is gone
            while not self._over.wait(LOOK):
                if self.store.check(["called"]):
                    self.store.set(f"alive/{self.rank}", "")
                    break
            while not self._over.wait(LOOK / 4):
                if self.store.check([self.verdict]):
                    self.heard = self.store.get(self.verdict)
                    return

    def call(self, seconds: float) -> Absent:
        """Come to the call, and see who does within some seconds: all others who have lost touch do so, too.

        Raises:
            RuntimeError: the store is gone.
        """
        self.store.set(f"here/{self.rank}", "")
        self.store.set("called", "")
        end, pause = time.monotonic() + seconds, 0.001
        while (absent := self._without([*range(self.world)], "here")) and time.monotonic() < end:
            time.sleep(min(pause, 0.2))
            pause *= 1.5
        dead = self._without(absent, "alive")
        return Absent(dead, [r for r in absent if r not in dead])

    def _without(self, ranks: list[int], key: str) -> list[int]:
        return [r for r in ranks if not self.store.check([f"{key}/{r}"])]


def said_of(absent: Absent, name: Callable[[int], str], timeout: float, first: str) -> str:
    """What to say of those who did not come: only of the dead, where there are some.

    Args:
        name: function that gives a rank in words.
        timeout: seconds that ranks wait for one another.
        first: what the collective said.
    """
    names = ", ".join(map(name, absent.dead or absent.busy))
    within = f"within {timeout:g} s (dist_params.timeout)"
    what = f"did not answer {within} or died" if absent.dead else f"still runs, but did not come {within}"
    return f"{names} {what}: {first}"
