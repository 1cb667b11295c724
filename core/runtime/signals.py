"""Stopping politely: a signal only raises a flag, the trainer finishes its step, checkpoints, and leaves."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType

from ..errors import EXIT_INTERRUPTED, EXIT_PREEMPTED, UserError

log = logging.getLogger("relume")

FORWARDED = 2.0
"""Seconds in which a launcher's rank takes another signal for the same request: the scheduler sends one, torchrun another."""
PATIENCE = 5.0
"""Seconds that a second signal leaves the program to end by itself, which it cannot while it waits inside a collective."""


class Stopped(UserError):
    """A signal ended the run; ``code`` says how."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def how(code: int) -> str:
    """What a signal did to a run that leaves with this exit code, in one word."""
    return "interrupted" if code == EXIT_INTERRUPTED else "preempted"


class StopRequest:
    """Listens to SIGTERM and SIGUSR1 (preemption) and SIGINT (Ctrl-C); a second signal ends the process at once.

    As a context it listens inside.

    Attributes:
        code: 0 while nobody asked; else the exit code that the process should leave with (75 or 130).
    """

    def __init__(self) -> None:
        self.code = 0
        self._asked_at = 0.0
        self._previous: dict[int, object] = {}
        self._wakeup: tuple[int, int] | None = None
        # torchrun that is killed leaves its ranks behind. Others' parents may vanish: nohup is no reason to stop.
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    def __enter__(self) -> StopRequest:
        self.listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.forget()

    def listen(self) -> None:
        """Take over the signals (main thread only; elsewhere nothing happens)."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGUSR1", signal.SIGTERM)):
            self._previous.setdefault(number, signal.signal(number, self._handle))
        self._watch()

    def forget(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()
        if self._wakeup is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._wakeup[1])  # which ends the watching thread
            self._wakeup = None

    def poll(self) -> int:
        """`code`, after a look whether torchrun is still there."""
        if not self.code and self._launcher is not None and os.getppid() != self._launcher:
            self.code, self._asked_at = EXIT_PREEMPTED, time.monotonic()
            log.warning("torchrun is gone: finishing this step, then saving a checkpoint")
        return self.code

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.code:
            if self._ends(number):
                raise KeyboardInterrupt
            return
        self.code = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_PREEMPTED
        self._asked_at = time.monotonic()
        log.warning("%s: finishing this step, then saving a checkpoint", signal.Signals(number).name)

    def _ends(self, number: int) -> bool:
        """Whether a further signal is a second request, not the first one over again."""
        if number == signal.SIGINT and "RANK" not in os.environ:
            return True  # a terminal sends Ctrl-C once
        return time.monotonic() - self._asked_at > FORWARDED

    def _watch(self) -> None:
        """Have a thread see to it that a second signal ends this process even while the main thread waits inside torch."""
        if self._wakeup is not None:
            return
        read, write = os.pipe()
        os.set_blocking(write, False)
        theirs = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        if theirs != -1:  # an event loop (a notebook's) lives from it
            signal.set_wakeup_fd(theirs)
            os.close(read)
            os.close(write)
            return
        self._wakeup = (read, write)
        threading.Thread(target=self._end_by_force, args=(read,), daemon=True, name="relume-signals").start()

    def _end_by_force(self, read: int) -> None:
        """What the thread does: wait for the second request, then for the main thread to obey it."""
        first: float | None = None
        with open(read, "rb", buffering=0) as pipe:
            while sent := pipe.read(1):
                now = time.monotonic()
                if sent[0] not in (signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGUSR1", signal.SIGTERM)):
                    continue
                if first is not None and now - first > FORWARDED:
                    break
                first = first or now
            else:
                return
        time.sleep(PATIENCE)
        if self._previous:
            sys.stderr.write("interrupted by a second signal, without a checkpoint\n")
            sys.stderr.flush()
            os._exit(EXIT_INTERRUPTED)
