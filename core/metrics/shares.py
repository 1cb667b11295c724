"""What one rank found of a dataset that was scored, and whether that is nothing at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..imaging.gallery import Thumbnail
from ..runtime.messages import sendable
from .scoring import ScoreRow

MOST_WARNINGS = 10
"""Images that one evaluation of a dataset names because they fail."""


@sendable
@dataclass
class RankShare:
    """What one rank found of a dataset."""

    rows: list[ScoreRow] = field(default_factory=list)
    thumbnails: list[Thumbnail] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    """Seconds an image took the model, batch by batch."""
    took: dict[str, float] = field(default_factory=dict)
    """The same by image."""
    failed: int = 0
    """Images without a result."""
    scored: int = 0
    """Images that have every score."""
    errors: dict[str, Exception] = field(default_factory=dict)
    """Why the first image without a score of a metric has none, by metric; under ``""`` why the first image without a result
    has none."""
    said: int = 0
    """Warnings."""

    @property
    def unsaid(self) -> int:
        """Warnings that were not logged."""
        return max(0, self.said - MOST_WARNINGS)


def raise_if_nothing_worked(rows: Sequence[ScoreRow], shares: Sequence[RankShare]) -> None:
    """Raise why no image has a result, or none has the score of a metric, if that is so.

    Raises:
        Exception: the first error of the images or of a metric, where no image has a result, or none has that score.
    """
    for share in shares:
        for metric, error in share.errors.items():
            if not any(metric in row for row in rows) if metric else not rows:
                raise error
