"""Layer normalisation over the channels of pixel-major maps (B, H, W, C), with gains that may differ between images."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .dispatch import compiler_obstacle, device_obstacle, use_kernel
from .precision import at_least_float32
from .self_test import case
from .shapes import check_shapes

WIDEST = 4096
"""Most channels that the fused kernels take."""


def layer_norm(x: Tensor, gain: Tensor, offset: Tensor | None, eps: float, centred: bool = True) -> Tensor:
    """``(x - mean) / sqrt(variance + eps) * gain + offset``, with mean and (biased) variance over channels.

    Computed in float32 at least, and returned so; `core.ops.layer_norm_triton` does it on a GPU, under autocast returning
    autocast's dtype at once, since what follows would round to it first. The two agree to float32's rounding.

    Args:
        x: (B, H, W, C); (B, ..., C) with a gain for all images.
        gain: (C), or (B, C) for one per image.
        offset: offset of the shape of `gain`, or None, which needs ``centred=False`` or a gain for all images.
        eps: constant added to the variance.
        centred: False leaves the mean in the numerator (Restormer's "BiasFree" norm).

    Raises:
        UserError: shapes do not go together, or kernels are forced on and cannot run.
    """
    one, each = (x.shape[-1],), (x.shape[0], x.shape[-1])  # `len` would tie an export to one batch size
    check_shapes("layer_norm", f"x {tuple(x.shape)}", gain=(gain, one, each), offset=(offset, tuple(gain.shape)))
    if use_kernel("layer_norm", functools.partial(_obstacle, x, gain, offset), x):
        from .layer_norm_triton import fused

        device = x.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        result: Tensor = fused(x, gain, offset, eps, centred, autocast)[0]
        return result
    return _plain(x, gain, offset, eps, centred)


@case("layer_norm", (2, 3, 3, 24), (24,), (24,), sized=lambda side, c: ((1, side, side, c), (c,), (c,)))
def _case(x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    return layer_norm(x, gain, offset, 1e-5)


def _obstacle(x: Tensor, gain: Tensor, offset: Tensor | None) -> str | None:
    """Why the fused kernels cannot run on `x`, or None."""
    if x.shape[-1] > WIDEST:
        return f"it takes up to {WIDEST} channels, there are {x.shape[-1]}"
    return compiler_obstacle("layer_norm") or device_obstacle("layer_norm", x=x, gain=gain, offset=offset)


def _plain(x: Tensor, gain: Tensor, offset: Tensor | None, eps: float, centred: bool) -> Tensor:
    x = at_least_float32(x)
    gain = gain.to(x.dtype)
    offset = None if offset is None else offset.to(x.dtype)
    if not centred:
        y = x * torch.rsqrt(x.var(-1, unbiased=False, keepdim=True) + eps) * per_pixel(gain)
        return y if offset is None else y + per_pixel(offset)
    if gain.dim() == 1:
        return F.layer_norm(x, gain.shape, gain, offset, eps)
    assert offset is not None
    if x.shape[0] == 1:
        return F.layer_norm(x, gain.shape[1:], gain[0], offset[0], eps)
    result: Tensor = _PerImage.apply(x, gain, offset, eps)
    return result


def per_pixel(v: Tensor) -> Tensor:
    """(C) or (B, C) in a shape that broadcasts against (B, H, W, C)."""
    return v if v.dim() == 1 else v[:, None, None]


class _PerImage(Function):
    """Keeps x, and two numbers per pixel; the normalised map is computed again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, eps: float) -> Tensor:
        y, mean, scale = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)
        ctx.save_for_backward(x, mean, scale, gain)
        return torch.addcmul(per_pixel(offset), y, per_pixel(gain), out=y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, scale, gain = ctx.saved_tensors
        grad_gain = (x - mean).mul_(scale).mul_(grad).sum((1, 2))
        grad_x, _, _ = torch.ops.aten.native_layer_norm_backward(
            grad * per_pixel(gain), x, x.shape[-1:], mean, scale, None, None, (True, False, False)
        )
        return grad_x, grad_gain, grad.sum((1, 2)), None
