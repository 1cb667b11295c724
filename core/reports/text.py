"""Tables and quantities as terminals show them."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows of the same length in columns two spaces apart; those whose numbers are in `right` end at their right edge."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def amount(count: float) -> str:
    """Bytes in the largest fitting unit.

    >>> amount(900), amount(3 * 2**20), amount(5.25 * 2**30)
    ('900 B', '3.0 MiB', '5.2 GiB')
    """
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def duration(seconds: float | None) -> str:
    """``3 days, 2:10:00``; a dash for what nobody knows."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    return str(datetime.timedelta(seconds=int(seconds)))


def rounded(value: float, digits: int = 4) -> str:
    """A score with four decimals; very small and very large ones with four significant digits."""
    if math.isnan(value):
        return "-"
    if value and not 0.01 <= abs(value) < 1e5:
        return f"{value:.{digits}g}"
    return f"{value:.{digits}f}"
