"""Operations that CUDA computes in a varying order, in a fixed one: what ``deterministic: true`` takes in their place.

torch refuses these itself there (`torch.use_deterministic_algorithms`): running sums of floats, and the gradients of
`grid_sample` and of deformable convolutions, which are added up by atomic additions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def wanted(x: Tensor) -> bool:
    """Whether sums on the device of `x`, of any shape, must be the same in every run, which torch alone does not ensure."""
    return x.is_cuda and torch.are_deterministic_algorithms_enabled()


def running_sum(x: Tensor, dim: int) -> Tensor:
    """Sums of everything up to each place of a dimension, of the shape of `x`, as ``torch.cumsum`` has them.

    In a fixed order they are built up by doubling: after k rounds a place holds the sum of the last 2^k.
    """
    if not wanted(x):
        return x.cumsum(dim)
    length, reach = x.shape[dim], 1
    while reach < length:
        earlier = x.narrow(dim, 0, length - reach)
        x = torch.cat([x.narrow(dim, 0, reach), x.narrow(dim, reach, length - reach) + earlier], dim)
        reach *= 2
    return x


def grid_sample(x: Tensor, grid: Tensor, mode: str, padding_mode: str, align_corners: bool) -> Tensor:
    """``torch.nn.functional.grid_sample`` of (N, C, H, W) at (N, h, w, 2).

    In a fixed order each of the 4 (bilinear) or 16 (bicubic) pixels around a place is gathered by its number; torch adds up the
    gradients of that in order.
    """
    if not wanted(x):
        return F.grid_sample(x, grid, mode, padding_mode, align_corners)
    right, down = (
        (g + 1) / 2 * (size - 1) if align_corners else ((g + 1) * size - 1) / 2
        for g, size in zip(grid.unbind(-1), (x.shape[3], x.shape[2]), strict=True)
    )
    if padding_mode == "zeros":
        inside: Inside = _anywhere
    else:
        inside = _clipped if padding_mode == "border" else _mirrored if align_corners else _mirrored_at_edges
    if mode == "bicubic":
        return _bicubic(x, right, down, inside)
    right, down = inside(right, x.shape[3]), inside(down, x.shape[2])
    if mode == "nearest":
        return _pixels(x, right.round(), down.round())
    return _bilinear(x, right, down)


def deform_conv(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """What ``torchvision.ops.deform_conv2d`` gives, of the same arguments, in a fixed order: (N, O, h, w).

    Every tap of every place is sampled as `grid_sample` does, and all are multiplied by the weights at once. That keeps as many
    values as the image has, times the taps, several times over.
    """
    (batch, channels), (outputs, inputs, *taps) = x.shape[:2], weight.shape
    count, (height, width) = taps[0] * taps[1], offset.shape[-2:]
    groups, parts = offset.shape[1] // (2 * count), channels // inputs
    moved = offset.reshape(-1, count, 2, height, width)  # for each image and group of channels that are moved alike
    lines = []
    for axis in (0, 1):
        start = torch.arange(offset.shape[2 + axis], device=x.device) * stride[axis] - padding[axis]
        tap = torch.arange(taps[axis], device=x.device) * dilation[axis]
        lines.append((tap[:, None] + start).to(x.dtype))
    down = lines[0].repeat_interleave(taps[1], 0)[:, :, None] + moved[:, :, 0]
    right = lines[1].repeat(taps[0], 1)[:, None, :] + moved[:, :, 1]
    found = _bilinear(x.reshape(batch * groups, -1, *x.shape[2:]), right.flatten(1, 2), down.flatten(1, 2))
    found = found * mask.reshape(batch * groups, 1, -1, width)
    columns = found.reshape(batch, parts, inputs * count, height * width)
    y = (weight.reshape(parts, outputs // parts, -1) @ columns).reshape(batch, outputs, height, width)
    return y if bias is None else y + bias[:, None, None]


Inside = Callable[[Tensor, int], Tensor]
"""Where places along a side of so many pixels are sampled, that lie beyond it."""


def _anywhere(place: Tensor, size: int) -> Tensor:
    return place


def _clipped(place: Tensor, size: int) -> Tensor:
    """At the border, where the place itself has no gradient, as torch has it."""
    within = (place > 0) & (place < size - 1)
    return torch.where(within, place, place.detach().clamp(0, size - 1))


def _mirrored(place: Tensor, size: int) -> Tensor:
    """Reflected about the outermost pixels' centres."""
    return _clipped(_folded(place, size - 1), size) if size > 1 else torch.zeros_like(place)


def _mirrored_at_edges(place: Tensor, size: int) -> Tensor:
    """Reflected about the edges, half a pixel beyond."""
    return _clipped(_folded(place + 0.5, size) - 0.5, size)


def _folded(place: Tensor, span: int) -> Tensor:
    """Between 0 and `span`, there and back."""
    place = place.abs()
    turns, rest = (place / span).floor(), place % span
    return torch.where(turns % 2 == 0, rest, span - rest)


def _bilinear(x: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """(N, C, H, W) at places (N, h, w) in pixels: (N, C, h, w); what is outside is zero."""
    left, top = right.floor(), down.floor()
    across, along = (right - left)[:, None], (down - top)[:, None]
    upper = _pixels(x, left, top) * (1 - across) + _pixels(x, left + 1, top) * across
    lower = _pixels(x, left, top + 1) * (1 - across) + _pixels(x, left + 1, top + 1) * across
    return upper * (1 - along) + lower * along


def _bicubic(x: Tensor, right: Tensor, down: Tensor, inside: Inside) -> Tensor:
    """By Keys' convolution with a = -0.75."""
    left, top = right.floor(), down.floor()
    columns, rows = _cubic(right - left), _cubic(down - top)
    lines = []
    for i, row in enumerate(rows):
        line = []
        for j, column in enumerate(columns):
            places = inside(left + (j - 1), x.shape[3]), inside(top + (i - 1), x.shape[2])
            line.append(_pixels(x, *places) * column[:, None])
        lines.append(sum(line[1:], line[0]) * row[:, None])
    return sum(lines[1:], lines[0])


def _cubic(t: Tensor) -> list[Tensor]:
    """Weights of the four pixels around a place, of which the second is `t` before it."""
    a = -0.75

    def near(d: Tensor) -> Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Tensor) -> Tensor:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def _pixels(x: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Pixels (N, C, h, w) at whole places (N, h, w); zero outside."""
    height, width = x.shape[-2:]
    inside = (right >= 0) & (right < width) & (down >= 0) & (down < height)
    number = down.long().clamp(0, height - 1) * width + right.long().clamp(0, width - 1)
    taken = x.flatten(2).gather(2, number.flatten(1)[:, None].expand(-1, x.shape[1], -1))
    return torch.where(inside[:, None], taken.view(*x.shape[:2], *number.shape[1:]), 0)
