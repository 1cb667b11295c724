"""Functions of torch whose gradients CUDA adds up in a varying order, by others: ``deterministic: true`` puts them
in their place wherever they are called, in any network or loss.

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

RESIZED = {"bicubic": 2, "bilinear": 2, "linear": 1, "trilinear": 3}
"""Ways to enlarge and shrink that mix values along one axis after the other, and how many axes there are."""


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


def adaptive_avg_pool(axes: int, x: Tensor, output_size: Any) -> Tensor:
    """``torch.nn.functional.adaptive_avg_pool1d``, 2d and 3d: (B, C, ...) -> (B, C, ...), by a matrix for each axis."""
    given = x.shape[-axes:]
    wanted = [g if w is None else w for w, g in zip(_each(output_size, axes) or (None,) * axes, given, strict=True)]
    return _by_matrices(x, [_means(g, w) for g, w in zip(given, wanted, strict=True)])


def avg_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """``torch.nn.functional.avg_pool3d``, (..., D, H, W) -> (..., d, h, w): sums over rows and columns, then over depth."""
    kernel, steps, pads = (_each(v, 3) for v in (kernel_size, stride if given(stride) else kernel_size, padding))

    def summed(x: Tensor) -> Tensor:
        volumes = x.reshape(-1, *x.shape[-3:])
        flat = F.avg_pool2d(volumes, kernel[1:], steps[1:], pads[1:], ceil_mode, divisor_override=1)
        lines = flat.flatten(2)[:, None]
        deep = F.avg_pool2d(lines, (kernel[0], 1), (steps[0], 1), (pads[0], 0), ceil_mode, divisor_override=1)
        return deep.reshape(*x.shape[:-3], -1, *flat.shape[-2:])

    if divisor_override is not None:
        return summed(input) / divisor_override
    with torch.no_grad():  # what each window is divided by, which may be cut off at the sides
        ones = torch.ones_like(input[(0,) * (input.dim() - 3)])[None]
        share = F.avg_pool3d(ones, kernel_size, stride, padding, ceil_mode, count_include_pad) / summed(ones)
    return summed(input) * share[0]


def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor | None:
    """``torch.nn.functional.interpolate``, (B, C, ...) -> (B, C, ...): bicubic, and linear but for images without antialiasing.

    None for the rest, for which torch has deterministic forms of its own.
    """
    axes = RESIZED.get(mode, 0)
    if axes != input.dim() - 2 or (antialias if axes != 2 else mode == "bilinear" and not antialias):
        return None
    settings = ("bicubic" if mode == "bicubic" else "bilinear", align_corners, recompute_scale_factor, antialias)
    said = _each(size, axes), _each(scale_factor, axes)
    sides = enumerate(input.shape[2:])
    return _by_matrices(
        input, [_resizing(n, *(None if s is None else s[i] for s in said), *settings) for i, n in sides]
    )


def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """``torch.nn.functional.max_pool2d``, (..., H, W) -> (..., h, w): a reduction for windows side by side, else `largest`."""
    (rows, columns), steps = _each(kernel_size, 2), _each(stride if given(stride) else kernel_size, 2)
    if steps != (rows, columns) or _each(padding, 2) != (0, 0) or _each(dilation, 2) != (1, 1) or ceil_mode:
        settings = kernel_size, stride, padding, dilation, ceil_mode
        return largest_alone(F.max_pool2d_with_indices, 2, input, *settings)
    height, width = input.shape[-2] // rows, input.shape[-1] // columns
    windows = (
        input[..., : height * rows, : width * columns].unflatten(-1, (width, columns)).unflatten(-3, (height, rows))
    )
    found: Tensor = windows.transpose(-3, -2).flatten(-2).max(-1).values
    return found


def largest(
    pool: Callable[..., tuple[Tensor, Tensor]], axes: int, x: Tensor, *args: Any, **settings: Any
) -> tuple[Tensor, Tensor]:
    """The maxima that a pooling function of torch's gives for `x` (B, C, ...), gathered from their places, and the places."""
    with torch.no_grad():
        _, places = pool(x, *args, **settings)
    return x.flatten(-axes).gather(-1, places.flatten(-axes)).view_as(places), places


def largest_alone(
    pool: Callable[..., tuple[Tensor, Tensor]], axes: int, x: Tensor, *args: Any, **settings: Any
) -> Tensor:
    """The maxima of `largest`, shapes included, without their places."""
    return largest(pool, axes, x, *args, **settings)[0]


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
    known = mode in ("bilinear", "nearest", "bicubic") and padding_mode in ("zeros", "border", "reflection")
    if input.dim() != 4 or not known:
        return None
    return deterministic.grid_sample(input, grid, mode, padding_mode, bool(align_corners))


def _of_maxima() -> dict[Any, Callable[..., Any]]:
    """Forms of the functions that pool maxima over one to three axes, each with and without their places."""
    found: dict[Any, Callable[..., Any]] = {}
    for axes in (1, 2, 3):
        for name in (f"max_pool{axes}d", f"adaptive_max_pool{axes}d"):
            both = getattr(F, f"{name}_with_indices")
            found[both] = functools.partial(largest, both, axes)
            found[getattr(F, name)] = functools.partial(largest_alone, both, axes)
    return found


FORMS: Mapping[Any, Callable[..., Any]] = {
    **_of_maxima(),
    F.pad: pad,
    F.adaptive_avg_pool1d: functools.partial(adaptive_avg_pool, 1),
    F.adaptive_avg_pool2d: functools.partial(adaptive_avg_pool, 2),
    F.adaptive_avg_pool3d: functools.partial(adaptive_avg_pool, 3),
    F.avg_pool3d: avg_pool3d,
    F.interpolate: interpolate,
    F.max_pool2d: max_pool2d,
    F.grid_sample: grid_sample,
}
"""Forms by the function that they stand for; each gives None for what it has no form of."""


def given(stride: Any) -> bool:
    """Whether a stride is said, and is not that of the windows."""
    return stride is not None and tuple(_each(stride, 1)) != ()


def _each(value: Any, axes: int) -> Any:
    """A number for all axes, or one for each; None of None."""
    if value is None or isinstance(value, (int, float)):
        return None if value is None else (value,) * axes
    found = tuple(value)
    return found * axes if len(found) == 1 else found


def _by_matrices(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """(..., H, W) by (h, H) and (w, W), or by more for more axes, that one first that leaves least: (..., h, w)."""
    order = sorted(range(len(matrices)), key=lambda i: matrices[i].shape[0] / matrices[i].shape[1])
    for i in order:
        matrix, axis = matrices[i].to(x.device, x.dtype, non_blocking=True), i - len(matrices)
        x = x @ matrix.t() if axis == -1 else (matrix @ x.flatten(axis + 1)).unflatten(-1, x.shape[axis + 1 :])
    return x


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
