"""Operations that CUDA computes in a varying order, in a fixed one: what ``deterministic: true`` takes in their place.

torch refuses these itself there (`torch.use_deterministic_algorithms`): running sums of floats, and the gradients of
`grid_sample`, which are added up by atomic additions.
"""

from __future__ import annotations

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
    gradients of that in order. Reflected sampling has no such form here, and torch says so.
    """
    if padding_mode not in ("zeros", "border") or not wanted(x):
        return F.grid_sample(x, grid, mode, padding_mode, align_corners)
    right, down = (
        (g + 1) / 2 * (size - 1) if align_corners else ((g + 1) * size - 1) / 2
        for g, size in zip(grid.unbind(-1), (x.shape[3], x.shape[2]), strict=True)
    )
    border = padding_mode == "border"
    if mode == "bicubic":
        return _bicubic(x, right, down, border)
    if border:
        right, down = right.clamp(0, x.shape[3] - 1), down.clamp(0, x.shape[2] - 1)
    if mode == "nearest":
        return _pixels(x, right.round(), down.round())
    left, top = right.floor(), down.floor()
    across, along = (right - left)[:, None], (down - top)[:, None]
    upper = _pixels(x, left, top) * (1 - across) + _pixels(x, left + 1, top) * across
    lower = _pixels(x, left, top + 1) * (1 - across) + _pixels(x, left + 1, top + 1) * across
    return upper * (1 - along) + lower * along


def _bicubic(x: Tensor, right: Tensor, down: Tensor, border: bool) -> Tensor:
    """By Keys' convolution with a = -0.75; what is outside is the border's, or zero."""
    left, top = right.floor(), down.floor()
    columns, rows = _cubic(right - left), _cubic(down - top)
    lines = []
    for i, row in enumerate(rows):
        line = []
        for j, column in enumerate(columns):
            places = left + (j - 1), top + (i - 1)
            if border:
                places = places[0].clamp(0, x.shape[3] - 1), places[1].clamp(0, x.shape[2] - 1)
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
