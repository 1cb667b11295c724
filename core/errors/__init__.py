"""The mistakes a user can make, as opposed to the ones we can: one clear line, an exit code, no traceback."""

from __future__ import annotations

import importlib
from types import ModuleType

from .base import (
    EXIT_BROKEN_PIPE,
    EXIT_INTERRUPTED,
    EXIT_NONFINITE,
    EXIT_PREEMPTED,
    EXIT_USER_ERROR,
    NonFiniteError,
    RanksError,
    UserError,
)
from .escaping import escaped, table_row
from .names import SHOWN, did_you_mean, edits, listing, meant
from .paths import expanded, unreadable
from .text import LINE, MESSAGE, VALUE, first_line, in_one_line, lines, message, printable, redacted, without_secrets

__all__ = [
    "EXIT_BROKEN_PIPE",
    "EXIT_INTERRUPTED",
    "EXIT_NONFINITE",
    "EXIT_PREEMPTED",
    "EXIT_USER_ERROR",
    "LINE",
    "MESSAGE",
    "SHOWN",
    "VALUE",
    "NonFiniteError",
    "RanksError",
    "UserError",
    "did_you_mean",
    "edits",
    "escaped",
    "expanded",
    "first_line",
    "in_one_line",
    "lines",
    "listing",
    "meant",
    "message",
    "printable",
    "redacted",
    "require",
    "table_row",
    "unreadable",
    "without_secrets",
]


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
