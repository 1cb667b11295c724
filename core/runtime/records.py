"""Lines of ``metrics.jsonl`` and the like, which a kill may have cut short and anybody may have changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def parse(line: str | bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None where it is none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def iteration_of(entry: Mapping[str, Any]) -> int:
    """The iteration of a record; 0 where it says none."""
    value = entry.get("iter")
    return value if type(value) is int and 0 <= value < 1 << 53 else 0
