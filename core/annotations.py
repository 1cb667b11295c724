"""What a plain type cannot say about an option: ``Annotated[float, Range(least=0, below=1)]``.

Usable in registered constructors as well as in the fixed sections; the option checker and the JSON Schema both read it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Numbers between bounds, of which any may be left out.

    >>> 1.0 in Range(least=0, below=1), str(Range(least=0, below=1))
    (False, 'at least 0 and below 1')
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)


@dataclass(frozen=True)
class Names:
    """Strings that match a regular expression in full; `examples` explain it in messages."""

    pattern: str
    examples: tuple[str, ...]

    def __contains__(self, value: str) -> bool:
        return re.fullmatch(self.pattern, value) is not None
