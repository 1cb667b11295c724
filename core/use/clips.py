"""A clip through a model: as many frames, at the same times, with the same sound."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...datasets.videos import Video
from ..errors import UserError
from ..imaging.video_codecs import CONTAINERS, USUAL, Encoding, choose
from ..imaging.video_writer import VideoWriter
from ..runtime.progress import progress
from .enhancer import Enhancer
from .overlapped import Behind, ahead
from .pictures import PICTURE_DEPTHS, Picture, integers

WRITTEN = ".mp4"
"""Suffix of results of clips whose own container is only read."""
REGULAR = Fraction(1, 500)
"""Seconds by which a frame may be shown earlier or later than a steady rate would have it."""
DEPTHS = (8, 10, 12)
"""Bits per sample that clips may have."""
FINE = Fraction(1, 90_000)
"""Unit, in seconds, of times that are not the clip's own."""


def suffix_for(name: str) -> str:
    """The suffix of the result of a clip."""
    own = PurePosixPath(name).suffix.lower()
    return own if own in CONTAINERS else WRITTEN


def with_depth(encoding: Encoding, bits: int | None) -> Encoding:
    """`encoding` with so many bits, where clips have as many."""
    return dataclasses.replace(encoding, bits=bits) if bits in DEPTHS else encoding


def refuse_encoding(encoding: Encoding, bits: int | None, suffixes: Sequence[str], only: bool) -> None:
    """Refuse what is wished for results, before anything is computed.

    Args:
        encoding: the wish.
        bits: bits per sample of any results.
        suffixes: suffixes of results that are clips.
        only: whether there are no others.

    Raises:
        UserError: it is not possible, or there are no such results.
    """
    for option, given in (("codec", encoding.codec), ("crf", encoding.crf), ("pix_fmt", encoding.pixels)):
        if given is not None and not suffixes:
            raise UserError(f"--{option}: is for clips, and the input has none")
    if bits is not None and bits not in DEPTHS and only:
        raise UserError(f"--depth {bits}: clips have 8, 10 or 12 bits")
    if bits is not None and bits not in PICTURE_DEPTHS and not suffixes:
        raise UserError(f"--depth {bits}: pictures have 8 or 16 bits, or floats of 32")
    if encoding != USUAL or bits in DEPTHS:
        for suffix in dict.fromkeys(suffixes):
            choose(suffix, with_depth(encoding, bits))


def frames_of(clip: Video) -> Iterator[Picture]:
    """The frames in order."""
    for _, image in clip.frames():
        pixels = image()
        yield Picture(pixels, None, False, ".png", 16 if pixels.dtype == np.uint16 else 8)


def enhance(enhancer: Enhancer, file: str, target: Path, batch: int, encoding: Encoding = USUAL) -> list[str]:
    """Write a clip's result; notes about what it lost.

    Frames are decoded before and encoded after the network, meanwhile, a few at a time.

    Args:
        enhancer: the model.
        file: the clip.
        target: path of the result.
        batch: frames at a time.
        encoding: how the result is written.

    Raises:
        UserError: it cannot be decoded or written.
    """
    clip = Video(file)
    times = [clip.time(i) for i in range(len(clip))]
    writer = VideoWriter(target, clip.rate, **played_alike(clip, times), encoding=encoding)
    with contextlib.closing(ahead(frames_of(clip))) as frames, writer as video:
        results = in_batches(enhancer, frames, batch) if enhancer.takes is None else enhancer.clip(frames)
        shown = progress(PurePosixPath(file).name, Counted(results, len(clip)))
        with Behind[tuple[np.ndarray, Fraction]](
            lambda entry: video.write(integers(entry[0], video.bits), entry[1])
        ) as behind:
            for entry in zip(shown, times, strict=True):
                behind.put(entry)
    return video.notes


def played_alike(clip: Video, times: Sequence[Fraction], rate: Fraction | None = None) -> dict[str, Any]:
    """The arguments of a `VideoWriter` that make its file play as the clip does, with the same sound, in the same colours.

    Args:
        clip: the clip.
        times: times at which frames are shown, in seconds after the clip's first.
        rate: rate of the frames; the clip's when omitted.
    """
    own = rate or clip.rate
    tick = Fraction(*clip.index.tick)
    return {
        "timed": any(abs(t - i / own) > REGULAR for i, t in enumerate(times)),
        "unit": tick if rate is None else FINE,
        "alike": clip.file,
        "begins": tick * clip.index.ticks[0],
    }


def in_batches(enhancer: Enhancer, frames: Iterator[Picture], batch: int) -> Iterator[np.ndarray]:
    """Results of frames in order, of so many at a time."""
    while some := list(itertools.islice(frames, batch)):
        yield from enhancer(some)


class Counted:
    """An iterator that says how long it is."""

    def __init__(self, items: Iterator[np.ndarray], count: int) -> None:
        self.items, self.count = items, count

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.items

    def __len__(self) -> int:
        return self.count
