"""Where large images are cut into smaller ones that overlap."""

from __future__ import annotations


def windows(length: int, size: int, step: int, least: int) -> list[int]:
    """Where windows along one side begin: every `step`, and one more at the end if it adds more than `least` pixels.

    >>> windows(1000, 480, 240, 0), windows(964, 480, 240, 10)
    ([0, 240, 480, 520], [0, 240, 480])
    """
    starts = list(range(0, length - size + 1, step))
    if length - (starts[-1] + size) > least:
        starts.append(length - size)
    return starts
