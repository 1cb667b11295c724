"""An end to what may take for ever: a regular expression of a stranger's, say, which Python itself never gives up."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from ..errors import UserError


@contextlib.contextmanager
def at_most(seconds: float, message: str) -> Iterator[None]:
    """What follows is stopped after so many seconds of this process's computing; other threads than the main one cannot be.

    Raises:
        UserError: with `message`, when the time is over.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGVTALRM"):
        yield
        return

    def over(*_: Any) -> None:
        raise UserError(message)

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
