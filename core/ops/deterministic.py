"""Operations that CUDA computes in a varying order, in a fixed one: what ``deterministic: true`` takes in their place.

torch refuses these itself there (`torch.use_deterministic_algorithms`): running sums of floats, and the gradients of
`grid_sample`, which are added up by atomic additions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def wanted(x: Tensor) -> bool:
    """Whether sums on the device of `x` must come out the same every time, and would not by themselves."""
    return x.is_cuda and torch.are_deterministic_algorithms_enabled()


def running_sum(x: Tensor, dim: int) -> Tensor:
    """Sums of everything up to each place of a dimension, as ``torch.cumsum`` has them.

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

    In a fixed order each of the four pixels around a place is gathered by its number; torch adds up the gradients of that in
    order. Reflected and bicubic sampling has no such form here, and torch says so.
    """
    if mode not in ("bilinear", "nearest") or padding_mode not in ("zeros", "border") or not wanted(x):
        return F.grid_sample(x, grid, mode, padding_mode, align_corners)
    right, down = (
        (g + 1) / 2 * (size - 1) if align_corners else ((g + 1) * size - 1) / 2
        for g, size in zip(grid.unbind(-1), (x.shape[3], x.shape[2]), strict=True)
    )
    if padding_mode == "border":
        right, down = right.clamp(0, x.shape[3] - 1), down.clamp(0, x.shape[2] - 1)
    if mode == "nearest":
        return _pixels(x, right.round(), down.round())
    left, top = right.floor(), down.floor()
    across, along = (right - left)[:, None], (down - top)[:, None]
    upper = _pixels(x, left, top) * (1 - across) + _pixels(x, left + 1, top) * across
    lower = _pixels(x, left, top + 1) * (1 - across) + _pixels(x, left + 1, top + 1) * across
    return upper * (1 - along) + lower * along


def _pixels(x: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Pixels (N, C, h, w) at whole places (N, h, w); zero outside."""
    height, width = x.shape[-2:]
    inside = (right >= 0) & (right < width) & (down >= 0) & (down < height)
    number = down.long().clamp(0, height - 1) * width + right.long().clamp(0, width - 1)
    taken = x.flatten(2).gather(2, number.flatten(1)[:, None].expand(-1, x.shape[1], -1))
    return torch.where(inside[:, None], taken.view(*x.shape[:2], *number.shape[1:]), 0)
