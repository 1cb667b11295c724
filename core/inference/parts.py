"""Images in parts, cut the way that published results of some networks were made.

Where a network sees the whole of what it is given (attention, scans, statistics over the image), its result depends on the
cut. These are the cuts of BasicSR's forks, to the pixel. To save memory only, take `tiling.tiled`, which blends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from .tiling import Function, Outputs, as_tuple, forward_padded, mirrored, output_scales


class Span(NamedTuple):
    """Along one axis, in input pixels: what the network sees, and what is kept of its answer; ends are exclusive."""

    begin: int
    end: int
    first: int
    last: int


class Cut:
    """How images are cut; called as `in_parts` is, without the cut."""

    def __call__(self, fn: Function, x: Tensor, multiple: int = 1) -> Outputs:
        return in_parts(fn, x, self, multiple)

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The size that an image is first continued to, by reflection at its right and bottom."""
        return height, width

    def spans(self, height: int, width: int) -> tuple[list[Span], list[Span]]:
        """The parts along both axes.

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class EqualParts(Cut):
    """Equal parts, each seen with some of what is around it (DATModel, HITModel, MambaIRModel and its successors).

    An image that cannot be divided is first continued by reflection. (DATModel and HITModel repeat the outermost pixel there.)

    Args:
        below: bound of a part's side: an axis of n pixels is cut into ``n // below + 1`` parts.
        context: pixels around a part that the network also sees, within the image; below 1, the share of the part's side.
    """

    below: int
    context: float = 16

    def padded(self, height: int, width: int) -> tuple[int, int]:
        first, second = (-(-n // self._count(n)) * self._count(n) for n in (height, width))
        return first, second

    def _count(self, n: int) -> int:
        return n // self.below + 1

    def spans(self, height: int, width: int) -> tuple[list[Span], list[Span]]:
        sizes = zip((height, width), self.padded(height, width), strict=True)
        rows, columns = (self._along(padded, self._count(n)) for n, padded in sizes)
        return rows, columns

    def _along(self, n: int, count: int) -> list[Span]:
        side = n // count
        context = int(self.context * side) if self.context < 1 else int(self.context)
        return [seen(first, first + side, context, n) for first in range(0, n, side)]


@dataclass(frozen=True)
class SideBySide(Cut):
    """Tiles of one size beginning at the top left, each seen with what is around it (HATModel, after Real-ESRGAN).

    Args:
        side: side of a tile, in input pixels.
        context: pixels around a tile that the network also sees, within the image.
    """

    side: int
    context: int

    def spans(self, height: int, width: int) -> tuple[list[Span], list[Span]]:
        rows, columns = (
            [seen(first, min(first + self.side, n), self.context, n) for first in range(0, n, self.side)]
            for n in (height, width)
        )
        return rows, columns


@dataclass(frozen=True)
class Grid(Cut):
    """Crops of one size spread evenly over the image, averaged where they overlap (ImageRestorationModel's ``grids``).

    Args:
        height: height of a crop, in pixels of the output; up to 1, the share of the image's.
        width: width of a crop, in pixels of the output; up to 1, the share of the image's.
        scale: output size / input size; crops are rounded down to it.
    """

    height: float
    width: float
    scale: int = 1

    def spans(self, height: int, width: int) -> tuple[list[Span], list[Span]]:
        return self._along(height, self.height), self._along(width, self.width)

    def _along(self, n: int, crop: float) -> list[Span]:
        whole = n * self.scale
        side = min(int(crop * whole) if crop <= 1 else int(crop), whole) // self.scale
        side = max(side, 1)
        count = -(-n // side)
        # The step is rounded up to whole output pixels, then down to input pixels, as there.
        step = math.ceil((whole - side * self.scale) / (count - 1)) // self.scale if count > 1 else side
        starts = [*range(0, n - side, max(step, 1)), n - side]
        return [Span(first, first + side, first, first + side) for first in starts]


def seen(first: int, last: int, context: int, size: int) -> Span:
    """The pixels from `first` to `last` (exclusive), with context as far as an axis of `size` has it."""
    return Span(max(first - context, 0), min(last + context, size), first, last)


def in_parts(fn: Function, x: Tensor, cut: Cut, multiple: int = 1) -> Outputs:
    """``fn(x)`` computed part by part.

    Args:
        fn: function from (B, C, h, w) to one image or several, each an integer multiple of that size.
        x: (B, C, H, W).
        cut: the parts to cut into; what is kept of several is averaged.
        multiple: what `fn` needs sizes to be a multiple of: parts are continued by reflection.

    Raises:
        UserError: an output's size is not a multiple of the input's.
    """
    height, width = x.shape[-2:]
    rows, columns = cut.spans(height, width)
    whole = mirrored(x, cut.padded(height, width))
    sums: list[Tensor] = []
    times = x.new_zeros(whole.shape[-2:])
    scales: tuple[int, ...] = ()
    several = False
    # Every piece is computed with its surroundings, of which only the middle is added up.
    for row in rows:
        for column in columns:
            piece = whole[..., row.begin : row.end, column.begin : column.end]
            result = forward_padded(fn, piece, multiple)
            several = not isinstance(result, Tensor)
            outputs = as_tuple(result)
            scales = output_scales(outputs, piece)
            sums = sums or [
                y.new_zeros(*y.shape[:-2], whole.shape[-2] * s, whole.shape[-1] * s)
                for y, s in zip(outputs, scales, strict=True)
            ]
            for total, y, s in zip(sums, outputs, scales, strict=True):
                kept = y[
                    ...,
                    (row.first - row.begin) * s : (row.last - row.begin) * s,
                    (column.first - column.begin) * s : (column.last - column.begin) * s,
                ]
                total[..., row.first * s : row.last * s, column.first * s : column.last * s] += kept
            times[row.first : row.last, column.first : column.last] += 1
    # Where pieces overlap, their results are averaged.
    if times.max() > 1:
        for total, s in zip(sums, scales, strict=True):
            total /= times.repeat_interleave(s, 0).repeat_interleave(s, 1)
    cropped = tuple(y[..., : height * s, : width * s] for y, s in zip(sums, scales, strict=True))
    return cropped if several else cropped[0]
