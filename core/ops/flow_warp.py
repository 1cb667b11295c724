"""Sampling an image where a flow points to, and convolutions that sample where offsets point to (by torchvision)."""

from __future__ import annotations

import functools
import math
from typing import Literal

import torch
from torch import Tensor

from ..errors import UserError
from . import deterministic
from .dispatch import device_obstacle, use_kernel
from .precision import at_least_float32
from .self_test import case


def flow_warp(
    x: Tensor,
    flow: Tensor,
    interp_mode: Literal["bilinear", "nearest", "bicubic"] = "bilinear",
    padding_mode: Literal["zeros", "border", "reflection"] = "zeros",
    align_corners: bool = True,
) -> Tensor:
    """`x` sampled at every pixel plus `flow`.

    Coordinates are scaled so that -1 and 1 are the outermost pixels' centres, also without `align_corners`, as in BasicSR.
    They are float32 at least, since half precision cannot distinguish the pixels of a large image.

    Bilinear and bicubic sampling with zeros or the border outside has fused kernels, whose gradients repeat bit for bit.

    Args:
        x: (N, C, H, W).
        flow: (N, H, W, 2) in pixels: to the right, then down.
        interp_mode, padding_mode, align_corners: see ``torch.nn.functional.grid_sample``.

    Returns:
        (N, C, H, W) in the type of `x`.

    Raises:
        UserError: the flow is not one of this image, or kernels are forced on and cannot run.
    """
    if flow.shape != (x.shape[0], *x.shape[-2:], 2):
        raise UserError(f"flow_warp: an image {tuple(x.shape)} needs a flow (N, H, W, 2), not {tuple(flow.shape)}")
    return _sampled(x, flow, interp_mode, padding_mode, align_corners, False)


def backwarp(x: Tensor, flow: Tensor) -> Tensor:
    """`x` at each pixel plus `flow`, bilinearly; beyond the border, the border. Places are rounded as RIFE and its kin do.

    Args:
        x: (B, C, H, W).
        flow: (B, 2, H, W) in pixels: to the right, then down.

    Raises:
        UserError: kernels are forced on and cannot run.
    """
    return _sampled(x, flow.permute(0, 2, 3, 1), "bilinear", "border", True, True)


def _sampled(x: Tensor, flow: Tensor, interp_mode: str, padding_mode: str, align_corners: bool, lines: bool) -> Tensor:
    """At places whose grid, from -1 to 1, is rounded as `_place` says for `lines`."""
    height, width = x.shape[-2:]
    if interp_mode != "nearest" and padding_mode != "reflection" and fuses(x, flow):
        from .flow_warp_triton import fused

        across, down = (_line(size, x.device) if lines else None for size in (width, height))
        warped: Tensor = fused(x, flow, across, down, interp_mode == "bicubic", padding_mode == "border", align_corners)
        return warped
    with torch.autocast(x.device.type, enabled=False):
        flow, image = at_least_float32(flow), at_least_float32(x)
        flow = flow.to(image.dtype)
        grid = torch.stack([_place(flow[..., 0], width, lines, -1), _place(flow[..., 1], height, lines, -2)], dim=-1)
        y = deterministic.grid_sample(image, grid, interp_mode, padding_mode, align_corners)
    return y.to(x.dtype)


def _place(moved: Tensor, size: int, lines: bool, dim: int) -> Tensor:
    """Of the grid along an axis: -1 and 1 are the first and the last pixel's centre."""
    span, column = max(size - 1, 1), (-1, 1)[:-dim]
    if lines:
        return _places(size, moved).view(column) + moved / (span / 2)
    return 2 * (torch.arange(size, device=moved.device, dtype=moved.dtype).view(column) + moved) / span - 1


def _places(size: int, like: Tensor) -> Tensor:
    """``torch.linspace(-1, 1, size)``; exported, of any size, which linspace would fix."""
    if not torch.compiler.is_exporting():
        return torch.linspace(-1, 1, size, device=like.device, dtype=like.dtype)
    place, step = torch.arange(size, device=like.device).to(like.dtype), 2 / max(size - 1, 1)
    return torch.where(place < size // 2, step * place - 1, 1 - step * (size - 1 - place))  # from both ends, as it does


@functools.lru_cache(maxsize=64)
def _line(size: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.linspace(-1, 1, size, device=device)


def fuses(x: Tensor, flow: Tensor) -> bool:
    """Whether `flow_warp` would run its kernels on an image (B, C, H, W) and a flow (B, 2, H, W), if they have its mode."""
    return use_kernel("flow_warp", functools.partial(_obstacle, x, flow), x, (x.shape[0], *x.shape[2:], x.shape[1]))


@case(
    "flow_warp",
    (2, 3, 5, 7),
    (2, 5, 7, 2),
    sized=lambda side, width: ((1, width, side, side), (1, side, side, 2)),
)
def _case(x: Tensor, flow: Tensor) -> Tensor:
    further = flow_warp(x, 2 - flow, "bicubic", "zeros", False)
    return flow_warp(x, flow) + backwarp(x, -flow.permute(0, 3, 1, 2)) + further


def _obstacle(x: Tensor, flow: Tensor) -> str | None:
    """Why the fused kernels cannot run, or None."""
    if x[:1].numel() >= 2**31:
        return f"it takes samples of less than 2^31 elements, these have {x[:1].numel()}"
    return device_obstacle("flow_warp", x=x, flow=flow)


def modulated_deform_conv(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
) -> Tensor:
    """The convolution of `x` at shifted places (Zhu et al., "Deformable ConvNets v2", CVPR 2019), in float32 at least.

    Args:
        x: (N, C, H, W).
        offset: (N, 2 G K, H', W'), pairs (down, right) in pixels, for each of G groups of channels and K taps.
        mask: (N, G K, H', W'), factors of the taps.
        weight: (O, C / groups, kh, kw).
        bias: (O).
        stride, padding, dilation: stride, padding and dilation, as of any convolution.

    Returns:
        (N, O, H', W') in the type of `x`.
    """
    from torchvision.ops import deform_conv2d

    dtype = x.dtype
    with torch.autocast(x.device.type, enabled=False):
        x, offset, mask, weight = map(at_least_float32, (x, offset, mask, weight))
        bias = None if bias is None else at_least_float32(bias)
        # torchvision's code for a CPU reads beyond the image at an offset of NaN, which ends the process. What follows from
        # such an offset shall be NaN instead, for the guard of the training to see.
        nowhere = offset.isnan()
        pairs = nowhere.unflatten(1, (-1, 2)).any(2)
        offset, mask = offset.masked_fill(nowhere, 0.0), mask.masked_fill(pairs, math.nan)
        if deterministic.wanted(x):
            steps = [(s, s) if isinstance(s, int) else s for s in (stride, padding, dilation)]
            return deterministic.deform_conv(x, offset, mask, weight, bias, *steps).to(dtype)
        y: Tensor = deform_conv2d(x, offset, weight, bias, stride, padding, dilation, mask)
    return y.to(dtype)
