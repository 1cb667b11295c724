"""Stopping politely: a signal only raises a flag, the trainer finishes its step, checkpoints, and leaves."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

from ..errors import EXIT_INTERRUPTED, EXIT_PREEMPTED, UserError

log = logging.getLogger("relume")

FORWARDED = 2.0
"""Seconds in which a launcher's rank takes another signal for the same request: the scheduler sends one, torchrun another."""
AT_START = 10.0
"""Seconds after which a rank that was signalled in its start leaves, although the others have not agreed."""
LOOK = 1.0
"""Seconds between looks whether the launcher is still there."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGUSR1", signal.SIGTERM))
PATIENCE = 5.0
"""Seconds that a second signal leaves the program to end by itself, which it cannot while it waits inside a collective."""


class Stopped(UserError):
    """A signal ended the run; ``code`` says how. All ranks agree on it."""

    everywhere = True

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    @classmethod
    def early(cls, code: int) -> Stopped:
        """For a run that has not come to training."""
        return cls(f"{how(code)} before the first iteration: there is nothing new to be saved. Start it again", code)


def how(code: int) -> str:
    """What a signal did to a run that leaves with this exit code, in one word."""
    return "interrupted" if code == EXIT_INTERRUPTED else "preempted"


class StopRequest:
    """Listens to SIGTERM and SIGUSR1 (preemption) and SIGINT (Ctrl-C); a second signal ends the process at once.

    As a context it listens inside, also when entered several times, and makes a `Stopped` of a signal that ends a start.

    Args:
        starting: this run has trained nothing yet. Then a signal ends a process that is alone at once, and one of several ranks
            when they next agree, at the latest after `AT_START` seconds.

    Attributes:
        code: 0 while nobody asked; else the exit code that the process should leave with (75 or 130).
        before_leaving: function called with the exit code before this process ends in the middle of its start.
    """

    def __init__(self, starting: bool = False) -> None:
        self.code = 0
        self.starting = starting
        self.before_leaving: Callable[[int], None] | None = None
        self._depth = 0
        self._asked_at = 0.0
        self._previous: dict[int, object] = {}
        self._wakeup: tuple[int, int] | None = None
        # torchrun that is killed leaves its ranks behind. Others' parents may vanish: nohup is no reason to stop.
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    def __enter__(self) -> StopRequest:
        self._depth += 1
        self.listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._depth -= 1
        if not self._depth:
            self.forget()
        if kind is KeyboardInterrupt and self.starting and self.code:
            raise Stopped.early(self.code) from None

    def listen(self) -> None:
        """Take over the signals (main thread only; elsewhere nothing happens)."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            self._previous.setdefault(number, signal.signal(number, self._handle))
        self._watch()

    def forget(self) -> None:
        """Restore the handlers that the signals had before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()
        if self._wakeup is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._wakeup[1])  # which ends the watching thread
            self._wakeup = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.code:
            if self._ends(number):
                raise KeyboardInterrupt
            return
        self.code = _code(number)
        self._asked_at = time.monotonic()
        what = "leaving" if self.starting else "finishing this step, then saving a checkpoint"
        # All ranks get a scheduler's signal; one says so.
        level = logging.WARNING if os.environ.get("RANK", "0") == "0" else logging.INFO
        log.log(level, "%s: %s", signal.Signals(number).name, what)
        if self.starting and int(os.environ.get("WORLD_SIZE") or 1) == 1:
            raise KeyboardInterrupt

    def _ends(self, number: int) -> bool:
        """Whether a further signal is a second request, not the first one over again."""
        if number == signal.SIGINT and "RANK" not in os.environ:
            return True  # a terminal sends Ctrl-C once
        return time.monotonic() - self._asked_at > FORWARDED

    def _watch(self) -> None:
        """Have a thread see to what the main thread cannot while it waits inside torch, or reads for minutes."""
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
        threading.Thread(target=self._attend, args=(read,), daemon=True, name="relume-signals").start()

    def _attend(self, read: int) -> None:
        """What the thread does: see a second request obeyed, a start left in time, and a launcher that is gone."""
        asked: tuple[float, int] | None = None
        with open(read, "rb", buffering=0) as pipe, selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while True:
                # Look at the pipe, and at the launcher, which may have gone.
                arrived = bool(selector.select(LOOK))
                now = time.monotonic()
                if asked is not None and self.starting and now - asked[0] > AT_START:
                    self._leave_the_start(_code(asked[1]))
                if self._launcher is not None and os.getppid() != self._launcher:
                    self._launcher = None
                    log.warning("torchrun is gone")
                    os.kill(os.getpid(), signal.SIGTERM)
                if not arrived:
                    continue
                # A signal: the first asks for an orderly end, one that follows after a while for the end at once.
                sent = pipe.read(1)
                if not sent:
                    return
                if sent[0] not in SIGNALS:
                    continue
                if asked is not None and now - asked[0] > FORWARDED:
                    break
                asked = asked or (now, sent[0])
        time.sleep(PATIENCE)
        if self._previous:
            sys.stderr.write("interrupted by a second signal, without a checkpoint\n")
            sys.stderr.flush()
            os._exit(EXIT_INTERRUPTED)

    def _leave_the_start(self, code: int) -> None:
        """End this process, whose main thread is busy with something long, while nothing is lost by it."""
        if not self._previous:
            return
        if self.before_leaving is not None:
            self.before_leaving(code)
        sys.stderr.write(f"{Stopped.early(code)}\n")
        sys.stderr.flush()
        os._exit(code)


def _code(number: int) -> int:
    """The exit code that a signal asks for."""
    return EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_PREEMPTED
