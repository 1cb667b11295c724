"""How neighbouring frames of a clip are to each other: of different scenes, or the same once more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import torch.nn.functional as F
from torch import Tensor

T = TypeVar("T")
THUMBNAIL = 16
"""Side of the small pictures that are compared to find scene cuts: what moves, hardly moves in them."""
CUT = 15 / 255
"""Mean difference of thumbnails below which there is no cut."""
HARD = 64 / 255
"""Mean difference from which on frames before a cut are enough to tell it, though the next frame differs as much again."""
TIMES = 3
"""How many times as much as around it frames differ at a cut."""
REMEMBERED = 4
"""Differences before a frame that it is compared with."""
BLOCK = 8
SAME = 2 / 255
"""Mean difference of a block up to which it is the same but for what compression does."""


class Scenes(Generic[T]):
    """The frames of a clip, and where scenes begin: where two frames differ far more than those around them do.

    So neither noise nor fast motion, which go on, are cuts. Two frames alone are of one scene. One frame is read ahead.

    Args:
        frames: frames in order.
        image: function that makes (..., C, H, W) in [0, 1] of one frame.

    Attributes:
        begins: whether the frame that came last is the first one of a scene, after another.
    """

    def __init__(self, frames: Iterable[T], image: Callable[[T], Tensor]) -> None:
        self.frames, self.image = iter(frames), image
        self.begins = False

    def __iter__(self) -> Iterator[T]:
        recent: deque[float] = deque(maxlen=REMEMBERED)
        frame = next(self.frames, None)
        if frame is None:
            return
        here, change = self._thumbnail(frame), None
        while frame is not None:
            after = next(self.frames, None)
            there = None if after is None else self._thumbnail(after)
            coming = None if there is None else float((there - here).abs().mean())
            self.begins = change is not None and is_cut(change, recent, coming)
            if change is not None and not self.begins:
                recent.append(change)
            yield frame
            if after is None or there is None:
                return
            frame, here, change = after, there, coming

    def _thumbnail(self, frame: T) -> Tensor:
        image = self.image(frame)
        return F.adaptive_avg_pool2d(image.reshape(-1, *image.shape[-2:]).float(), THUMBNAIL)


def beginnings(clip: Tensor) -> list[int]:
    """The numbers of the frames of a clip (T, C, H, W) in [0, 1] with which scenes begin, the first one's among them."""
    scenes = Scenes(clip, lambda frame: frame)
    return [number for number, _ in enumerate(scenes) if number == 0 or scenes.begins]


def is_cut(change: float, before: Iterable[float], after: float | None) -> bool:
    """Whether so much change is that of a cut.

    Args:
        change: mean difference of two frames' thumbnails.
        before: differences of the frames before them.
        after: difference of the frames after them, if there are any.
    """
    earlier = list(before)
    around = [*([sum(earlier) / len(earlier)] if earlier else ()), *(() if after is None else (after,))]
    if change <= CUT or not around:
        return False
    return change > TIMES * sum(around) / len(around) or (
        bool(earlier) and change > max(HARD, TIMES * sum(earlier) / len(earlier))
    )


def repeats(before: Tensor, after: Tensor) -> bool:
    """Whether the second of two frames (C, H, W) in [0, 1] is the first once more, as encoders leave it."""
    if before.shape != after.shape:
        return False
    blocks = F.avg_pool2d((after.float() - before.float()).abs()[None], BLOCK, ceil_mode=True, count_include_pad=False)
    return float(blocks.mean(1).max()) <= SAME
