"""Sampling an image where a flow points to, and convolutions that sample where offsets point to (by torchvision)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ..errors import UserError
from .deterministic import grid_sample
from .precision import at_least_float32


def flow_warp(
    x: Tensor,
    flow: Tensor,
    interp_mode: Literal["bilinear", "nearest"] = "bilinear",
    padding_mode: Literal["zeros", "border", "reflection"] = "zeros",
    align_corners: bool = True,
) -> Tensor:
    """`x` sampled at every pixel plus `flow`.

    Coordinates are scaled so that -1 and 1 are the outermost pixels' centres, also without `align_corners`, as in BasicSR.
    They are float32 at least, since half precision cannot tell the pixels of a large image apart.

    Args:
        x: (N, C, H, W).
        flow: (N, H, W, 2) in pixels: to the right, then down.
        interp_mode, padding_mode, align_corners: see ``torch.nn.functional.grid_sample``.

    Returns:
        (N, C, H, W) in the type of `x`.

    Raises:
        UserError: the flow is not one of this image.
    """
    height, width = x.shape[-2:]
    if flow.shape != (x.shape[0], height, width, 2):
        raise UserError(f"flow_warp: an image {tuple(x.shape)} needs a flow (N, H, W, 2), not {tuple(flow.shape)}")
    with torch.autocast(x.device.type, enabled=False):
        flow, image = at_least_float32(flow), at_least_float32(x)
        flow = flow.to(image.dtype)
        right = torch.arange(width, device=x.device, dtype=image.dtype) + flow[..., 0]
        down = torch.arange(height, device=x.device, dtype=image.dtype)[:, None] + flow[..., 1]
        grid = torch.stack([2 * right / max(width - 1, 1) - 1, 2 * down / max(height - 1, 1) - 1], dim=-1)
        y = grid_sample(image, grid, interp_mode, padding_mode, align_corners)
    return y.to(x.dtype)


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
        y: Tensor = deform_conv2d(x, offset, weight, bias, stride, padding, dilation, mask)
    return y.to(dtype)
