"""Standard output and error of this process: whatever they are connected to, a run does not fail over them."""

from __future__ import annotations

import errno
import logging
import os
import select
import sys
from typing import Any, TextIO

from ..errors import EXIT_BROKEN_PIPE, EXIT_USER_ERROR

ENVIRONMENT = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ENOTDIR", "EISDIR", "EMFILE", "ENFILE"),
        *("ENAMETOOLONG", "ELOOP", "ENOTEMPTY", "EBUSY", "ESTALE", "ETXTBSY", "ENODEV", "ENXIO", "ENOMEM"),
    )
    if hasattr(errno, name)
)
"""Errors of the system that are not the program's mistakes, and need no traceback."""
HINTS = {errno.EMFILE: "; raise the limit with ulimit -n, or lower num_worker_per_gpu"}


def system_error(error: OSError) -> str | None:
    """An error of files and disks in one line; None for one that is a bug, or nobody's."""
    if error.errno not in ENVIRONMENT:
        return None
    name = error.filename if error.filename is not None else "standard output, or a file"
    return f"{name}: {error.strerror}{HINTS.get(error.errno or 0, '')}"


def steady() -> None:
    """Make sure that there is something to write to, and that it takes every character.

    A closed stream (``>&-``) is replaced by one that leads nowhere. Characters that the console's encoding lacks are written as
    ``\\\\u6570``.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (for as long as the process lives)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def finished(code: int) -> int:
    """Write what is still to be written to standard output; the exit code, given what it would be otherwise.

    A run whose lines nobody could read is complete, and yet says by its exit code that they are lost.
    """
    lost = StandardOutput.lost
    try:
        sys.stdout.flush()
    except OSError as e:
        silence()
        if lost is None and not isinstance(e, BrokenPipeError):
            print(f"standard output cannot be written ({e.strerror or e})", file=sys.stderr)
        lost = lost or e
    if lost is not None:
        return code or (EXIT_BROKEN_PIPE if isinstance(lost, BrokenPipeError) else EXIT_USER_ERROR)
    return code


def silence() -> None:
    """Lead standard output nowhere, or the interpreter would fail over it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def nobody_reads(stream: Any) -> bool:
    """Whether `stream` is a pipe that its reader (``| head``) has closed."""
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


class Forgiving(logging.Handler):
    """Mixed into a handler of log lines: where they cannot be written, one line says so, once, and the run goes on."""

    where = "the log"
    failed = False

    def filter(self, record: logging.LogRecord) -> Any:
        """Nothing more, after a line could not be written."""
        return False if self.failed else super().filter(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self.failed = True
        self.note(error)
        print(
            f"{self.where} cannot be written ({error.strerror or error}); the run goes on without it", file=sys.stderr
        )

    def note(self, error: OSError) -> None:
        """Called with the first error."""


class LogFile(Forgiving, logging.FileHandler):
    """A text log, which takes every character."""

    def __init__(self, path: os.PathLike[str] | str) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.where = str(path)


class StandardOutput(Forgiving, logging.StreamHandler[TextIO]):
    """Writes to what ``sys.stdout`` is at the moment of writing, which notebooks and tests replace."""

    where = "standard output"
    lost: OSError | None = None
    """Why lines could not be written by this process."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:  # type: ignore[override]  # looked up anew for every line
        return sys.stdout

    def note(self, error: OSError) -> None:
        StandardOutput.lost = error
