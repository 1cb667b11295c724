"""Where large images are cut into smaller ones that overlap."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..imaging.image_io import imwrite


def windows(length: int, size: int, step: int, least: int) -> list[int]:
    """Where windows along one side begin: every `step`, and one more at the end if it adds more than `least` pixels.

    >>> windows(1000, 480, 240, 0), windows(964, 480, 240, 10)
    ([0, 240, 480, 520], [0, 240, 480])
    """
    starts = list(range(0, length - size + 1, step))
    if length - (starts[-1] + size) > least:
        starts.append(length - size)
    return starts


def places(size: tuple[int, int], side: int, step: int, least: int) -> list[tuple[int, int]]:
    """Where the windows of an image of this height and width begin, row by row."""
    return [(y, x) for y in windows(size[0], side, step, least) for x in windows(size[1], side, step, least)]


def write(image: np.ndarray, begins: Mapping[str, tuple[int, int]] | Mapping[Path, tuple[int, int]], side: int) -> None:
    """Write windows of an image (H, W, 3): by file, where it begins."""
    depth = 16 if image.dtype.kind == "f" else 8  # of pictures with 10 or 12 bits, say
    for target, (y, x) in begins.items():
        imwrite(target, image[y : y + side, x : x + side], depth)
