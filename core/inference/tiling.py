"""Running a network on an image of any size: padding to the size it takes, and tiles where the whole does not fit.

Done once, here, for every network. A network says what sizes it takes (`NetworkTraits.size_multiple`),
and may return one image or several, each an integer multiple of its input's size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .network import network_trait

Padding = Literal["reflect", "centred"]
"""Mirrored at the right and bottom border; or the outermost pixels repeated on all sides (``InputPadder`` of RAFT, with which
figures of frame interpolation are published)."""

Outputs = Tensor | tuple[Tensor, ...]
Function = Callable[..., Tensor | Sequence[Tensor]]


@dataclass(frozen=True)
class Inference:
    """How to call a network on whole images.

    Args:
        tile: side of the tiles that the network sees, in input pixels; None gives it whole images.
        overlap: width over which neighbouring tiles are blended; see `tiled`.
        window_size: pad to a multiple of this, besides the network's own ``size_multiple``.
        padding: padding of whole images; tiles are always mirrored.
        cut: a way to cut of `core.inference.parts`, in place of tiles.
    """

    tile: int | None = None
    overlap: int = 32
    window_size: int | None = None
    padding: Padding = "reflect"
    cut: Callable[[Function, Tensor, int], Outputs] | None = None

    def __call__(self, net: Callable[..., Tensor | Sequence[Tensor]], *images: Tensor, **same: Any) -> Outputs:
        """The network's output for `images`, each (B, C, H, W) of the same size: a tensor, or a tuple of them.

        Args:
            net: network, called with the images or with tiles of them.
            images: what is padded and tiled, alike.
            same: what every call gets as it is, by keyword.

        Raises:
            UserError: the tiles leave no step after the overlap, or an output's size is no multiple of the input's.
        """
        if network_trait(net, "draws_in_evaluation") and not getattr(net, "training", False):
            return self._drawn(net, *images, **same)
        return self._run(net, *images, **same)

    def _drawn(self, net: Callable[..., Tensor | Sequence[Tensor]], *images: Tensor, **same: Any) -> Outputs:
        """Picture by picture, each with the same random numbers: what comes before it or beside it has no influence."""
        device = images[0].device
        results = []
        for i in range(len(images[0])):
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                torch.manual_seed(0)
                results.append(self._run(net, *(image[i : i + 1] for image in images), **same))
        if isinstance(results[0], Tensor):
            return torch.cat([y for y in results if isinstance(y, Tensor)])
        return tuple(torch.cat(parts) for parts in zip(*results, strict=True))

    def _run(self, net: Callable[..., Tensor | Sequence[Tensor]], *images: Tensor, **same: Any) -> Outputs:
        channels = [image.shape[1] for image in images]

        def call(stacked: Tensor) -> Tensor | Sequence[Tensor]:
            return net(*stacked.split(channels, dim=1), **same)

        stacked = images[0] if len(images) == 1 else torch.cat(images, dim=1)
        multiple = math.lcm(size_multiple(net), self.window_size or 1)
        if self.cut is not None:
            return self.cut(call, stacked, multiple)
        if self.tile is None:
            return forward_padded(call, stacked, multiple, self.padding)
        return tiled(call, stacked, self.tile, self.overlap, multiple)


def size_multiple(net: Callable[..., object]) -> int:
    """What a network needs height and width to be a multiple of, also when it is wrapped (DDP, compiled, averaged)."""
    return int(network_trait(net, "size_multiple"))


# ------------------------------------------------------------------ padding
def pad_to_multiple(x: Tensor, multiple: int) -> tuple[Tensor, tuple[int, int]]:
    """Reflect an image at its right and bottom border, over and over if need be, until its size is a multiple.

    Args:
        x: (..., H, W), H and W at least 1. Where the size is 1 there is nothing to reflect, and the pixel is repeated.
        multiple: what height and width shall be multiples of.

    Returns:
        (..., H', W') with H' >= H the next multiple, and ``(H, W)`` to crop to.
    """
    height, width = x.shape[-2:]
    return mirrored(x, (next_multiple(height, multiple), next_multiple(width, multiple))), (height, width)


def mirrored(x: Tensor, size: tuple[int, int]) -> Tensor:
    """`x` (..., H, W) continued to `size` at its right and bottom by reflection; the outermost pixels are not repeated."""
    for dim, wanted in zip((-2, -1), size, strict=True):
        n = x.shape[dim]
        if wanted > n:
            period = max(2 * (n - 1), 1)
            phase = torch.arange(wanted, device=x.device) % period
            x = x.index_select(dim, torch.minimum(phase, period - phase) if n > 1 else phase)
    return x


def centred_padding(height: int, width: int, multiple: int) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) to add so that a size becomes a multiple, the odd pixel on the right and at the bottom."""
    spare = [next_multiple(side, multiple) - side for side in (width, height)]
    (left, right), (top, bottom) = ((n // 2, n - n // 2) for n in spare)
    return left, right, top, bottom


def next_multiple(n: int, multiple: int) -> int:
    """`n`, rounded up to a multiple."""
    return -(-n // multiple) * multiple


def forward_padded(fn: Function, x: Tensor, multiple: int, padding: Padding = "reflect") -> Outputs:
    """``fn(x)`` with `x` (B, C, H, W) padded to a multiple, and every output cropped to H and W times its scale.

    Raises:
        UserError: an output's size is not an integer multiple of the input's.
    """
    h, w = x.shape[-2:]
    left = top = 0
    if padding == "centred":
        sides = centred_padding(h, w, multiple)
        left, _, top, _ = sides
        padded = F.pad(x, sides, mode="replicate")
    else:
        padded, _ = pad_to_multiple(x, multiple)
    result = fn(padded)
    outputs = as_tuple(result)
    cropped = tuple(
        y[..., top * s : (top + h) * s, left * s : (left + w) * s]
        for y, s in zip(outputs, output_scales(outputs, padded), strict=True)
    )
    return cropped[0] if isinstance(result, Tensor) else cropped


def as_tuple(result: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """A network's outputs, of any shape, as a tuple."""
    return (result,) if isinstance(result, Tensor) else tuple(result)


def output_scales(outputs: tuple[Tensor, ...], x: Tensor) -> tuple[int, ...]:
    """The size of each output (..., s H, s W) over that of the input (..., H, W): s.

    Raises:
        UserError: the size of an output is no integer multiple of the input's.
    """
    h, w = x.shape[-2:]
    scales = []
    for y in outputs:
        s = y.shape[-2] // h if y.ndim == x.ndim else 0
        if s < 1 or (y.shape[-2], y.shape[-1]) != (s * h, s * w):
            raise UserError(
                f"the network made {tuple(y.shape)} of {tuple(x.shape)}; "
                "an output's height and width must be the same integer multiple of the input's"
            )
        scales.append(s)
    return tuple(scales)


# ------------------------------------------------------------------ tiles
def tiled(fn: Function, x: Tensor, tile: int, overlap: int, multiple: int = 1) -> Outputs:
    """``fn(x)`` computed tile by tile and blended, in memory for the outputs, one row of tiles and one tile.

    Neighbouring tiles blend linearly over `overlap` pixels, with weights that sum to one. Where tiles are at least twice
    as large as the overlap, each also sees half an overlap of context beyond, so that what is blended does not
    feel the tile's border: a network with a receptive field of no more than `overlap` pixels gives the same as on the
    whole image. An image that fits one tile is not tiled.

    Args:
        fn: function from (B, C, h, w) to one image or several, each an integer multiple of that size.
        x: (B, C, H, W).
        tile: side of what `fn` sees, in pixels of `x`; rounded down to a multiple of `multiple`, at least one.
        overlap: overlap of tiles, at least 0, in pixels of `x`.
        multiple: what `fn` needs sizes to be a multiple of. Tiles start at multiples of it too, so that a network that
            downsamples sees the grid that it would see on the whole image.

    Raises:
        UserError: the tile leaves no step after the overlap, or an output's size is not a multiple of the input's.
    """
    side = max(tile // multiple, 1) * multiple
    if overlap < 0 or side - overlap < multiple:
        rounded = f" (rounded to {side})" if side != tile else ""
        raise UserError(
            f"tile {tile}{rounded} and tile overlap {overlap}: the overlap must be at least 0, and smaller than the tile "
            f"by {multiple} or more (the network's size multiple)"
        )
    padded, (h, w) = pad_to_multiple(x, multiple)
    rows, columns = (_starts(n, side, overlap, multiple) for n in padded.shape[-2:])
    if len(rows) == len(columns) == 1:
        return forward_padded(fn, x, multiple)
    canvas: list[_Canvas] = []
    for top in rows:
        strip, several = _strip(fn, padded[..., top : top + side, :], columns, overlap)
        canvas = canvas or [_Canvas(-2, padded.shape[-2], overlap, band.scale) for band in strip]
        for image, band in zip(canvas, strip, strict=True):
            image.add(band.pixels, top)
    cropped = tuple(c.pixels[..., : h * c.scale, : w * c.scale] for c in canvas)
    return cropped if several else cropped[0]


def _strip(fn: Function, x: Tensor, columns: list[int], overlap: int) -> tuple[list[_Canvas], bool]:
    """One row of tiles, side by side, for each output; and whether `fn` returns several."""
    side = x.shape[-1] - columns[-1]  # the last tile ends at the border
    strip: list[_Canvas] = []
    several = False
    for left in columns:
        piece = x[..., left : left + side]
        result = fn(piece)
        several = not isinstance(result, Tensor)
        outputs = as_tuple(result)
        scales = output_scales(outputs, piece)
        strip = strip or [_Canvas(-1, x.shape[-1], overlap, s) for s in scales]
        for band, y in zip(strip, outputs, strict=True):
            band.add(y, left)
    return strip, several


def _starts(size: int, side: int, overlap: int, multiple: int) -> list[int]:
    """Where tiles begin along an axis of `size` (a multiple of `multiple`), evenly spread."""
    if size <= side:
        return [0]
    context = min(overlap // 2 + overlap % 2, (side - overlap - multiple) // 2)
    step = (side - overlap - 2 * context) // multiple * multiple
    last = (size - side) // multiple
    count = -(-last // (step // multiple)) + 1
    return [i * last // (count - 1) * multiple for i in range(count)]


class _Canvas:
    """Tiles put side by side along one axis, each faded in over the middle of what it shares with those before.

    Args:
        dim: the axis.
        size: size of the whole along it, in input pixels.
        overlap: width of the ramp, in input pixels; narrower where tiles share less.
        scale: output pixels per input pixel.
    """

    pixels: Tensor

    def __init__(self, dim: int, size: int, overlap: int, scale: int) -> None:
        self.dim, self.size, self.overlap, self.scale = dim, size * scale, overlap * scale, scale
        self.filled = 0

    def add(self, y: Tensor, start: int) -> None:
        """Put `y` at `start` (input pixels); starts ascend."""
        start *= self.scale
        n = y.shape[self.dim]
        if self.filled == 0:
            shape = list(y.shape)
            shape[self.dim] = self.size
            self.pixels = y.new_empty(shape)
            self.pixels.narrow(self.dim, 0, n).copy_(y)
            self.filled = n
            return
        shared = self.filled - start
        ramp = min(self.overlap, shared)
        skipped = (shared - ramp) // 2
        if ramp:
            weight = (torch.arange(ramp, device=y.device, dtype=torch.float32) + 0.5) / ramp
            weight = weight.to(y.dtype).view(-1, 1) if self.dim == -2 else weight.to(y.dtype)
            old = self.pixels.narrow(self.dim, start + skipped, ramp)
            old.copy_(torch.lerp(old, y.narrow(self.dim, skipped, ramp), weight))
        fresh = skipped + ramp
        self.pixels.narrow(self.dim, start + fresh, n - fresh).copy_(y.narrow(self.dim, fresh, n - fresh))
        self.filled = start + n
