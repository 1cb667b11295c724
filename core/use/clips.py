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
    bits: set[int] = set()

    def shown() -> Iterator[Picture]:
        for frame in progress(PurePosixPath(file).name, Counted(frames_of(clip), len(clip))):
            bits.add(frame.bits)
            yield frame

    with VideoWriter(target, clip.rate, timed=not regular, sound=file, begins=begins) as video:
        results = in_batches(enhancer, shown(), batch) if enhancer.takes is None else enhancer.clip(shown())
        for written, image in enumerate(results):
            video.write(integers(image, 8), times[written])
    return "has 8 bits, and the clip more" if 16 in bits else ""


def in_batches(enhancer: Enhancer, frames: Iterator[Picture], batch: int) -> Iterator[np.ndarray]:
    """Results of frames in order, of so many at a time."""
    while some := list(itertools.islice(frames, batch)):
        yield from enhancer(some)


class Counted:
    """An iterator that says how long it is."""

    def __init__(self, items: Iterator[Picture], count: int) -> None:
        self.items, self.count = items, count

    def __iter__(self) -> Iterator[Picture]:
        return self.items

    def __len__(self) -> int:
        return self.count
