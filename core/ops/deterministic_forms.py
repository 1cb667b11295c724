"""Functions of torch whose gradients CUDA adds up in a varying order, by others: ``deterministic: true`` puts them
in their place wherever they are called, in networks and losses of anybody's.

Values and gradients are torch's but for the rounding of sums.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from . import deterministic

RESIZED = ("bicubic", "bilinear")
"""Ways to enlarge and shrink that mix rows and columns one after the other."""


class Forms(TorchFunctionMode):
    """Inside, functions are replaced where their gradient is wanted on a device that would add it up in a varying order."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        form = FORMS.get(func)
        x = args[0] if args else None
        if form is not None and isinstance(x, Tensor) and differentiated(x) and deterministic.wanted(x):
            found = form(*args, **(kwargs or {}))
            if found is not None:
                return found
        return func(*args, **(kwargs or {}))


def differentiated(x: Tensor) -> bool:
    """Whether a gradient will flow through the results of operations on `x`, of any shape."""
    return x.requires_grad and torch.is_grad_enabled()


def pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor | None:
    """``torch.nn.functional.pad`` by reflection, of any number of sides and any shape: flipped parts of the input are added."""
    if mode != "reflect" or x.dim() - len(pad) // 2 not in (1, 2):
        return None
    for place in range(len(pad) // 2):
        dim, (before, after) = x.dim() - 1 - place, pad[2 * place : 2 * place + 2]
        size = x.shape[dim]
        if min(before, after) < 0 or max(before, after) >= size:
            return None  # torch says what is wrong with it
        parts = [x.narrow(dim, 1, before).flip(dim)] if before else []
        parts += [x, *([x.narrow(dim, size - 1 - after, after).flip(dim)] if after else [])]
        x = torch.cat(parts, dim) if len(parts) > 1 else x
    return x


def adaptive_avg_pool2d(x: Tensor, output_size: Any) -> Tensor:
    """``torch.nn.functional.adaptive_avg_pool2d``, (..., H, W) -> (..., h, w), by a matrix for rows and one for columns."""
    height, width = _sizes(output_size, x.shape[-2:])
    return _by_matrices(x, _means(x.shape[-2], height), _means(x.shape[-1], width))


def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor | None:
    """``torch.nn.functional.interpolate`` of images, (B, C, H, W) -> (B, C, h, w), bicubic or with antialiasing.

    None for the other modes, for which torch has a deterministic form of its own.
    """
    if mode not in RESIZED or not (mode == "bicubic" or antialias) or input.dim() != 4:
        return None
    settings = (mode, align_corners, recompute_scale_factor, antialias)
    sizes = _pair(size), _pair(scale_factor)
    matrices = [_resizing(input.shape[2 + i], *(None if s is None else s[i] for s in sizes), *settings) for i in (0, 1)]
    return _by_matrices(input, *matrices)


def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | None:
    """``torch.nn.functional.max_pool2d`` of windows side by side, (..., H, W) -> (..., h, w); None for other windows."""
    (rows, columns), steps = _pair(kernel_size), _pair(stride if stride not in (None, [], ()) else kernel_size)
    if steps != (rows, columns) or _pair(padding) != (0, 0) or _pair(dilation) != (1, 1) or ceil_mode or return_indices:
        return None
    height, width = input.shape[-2] // rows, input.shape[-1] // columns
    windows = (
        input[..., : height * rows, : width * columns].unflatten(-1, (width, columns)).unflatten(-3, (height, rows))
    )
    largest: Tensor = windows.transpose(-3, -2).flatten(-2).max(-1).values
    return largest


def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor | None:
    """``torch.nn.functional.grid_sample`` of images, (B, C, H, W) and grid (B, h, w, 2) -> (B, C, h, w).

    See `deterministic.grid_sample`; None for what that does not compute.
    """
    if input.dim() != 4 or mode not in ("bilinear", "nearest") or padding_mode not in ("zeros", "border"):
        return None
    return deterministic.grid_sample(input, grid, mode, padding_mode, bool(align_corners))


FORMS: Mapping[Any, Callable[..., Tensor | None]] = {
    F.pad: pad,
    F.adaptive_avg_pool2d: adaptive_avg_pool2d,
    F.interpolate: interpolate,
    F.max_pool2d: max_pool2d,
    F.grid_sample: grid_sample,
}
"""Forms by the function that they stand for; each gives None for what it has no form of."""


def _pair(value: Any) -> Any:
    """A number for both axes, or one for each."""
    if value is None or isinstance(value, (int, float)):
        return None if value is None else (value, value)
    found = tuple(value)
    return found * 2 if len(found) == 1 else found


def _sizes(wanted: Any, given: Sequence[int]) -> tuple[int, ...]:
    return tuple(g if w is None else w for w, g in zip(_pair(wanted) or (None, None), given, strict=True))


def _by_matrices(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(..., H, W) by (h, H) and (w, W), the one first that leaves less: (..., h, w)."""
    rows, columns = (m.to(x.device, x.dtype, non_blocking=True) for m in (rows, columns))
    if rows.shape[0] * x.shape[-1] <= x.shape[-2] * columns.shape[0]:
        return (rows @ x) @ columns.t()
    return rows @ (x @ columns.t())


@functools.lru_cache(maxsize=64)
def _means(size: int, wanted: int) -> Tensor:
    """(wanted, size): the mean of each window of torch's, from floor(i size / wanted) to ceil((i + 1) size / wanted)."""
    places = torch.arange(size)
    starts = torch.arange(wanted) * size // wanted
    ends = -(-(torch.arange(wanted) + 1) * size // wanted)
    inside = (places >= starts[:, None]) & (places < ends[:, None])
    return inside.double() / inside.sum(1, keepdim=True)


@functools.lru_cache(maxsize=64)
def _resizing(size: int, wanted: int | None, factor: float | None, *settings: Any) -> Tensor:
    """(wanted, size): what torch makes of one axis, columns of an identity matrix resized."""
    mode, align_corners, recompute, antialias = settings
    with torch.no_grad():
        unit = torch.eye(size, dtype=torch.float64)[None, None]
        new: Tensor = F.interpolate(
            unit,
            size=None if wanted is None else (wanted, size),
            scale_factor=None if factor is None else (factor, 1.0),
            mode=mode,
            align_corners=align_corners,
            recompute_scale_factor=recompute,
            antialias=antialias,
        )
    return new[0, 0]
