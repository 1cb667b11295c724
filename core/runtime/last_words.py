"""Why a run ended, in ``experiments/<name>/exit.json``: launchers keep the exit codes of their ranks to themselves.

The file is there from a run's end to its next start. A start that is refused before it touches the experiment leaves it alone,
unless a launcher made it, which is to read why. A run that was killed leaves none. A script that starts runs again reads it::

    {"code": 75, "outcome": "preempted", "reason": "preempted at iteration 7; ...", "iteration": 7, "rank": 0, "ranks": 4, ...}
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from ..errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, RanksError, UserError, in_one_line, redacted
from ..files import replacing
from . import distributed, gate, lock
from .exit_file import FILE, OUTCOMES, Words, read_exit
from .signals import Stopped, StopRequest

log = logging.getLogger("relume")
AGAIN = "the attempt before ended with this mistake, which a restart does not mend: "


class LastWords:
    """Writes ``exit.json`` of the experiment in `folder`, once this run owns it: see `own`.

    Attributes:
        iteration: function that tells how far the run has come; None before the first iteration.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.iteration: Callable[[], int] | None = None
        self._place: tuple[int, int] | None = None
        self._begun = False

    def own(self) -> None:
        """This run, whose ranks have met, owns the experiment."""
        self._place = distributed.rank(), distributed.world_size()

    def refuse_again(self) -> None:
        """See whether starting again can help.

        Raises:
            UserError: they are of an attempt of the same job, which found a mistake before it came to training.
        """
        before = read_exit(self.path.parent)
        session, attempt = _session()
        again = before is not None and session and (before.session, before.attempt < attempt) == (session, True)
        if again and before is not None and before.code == EXIT_USER_ERROR and before.iteration is None:
            raise UserError(f"{AGAIN}{before.reason}")

    def begin(self) -> None:
        """Take the words of the run before away, on the main rank: from here on the folder is this run's."""
        self._begun = True
        if distributed.is_main():
            self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def recorded(self, stop: StopRequest) -> Iterator[None]:
        """Write why the inside ended, at its end."""
        stop.before_leaving = lambda code: self.write(code, str(Stopped.early(code)))
        try:
            with stop:
                yield
        except BaseException as raised:
            error = (gate.said_of(raised) if gate.commanded.get() else None) or raised
            self.write(code_of(error), in_one_line(error) or type(error).__name__, isinstance(error, RanksError))
            raise
        before = read_exit(self.path.parent)
        if self.iteration is not None or before is None or before.code:
            self.write(0, "complete")

    @contextlib.contextmanager
    def following(self, iteration: Callable[[], int]) -> Iterator[None]:
        """Inside, `iteration` tells how far the run has come. Afterwards nothing of it is kept: a trainer keeps connections."""
        self.iteration = iteration
        try:
            yield
        finally:
            reached = iteration()
            self.iteration = lambda: reached

    def write(self, code: int, reason: str, elsewhere: bool = False) -> None:
        """Write the file; on other ranks than the main one, or if the reason is `elsewhere`, only where no rank has.

        A run without a launcher that is refused before it begins touches nothing: its exit code says it, and what is there is
        still the run before.
        """
        # A command that refused its options leaves no folder behind.
        refused = code == EXIT_USER_ERROR and not self._begun
        alone = "RANK" not in os.environ
        if self._place is None or (alone and (refused or not self.path.parent.exists())):
            return
        rank, ranks = self._place
        session, attempt = _session()
        # What ended, how and where.
        words = Words(
            code=code,
            outcome=OUTCOMES.get(code, "failed"),
            reason=redacted(reason),
            iteration=self.iteration() if self.iteration is not None else None,
            rank=rank,
            ranks=ranks,
            session=session,
            attempt=attempt,
            host=socket.gethostname(),
            time=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        )
        # The first rank writes over what is there; another one only if nobody has written.
        first = rank == 0 and not elsewhere
        if not first and (not code or (rank and elsewhere)):
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path, over=first) as file:
                file.write((json.dumps(asdict(words), indent=2) + "\n").encode())
        except OSError as e:
            log.warning("%s: cannot be written: %s", self.path, e.strerror or e)


def code_of(error: BaseException) -> int:
    """The exit code of a process that an error ends."""
    if isinstance(error, UserError):
        return error.code
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1


def tell_launcher(error: BaseException) -> None:
    """Have torchrun quote an error, in one line, in the summary that ends its output."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        # The form that torch.distributed.elastic reads.
        words = {"message": redacted(in_one_line(error)), "extraInfo": {"timestamp": str(int(time.time()))}}
        with contextlib.suppress(OSError):
            Path(path).write_text(json.dumps({"message": words}), encoding="utf-8")


def _session() -> tuple[str, int]:
    """What started this run and may start it again, and how often it has; an empty string outside launchers."""
    here = lock.Owner.here()
    if "SLURM_JOB_ID" in os.environ:
        return here.job, here.attempt
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return "", 0
    agent = os.getppid()
    return f"{here.host} {agent} {lock.started(agent)}", here.attempt
