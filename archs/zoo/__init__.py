"""Architectures that Relume does not implement itself: those of spandrel, under the names that forks of BasicSR register.

`table` has the rows, `adapter` makes of a row what an option file can select. The table is imported for a name that Relume
itself has not, spandrel, which takes seconds, for a name of the table: names are listed and suggested without it.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .table import ZooRow

__all__ = ["EXTRA_LIBRARY", "about", "adapted", "advice", "find", "has_extra", "names", "restricted", "rows"]
EXTRA_LIBRARY = "spandrel_extra_arches"
"""Architectures under restrictive licences: a package of its own, used where the user has installed it."""


def rows() -> dict[str, ZooRow]:
    """The table, by name; with the restrictive licences where their package is installed."""
    from .table import EXTRA, ROWS

    return {**ROWS, **EXTRA} if has_extra() else dict(ROWS)


def restricted() -> dict[str, ZooRow]:
    """The rows under restrictive licences whose package is not installed."""
    from .table import EXTRA

    return {} if has_extra() else dict(EXTRA)


def has_extra() -> bool:
    """Whether the package of the restrictive licences is installed."""
    return importlib.util.find_spec(EXTRA_LIBRARY) is not None


def find(name: str) -> Callable[..., Any] | None:
    """What builds the architecture `name`, whatever its case; None if the table has no such name.

    Raises:
        UserError: spandrel is missing, or another version that has no such class.
    """
    wanted = name.lower()
    for key, row in rows().items():
        if wanted in (key.lower(), *(a.lower() for a in row.aliases)):
            return adapted(key)
    return None


@functools.cache
def adapted(key: str) -> Callable[..., Any]:
    """What builds the architecture of a row; errors are those of `find`."""
    from .adapter import build_of

    return build_of(key, rows()[key])


def names() -> list[str]:
    """The names of the table."""
    return list(rows())


def about(name: str) -> str:
    """Where an architecture of the table comes from, under which licence, other names, and what it cannot do."""
    row = rows()[name]
    parts = [row.library, row.licence]
    parts += [f"also {', '.join(row.aliases)}"] if row.aliases else []
    parts += [f"not trained here: {row.untrainable}"] if row.untrainable else []
    return "; ".join(parts)


def advice(name: str) -> str:
    """What to install for a name that only the package of the restrictive licences has; empty for other names."""
    for key, row in restricted().items():
        if name.lower() in (key.lower(), *(a.lower() for a in row.aliases)):
            return f"{EXTRA_LIBRARY} has it, under the licence {row.licence}: pip install {EXTRA_LIBRARY}, if that suits you."
    return ""
