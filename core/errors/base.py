"""The exceptions of mistakes that a user can make, and the exit codes of the command line."""

from __future__ import annotations

from collections.abc import Iterable

EXIT_USER_ERROR = 2
"""Bad options, missing files, impossible requests."""
EXIT_NONFINITE = 3
"""Training stopped because losses or gradients stayed NaN or infinite."""
EXIT_PREEMPTED = 75
"""A signal asked us to stop; a checkpoint was written and the run can be requeued (EX_TEMPFAIL of sysexits.h)."""
EXIT_INTERRUPTED = 130
"""Ctrl-C; a checkpoint was written (128 + SIGINT, as shells count)."""
EXIT_BROKEN_PIPE = 141
"""The program that read the output has stopped (128 + SIGPIPE, as shells count)."""


class UserError(Exception):
    """A mistake of the user's: ``str(error)`` is what the command line prints before exiting with ``code``.

    Args:
        key: the dotted key of the option that is to blame, where that is known: its place can then be said.

    Attributes:
        everywhere: whether all ranks raise it together, so that the main one need only say it.
    """

    code = EXIT_USER_ERROR
    everywhere = False

    def __init__(self, *message: object, key: str | None = None) -> None:
        super().__init__(*message)
        self.key = key


class RanksError(UserError):
    """What concerns several ranks, and says which: one failed or is gone, or they differ. ``code`` is the exit code of all.

    The main rank says it for all, unless it is the one that is `gone`.
    """

    def __init__(self, message: str, code: int, gone: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.everywhere = 0 not in gone


class NonFiniteError(UserError):
    """Losses or gradients were NaN or infinite for too many steps in a row."""

    code = EXIT_NONFINITE
    everywhere = True
