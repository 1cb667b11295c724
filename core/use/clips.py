"""A clip through a model: as many frames, at the same times, with the same sound."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path, PurePosixPath

import numpy as np

from ...datasets.videos import Video
from ..imaging.video_writer import ENCODERS, VideoWriter
from ..runtime.progress import progress
from .enhancer import Enhancer
from .pictures import Picture, integers

WRITTEN = ".mp4"
"""Suffix of results of clips whose own container is only read."""


def suffix_for(name: str) -> str:
    """Of the result of a clip."""
    own = PurePosixPath(name).suffix.lower()
    return own if own in ENCODERS else WRITTEN


def frames_of(clip: Video) -> Iterator[Picture]:
    """The frames in order."""
    for _, image in clip.frames():
        pixels = image()
        yield Picture(pixels, None, False, ".png", 16 if pixels.dtype == np.uint16 else 8)


def enhance(enhancer: Enhancer, file: str, target: Path, batch: int) -> str:
    """Write a clip's result; a note about what it lost, if anything.

    Args:
        enhancer: the model.
        file: the clip.
        target: of the result.
        batch: frames at a time.

    Raises:
        UserError: it cannot be decoded or written.
    """
    clip = Video(file)
    times = [clip.time(i) for i in range(len(clip))]
    regular = all(abs(t - i / clip.rate) <= Fraction(1, 500) for i, t in enumerate(times))
    begins = Fraction(*clip.index.tick) * clip.index.ticks[0]
    deep = False
    shown = iter(progress(PurePosixPath(file).name, Counted(frames_of(clip), len(clip))))
    with VideoWriter(target, clip.rate, timed=not regular, sound=file, begins=begins) as video:
        written = 0
        while frames := list(itertools.islice(shown, batch)):
            deep = deep or frames[0].bits == 16
            for image in enhancer(frames):
                video.write(integers(image, 8), times[written])
                written += 1
    return "has 8 bits, and the clip more" if deep else ""


class Counted:
    """An iterator that says how long it is."""

    def __init__(self, items: Iterator[Picture], count: int) -> None:
        self.items, self.count = items, count

    def __iter__(self) -> Iterator[Picture]:
        return self.items

    def __len__(self) -> int:
        return self.count
