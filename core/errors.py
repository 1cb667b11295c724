"""The mistakes a user can make, as opposed to the ones we can: one clear line, an exit code, no traceback."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from difflib import get_close_matches
from types import ModuleType

EXIT_USER_ERROR = 2
"""Bad options, missing files, impossible requests."""
EXIT_NONFINITE = 3
"""Training stopped because losses or gradients stayed NaN or infinite."""
EXIT_PREEMPTED = 75
"""A signal asked us to stop; a checkpoint was written and the run can be requeued (EX_TEMPFAIL of sysexits.h)."""
EXIT_INTERRUPTED = 130
"""Ctrl-C; a checkpoint was written (128 + SIGINT, as shells count)."""
EXIT_BROKEN_PIPE = 141
"""Whoever read the output has stopped (128 + SIGPIPE, as shells count)."""


class UserError(Exception):
    """A mistake of the user's: ``str(error)`` is what the command line prints before exiting with ``code``."""

    code = EXIT_USER_ERROR


class NonFiniteError(UserError):
    """Losses or gradients were NaN or infinite for too many steps in a row."""

    code = EXIT_NONFINITE


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``" Did you mean 'dim'?"`` when one of `known` is close to `word`, else an empty string.

    >>> did_you_mean("dmi", ["dim", "bias"])
    " Did you mean 'dim'?"
    >>> did_you_mean("zzz", ["dim", "bias"])
    ''
    """
    by_lower = {k.lower(): k for k in known}
    close = get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean '{by_lower[close[0]]}'?" if close else ""


def require(module: str, wanted_by: str, install: str | None = None) -> ModuleType:
    """Import an optional or heavy dependency when it is first needed.

    Args:
        module: dotted module name, e.g. ``"torchvision.models"``.
        wanted_by: what asks for it, for the message, e.g. ``"PerceptualLoss"``.
        install: what to tell the user to run; ``pip install <top-level name>`` when omitted.

    Raises:
        UserError: the module is missing, or is there and cannot be imported (a broken torchvision, say).
    """
    try:
        return importlib.import_module(module)
    except Exception as e:  # a broken binary wheel raises RuntimeError, OSError, AttributeError, ...
        top = module.split(".")[0]
        missing = isinstance(e, ModuleNotFoundError) and (e.name or "").split(".")[0] == top
        state = "is not installed" if missing else f"cannot be imported ({type(e).__name__}: {str(e).splitlines()[0]})"
        raise UserError(f"{wanted_by} needs {top}, which {state}. Try: {install or f'pip install {top}'}") from e
