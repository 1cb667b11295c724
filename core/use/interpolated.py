"""A video of more frames: when each of them is shown, between which frames of the input it is, and what it looks like."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...datasets.clips import Clip
from ...datasets.transforms import to_tensor
from ...datasets.videos import Video
from ..errors import UserError
from ..imaging.image_io import to_integer
from ..inference.scenes import Scenes, repeats

FOLDER_RATE = Fraction(25)
"""Frames per second of a folder's frames, if nothing says otherwise."""


class Moment(NamedTuple):
    """A frame to make.

    Attributes:
        before: number of the input's frame at or before it.
        part: part of the way from there to the next one, at least 0 and below 1.
        time: time at which it is shown, in seconds after the first.
    """

    before: int
    part: Fraction
    time: Fraction


def times_of(clip: Clip, rate: Fraction | None) -> list[Fraction]:
    """When each frame of the input is shown, in seconds: a video's own times, unless a rate is given.

    Times that are those of a steady rate but for rounding, to milliseconds in Matroska, are not rounded.
    """
    if isinstance(clip, Video) and rate is None:
        times = [clip.time(i) for i in range(len(clip))]
        steady = [i / clip.rate for i in range(len(clip))]
        tick = Fraction(*clip.index.tick)
        return steady if all(abs(a - b) < tick for a, b in zip(times, steady, strict=True)) else times
    return [i / (rate or FOLDER_RATE) for i in range(len(clip))]


def by_factor(times: Sequence[Fraction], factor: Fraction) -> list[Fraction]:
    """When `factor` times as many frames are shown, evenly between those there are."""
    made = []
    for j in range(int((len(times) - 1) * factor) + 1):
        part = j / factor - int(j / factor)
        before = times[int(j / factor)]
        made.append(before + part * (times[int(j / factor) + 1] - before) if part else before)
    return made


def at_rate(times: Sequence[Fraction], rate: Fraction) -> list[Fraction]:
    """0, 1 / rate, 2 / rate, ... seconds, up to the last frame of the input."""
    return [j / rate for j in range(int(times[-1] * rate) + 1)]


def placed(wanted: Sequence[Fraction], times: Sequence[Fraction]) -> list[Moment]:
    """The moments at the `wanted` times among frames that are shown at `times`, both ascending; after the last, that one."""
    moments = []
    for time in wanted:
        before = bisect.bisect_right(times, time) - 1
        part = Fraction(0)
        if before + 1 < len(times):
            part = (time - times[before]) / (times[before + 1] - times[before])
        moments.append(Moment(before, part, time))
    return moments


def frames_of(clip: Clip) -> Iterator[np.ndarray]:
    """The frames in order, (H, W, 3) RGB, uint8 or uint16.

    Raises:
        UserError: frames of different sizes, or one that cannot be decoded.
    """
    shape: tuple[int, ...] | None = None
    images: Iterable[np.ndarray]
    if isinstance(clip, Video):
        images = (image() for _, image in clip.frames())
    else:
        images = (clip.read([number])[0] for number in range(len(clip)))
    for number, image in enumerate(images):
        shape = shape or image.shape
        if image.shape != shape:
            sizes = [f"{s[0]}x{s[1]}" for s in (image.shape, shape)]
            raise UserError(f"{clip.path(number)}: is {sizes[0]} (height x width), but {clip.path(0)} is {sizes[1]}")
        yield image


def without_repeats(clip: Clip) -> list[int]:
    """The numbers of the frames that are not the one before once more."""
    numbers = [0]
    for number, (before, after) in enumerate(itertools.pairwise(map(to_tensor, frames_of(clip))), 1):
        if not repeats(before, after):
            numbers.append(number)
    return numbers


class Between:
    """The frames of a video of more frames, (H, W, 3) integers of the input's depth. Those of the input stay as they are.

    Args:
        model: model that interpolates.
        device: device on which it computes.
        across_cuts: whether there are frames between two scenes too; else the frame before a cut stands until it.

    Attributes:
        cuts: how many cuts there were.
    """

    def __init__(self, model: Any, device: torch.device, across_cuts: bool = False) -> None:
        self.model, self.device, self.across_cuts = model, device, across_cuts
        self.cuts = 0

    @torch.no_grad()
    def __call__(self, frames: Iterator[np.ndarray], moments: Iterable[Moment]) -> Iterator[tuple[Moment, np.ndarray]]:
        """The frame of each moment.

        Args:
            frames: frames of the input.
            moments: moments in the order of time.
        """
        number = -1
        before: np.ndarray | None = None
        scenes = Scenes(frames, to_tensor)
        coming = frames if self.across_cuts else iter(scenes)
        after = next(coming, None)
        ends: dict[float, Tensor] = {}
        cut = False
        for moment in moments:
            while number < moment.before:
                number, before, after = number + 1, after, next(coming, None)
                ends, cut = {}, after is not None and scenes.begins
                self.cuts += cut
            assert before is not None
            if moment.part and not ends:
                assert after is not None
                ends.update({t: to_tensor(f)[None].to(self.device) for t, f in ((0.0, before), (1.0, after))})
            if not moment.part or cut:
                yield moment, before
                continue
            image = self.model.at(float(moment.part), ends)[0]
            yield moment, to_integer(image, 16 if before.dtype == np.uint16 else 8)
