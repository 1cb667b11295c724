"""Standard output and error of this process: whatever they are connected to, a run does not fail over them."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import select
import sys
from typing import Any, TextIO

from ..errors import EXIT_BROKEN_PIPE, EXIT_USER_ERROR, printable

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


def complain(line: str) -> None:
    """Print a line to standard error, if that takes it: what it says must not be lost in a traceback about how it is said."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def note(*texts: object) -> None:
    """Say to standard error what is no mistake, but worth knowing, a line each."""
    for text in texts:
        complain(f"note: {printable(text, 2000)}")


def steady() -> None:
    """Make sure that there is something to write to, and that it takes every character.

    A closed stream (``>&-``) is replaced by one that leads nowhere, and so is its descriptor: else the next file that is opened
    would get its number, and what libraries print would go into that file. Characters that the console's encoding lacks are
    written as ``\\\\u6570``.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = io.BufferedWriter(Nowhere())
            setattr(sys, name, io.TextIOWrapper(nowhere, encoding="utf-8", errors="backslashreplace"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class Nowhere(io.RawIOBase):
    """What a closed stream leads to. It knows whether something was to be written."""

    lost = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1  # where `steady` has put something that takes everything

    def write(self, data: Any, /) -> int:
        self.lost = True
        return memoryview(data).nbytes


def closed(stream: Any) -> Nowhere | None:
    """What stands for a stream that this process was started without; None for any other."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, Nowhere) else None


def finished(code: int) -> int:
    """Write what is still to be written to standard output; the exit code, given what it would be otherwise.

    A run whose lines nobody could read is complete, and yet says by its exit code that they are lost. Where standard output is
    closed, a run's log is missed by nobody, since its file has it; what a command was asked to print is.
    """
    lost = StandardOutput.lost
    try:
        sys.stdout.flush()
    except OSError as e:
        silence()
        if lost is None and not isinstance(e, BrokenPipeError):
            complain(f"standard output cannot be written ({e.strerror or e})")
        lost = lost or e
    if (nowhere := closed(sys.stdout)) is not None and nowhere.lost:
        complain("standard output is closed: what was to be printed there is lost")
        return code or EXIT_USER_ERROR
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
        complain(f"{self.where} cannot be written ({error.strerror or error}); the run goes on without it")

    def note(self, error: OSError) -> None:
        """Called with the first error."""


class LogFile(Forgiving, logging.FileHandler):
    """A text log, which takes every character."""

    def __init__(self, path: os.PathLike[str] | str) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.where = str(path)

    def close(self) -> None:
        """Close the file. What a full disk did not take is lost, which has been said, and hides no other error."""
        try:
            super().close()
        except OSError:
            if not self.failed:
                raise


class StandardOutput(Forgiving, logging.StreamHandler[TextIO]):
    """Writes to what ``sys.stdout`` is at the moment of writing, which notebooks and tests replace."""

    where = "standard output"
    lost: OSError | None = None
    """Why lines could not be written by this process."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Nothing, where standard output is closed."""
        if closed(sys.stdout) is None:
            super().emit(record)

    @property
    def stream(self) -> Any:  # type: ignore[override]  # looked up anew for every line
        return sys.stdout

    def note(self, error: OSError) -> None:
        StandardOutput.lost = error
