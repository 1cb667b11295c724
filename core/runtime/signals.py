"""Stopping politely: a signal only raises a flag, the trainer finishes its step, checkpoints, and leaves."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

from ..errors import EXIT_INTERRUPTED, EXIT_PREEMPTED

log = logging.getLogger("relume")


class StopRequest:
    """Listens to SIGTERM and SIGUSR1 (preemption) and SIGINT (Ctrl-C); a second Ctrl-C interrupts at once.

    Attributes:
        code: 0 while nobody asked; else the exit code that the process should leave with (75 or 130).
    """

    def __init__(self) -> None:
        self.code = 0
        self._previous: dict[int, object] = {}

    def listen(self) -> None:
        """Take over the signals (main thread only; elsewhere nothing happens)."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGUSR1", signal.SIGTERM)):
            self._previous.setdefault(number, signal.signal(number, self._handle))

    def forget(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.code:
            raise KeyboardInterrupt
        self.code = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_PREEMPTED
        log.warning("%s: finishing this step, then saving a checkpoint", signal.Signals(number).name)
