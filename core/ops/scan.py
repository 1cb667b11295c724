"""Orders in which images become sequences for a causal model, and the way back.

Each pair is adjoint: the gradient of a scan is its merge, and of a merge its scan.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def interleaved_scan(x: Tensor) -> Tensor:
    """Two frames, pixel by pixel in turn, along rows, along columns, and both backwards (VFIMamba, NeurIPS 2024).

    Args:
        x: (2B, H, W, C): the first frames of all samples, then the second ones.

    Returns:
        (4B, 2HW, C), contiguous; sample b has sequences 4b to 4b + 3.
    """
    result: Tensor = _Interleave.apply(x)
    return result


def interleaved_merge(y: Tensor, height: int, width: int) -> Tensor:
    """Sum of the four sequences where they meet: (4B, 2HW, C) -> (2B, H, W, C), contiguous."""
    result: Tensor = _Merge.apply(y, height, width)
    return result


def interleaved_orders(height: int, width: int) -> Tensor:
    """Which pixel each step of `interleaved_scan` takes, of those of the first frame and then of the second: (4, 2HW)."""
    pixels = torch.arange(2 * height * width).view(2, height, width)
    forwards = torch.stack([pixels.permute(1, 2, 0).flatten(), pixels.permute(2, 1, 0).flatten()])
    return torch.cat([forwards, forwards.flip(1)])


class _Interleave(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        frames, height, width, channels = x.shape
        ctx.size = height, width
        out = x.new_empty(frames // 2, 4, 2 * height * width, channels)
        pairs = x.unflatten(0, (2, -1)).permute(1, 2, 3, 0, 4)  # (B, H, W, 2, C)
        out[:, 0].view(pairs.shape).copy_(pairs)
        out[:, 1].view(pairs.transpose(1, 2).shape).copy_(pairs.transpose(1, 2))
        out[:, 2:] = out[:, :2].flip(2)
        return out.flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return interleaved_merge(grad, *ctx.size)


class _Merge(Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, height: int, width: int) -> Tensor:
        y = y.unflatten(0, (-1, 4))
        both = y[:, :2] + y[:, 2:].flip(2)
        rows = both[:, 0].unflatten(1, (height, width, 2))
        columns = both[:, 1].unflatten(1, (width, height, 2))
        result: Tensor = (rows + columns.transpose(1, 2)).permute(3, 0, 1, 2, 4).flatten(0, 1)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return interleaved_scan(grad), None, None


def cross_scan(x: Tensor) -> Tensor:
    """An image along rows, along columns, and both backwards (VMamba; MambaIR, ECCV 2024).

    Args:
        x: (B, C, H, W).

    Returns:
        (B, 4, C, H W), contiguous.
    """
    result: Tensor = _Cross.apply(x)
    return result


def cross_merge(y: Tensor, height: int, width: int) -> Tensor:
    """Sum of the four sequences where they meet: (B, 4, C, H W) -> (B, C, H, W)."""
    result: Tensor = _CrossMerge.apply(y, height, width)
    return result


class _Cross(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        ctx.size = height, width
        out = x.new_empty(batch, 4, channels, height * width)
        out[:, 0].view(x.shape).copy_(x)
        out[:, 1].view(batch, channels, width, height).copy_(x.transpose(2, 3))
        out[:, 2:] = out[:, :2].flip(-1)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return cross_merge(grad, *ctx.size)


class _CrossMerge(Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, height: int, width: int) -> Tensor:
        both = y[:, :2] + y[:, 2:].flip(-1)
        rows, columns = both[:, 0].unflatten(-1, (height, width)), both[:, 1].unflatten(-1, (width, height))
        result: Tensor = rows + columns.transpose(2, 3)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return cross_scan(grad), None, None


def flip_scan(x: Tensor) -> Tensor:
    """Single images along rows, as they are and mirrored left-right, top-bottom and both.

    Args:
        x: (B, H, W, C).

    Returns:
        (4B, HW, C): all images as they are, then all of each mirrored kind.
    """
    return torch.cat([x, x.flip(2), x.flip(1), x.flip(1, 2)]).flatten(1, 2)


def flip_merge(y: Tensor, height: int, width: int) -> Tensor:
    """Sum of the four sequences where they meet: (4B, HW, C) -> (B, H, W, C)."""
    plain, left_right, top_bottom, both = y.unflatten(1, (height, width)).chunk(4)
    result: Tensor = plain + left_right.flip(2) + top_bottom.flip(1) + both.flip(1, 2)
    return result


def window_partition(x: Tensor, size: int) -> Tensor:
    """(B, H, W, C) -> (B * H/size * W/size, size, size, C), windows of an image row by row."""
    result: Tensor = x.unflatten(1, (-1, size)).unflatten(3, (-1, size)).transpose(2, 3).flatten(0, 2)
    return result


def window_reverse(windows: Tensor, height: int, width: int) -> Tensor:
    """The way back: (B * H/size * W/size, size, size, C) -> (B, H, W, C)."""
    size = windows.shape[1]
    x = windows.unflatten(0, (-1, height // size, width // size))
    result: Tensor = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return result
