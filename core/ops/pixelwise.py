"""Channel mixing on pixel-major maps, fused where that saves memory: where transposed-attention networks spend their time.

A pixel-major map has shape (B, H, W, C) and is contiguous: the transposed view of a channels-last (B, C, H, W) tensor, so going
from one to the other is free. In it a 1 x 1 convolution is one matrix product, layer normalisation over channels reduces
contiguous memory, and CPUs and GPUs have their fastest depthwise convolutions.

The autograd functions keep their inputs and repeat cheap work (1 x 1 products, GELU) in the backward pass instead of keeping
every intermediate map. They can be differentiated once.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..errors import UserError
from .dispatch import device_obstacle, use_kernel
from .self_test import case
from .shapes import check_devices, check_shapes, depthwise_shape

WIDEST = 7
"""Side of the largest depthwise kernels that the fused gate takes."""


def pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) in any memory layout -> pixel-major (B, H, W, C); a view where `x` is channels-last."""
    return x.permute(0, 2, 3, 1).contiguous()


def channels(x: Tensor) -> Tensor:
    """Pixel-major (B, H, W, C) -> a channels-last view (B, C, H, W)."""
    return x.permute(0, 3, 1, 2)


def cast_for_autocast(*tensors: Tensor | None) -> list[Any]:
    """The tensors in the dtype that a matrix product of the first would run in under the active autocast, if any."""
    first = tensors[0]
    assert first is not None
    device = first.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else first.dtype
    return [None if t is None else t.to(dtype) for t in tensors]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """1 x 1 convolution of a pixel-major map: ``x @ weight.T + bias``.

    Args:
        x: (B, H, W, C).
        weight: (O, C), or (B, O, C) for a matrix per image.
        bias: (O), or None; (B, O) for an offset per image.
    """
    if weight.dim() == 2 and (bias is None or bias.dim() == 1):
        return F.linear(x, weight, bias)
    y = x.flatten(1, 2) @ weight.transpose(-1, -2).to(x.dtype)
    if bias is not None:
        y += (bias if bias.dim() == 1 else bias[:, None]).to(y.dtype)
    result: Tensor = y.unflatten(1, x.shape[1:3])
    return result


# -------------------------------------------------------------------------------- 1 x 1, then depthwise 3 x 3
def expand_depthwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, kernel: Tensor, kernel_bias: Tensor | None
) -> Tensor:
    """A 1 x 1 convolution to O channels, then a depthwise k x k convolution (zero padding): (B, H, W, C) -> (B, H, W, O).

    Args:
        x: pixel-major.
        weight, bias: (O, C), or (B, O, C) for a matrix per image; (O), (B, O) or None.
        kernel, kernel_bias: (O, 1, k, k) with k odd; (O) or None.
    """
    result: Tensor = _ExpandDepthwise.apply(*cast_for_autocast(x, weight, bias, kernel, kernel_bias))
    return result


def plain_depthwise(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """`depthwise` without a backward pass of its own: (B, H, W, C), kernel (C, 1, k, k), bias (C,) -> (B, H, W, C)."""
    y = F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, padding=kernel.shape[-1] // 2, groups=kernel.shape[0])
    return y.permute(0, 2, 3, 1)


def depthwise_backward(grad: Tensor, x: Tensor, kernel: Tensor, has_bias: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of the input (B, H, W, C), of the kernel (C, 1, k, k), and of the bias (C,) if it has one."""
    edge, one = (kernel.shape[-1] // 2,) * 2, (1, 1)
    grad = grad.contiguous()
    _, grad_kernel, grad_bias = torch.ops.aten.convolution_backward(
        channels(grad),
        channels(x),
        kernel,
        list(kernel.shape[:1]) if has_bias else None,
        one,
        edge,
        one,
        False,
        (0, 0),
        kernel.shape[0],
        (False, True, has_bias),
    )
    # The convolution's strides of axes of size 1 are not the kernel's, which DistributedDataParallel warns of.
    grad_kernel = torch.empty_like(kernel).copy_(grad_kernel)
    # As a forward convolution the gradient of the input takes half the time that libraries' backward ones take.
    return plain_depthwise(grad, kernel.flip(2, 3)), grad_kernel, grad_bias


def depthwise(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """A depthwise k x k convolution (zero padding, k odd): (B, H, W, C) -> same.

    Args:
        x: pixel-major.
        kernel, bias: (C, 1, k, k); (C) or None.
    """
    result: Tensor = _DepthwiseConvolution.apply(*cast_for_autocast(x, kernel, bias))
    return result


class _DepthwiseConvolution(Function):
    """`plain_depthwise` with the gradients that are fastest."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.has_bias = bias is not None
        return plain_depthwise(x, kernel, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel = ctx.saved_tensors
        return depthwise_backward(grad, x, kernel, ctx.has_bias)


class _ExpandDepthwise(Function):
    """Keeps x; the wider map between the two convolutions is computed again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, kernel: Tensor, kernel_bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, kernel)
        ctx.has_kernel_bias = kernel_bias is not None
        return plain_depthwise(linear(x, weight, bias), kernel, kernel_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, kernel = ctx.saved_tensors
        wide = linear(x, weight, bias)
        inner, grad_kernel, grad_kernel_bias = depthwise_backward(grad, wide, kernel, ctx.has_kernel_bias)
        grad_bias = None
        if bias is not None:
            grad_bias = inner.sum((0, 1, 2) if bias.dim() == 1 else (1, 2))
        rows = (0, 2) if weight.dim() == 2 else (1, 2)
        flat_inner, flat_x = inner.flatten(*rows), x.flatten(*rows)
        grad_weight = flat_inner.transpose(-2, -1) @ flat_x
        return (flat_inner @ weight).view(x.shape), grad_weight, grad_bias, grad_kernel, grad_kernel_bias


# ------------------------------------------------------------------------------------------ gated feed-forward
def gated_feed_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel: Tensor,
    kernel_bias: Tensor | None,
    out_weight: Tensor,
    out_bias: Tensor | None,
) -> Tensor:
    """``linear(gelu(a) * b, out_weight, out_bias)`` where (a, b) are the halves of ``expand_depthwise(x, ...)``.

    Args:
        x: pixel-major (B, H, W, C).
        weight, bias, kernel, kernel_bias: see `expand_depthwise`; 2 E channels.
        out_weight, out_bias: (O, E); (O) or None.

    Returns:
        (B, H, W, O).

    Raises:
        UserError: shapes or devices do not go together, or kernels are forced on and cannot run.
    """
    rest = {"kernel_bias": kernel_bias, "out_weight": out_weight, "out_bias": out_bias}
    check_devices("gated_feed_forward", x=x, weight=weight, bias=bias, kernel=kernel, **rest)
    if x.dim() != 4 or weight.dim() not in (2, 3) or weight.shape[-1] != x.shape[-1] or weight.shape[-2] % 2:
        raise UserError(
            f"gated_feed_forward: x (B, H, W, C) and weight (2 E, C) do not go together: "
            f"{tuple(x.shape)} and {tuple(weight.shape)}"
        )
    both = weight.shape[-2]
    check_shapes("gated_feed_forward", f"weight {tuple(weight.shape)}", bias=(bias, (both,), (len(x), both)))
    x, weight, bias, kernel, kernel_bias, out_weight, out_bias = cast_for_autocast(
        x, weight, bias, kernel, kernel_bias, out_weight, out_bias
    )
    # Two maps and not the halves of one, whose slices would slow down all that follows.
    a, b = (linear(x, w, wb) for w, wb in zip(weight.chunk(2, -2), _halves(bias), strict=True))
    inner, out = a.shape[-1], out_weight.shape[0]
    check_shapes(
        "gated_feed_forward",
        f"{inner} inner channels",
        kernel=(kernel, depthwise_shape(kernel, 2 * inner)),
        kernel_bias=(kernel_bias, (2 * inner,)),
        out_weight=(out_weight, (out, inner)),
        out_bias=(out_bias, (out,)),
    )
    rest = {"kernel_bias": kernel_bias, "out_weight": out_weight, "out_bias": out_bias}
    fused = use_kernel("gdfn", functools.partial(_obstacle, a, kernel, **rest), a)
    result: Tensor = _GatedProjection.apply(a, b, kernel, kernel_bias, out_weight, out_bias, fused)
    return result


def _sized(side: int, inner: int) -> tuple[tuple[int, ...], ...]:
    c = max(inner // 3, 1)
    return (1, side, side, c), (2 * inner, c), (2 * inner, 1, 3, 3), (c, inner)


@case("gdfn", (1, 5, 6, 8), (32, 8), (32, 1, 3, 3), (8, 16), sized=_sized)
def _case(x: Tensor, weight: Tensor, kernel: Tensor, out: Tensor) -> Tensor:
    return gated_feed_forward(x - 0.6, weight - 0.6, None, kernel - 0.6, None, out - 0.6, None)


def _obstacle(x: Tensor, kernel: Tensor, **others: Tensor | None) -> str | None:
    """Why the fused kernels of the gate cannot run, or None."""
    if kernel.shape[-1] > WIDEST:
        return f"it takes depthwise kernels up to {WIDEST} x {WIDEST}, this one has {kernel.shape[-1]}"
    return device_obstacle("gdfn", x=x, kernel=kernel, **others)


def _halves(v: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The first and the second half of the last axis."""
    if v is None:
        return None, None
    first, second = v.chunk(2, -1)
    return first, second


class _GatedProjection(Function):
    """Keeps a and b as they come, and repeats the depthwise convolutions and the gate, which are cheap."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        kernel: Tensor,
        kernel_bias: Tensor | None,
        out_weight: Tensor,
        out_bias: Tensor | None,
        fused: bool,
    ) -> Tensor:
        ctx.save_for_backward(a, b, kernel, kernel_bias, out_weight)
        ctx.has_out_bias, ctx.fused = out_bias is not None, fused
        if fused:
            from .gdfn_triton import gelu_gate

            return F.linear(gelu_gate(a, b, kernel, kernel_bias), out_weight, out_bias)
        a, b = _depthwise_pair(a, b, kernel, kernel_bias)
        return F.linear(F.gelu(a).mul_(b), out_weight, out_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wide_a, wide_b, kernel, kernel_bias, out_weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_out_bias = grad.sum((0, 1, 2)) if ctx.has_out_bias else None
        if ctx.fused:
            from .gdfn_triton import gate_backward

            *of, of_bias, gate = gate_backward(grad @ out_weight, wide_a, wide_b, kernel, kernel_bias)
            grad_out_weight = grad.flatten(0, 2).t() @ gate.flatten(0, 2)
            return *of, None if kernel_bias is None else of_bias, grad_out_weight, grad_out_bias, None
        a, b = _depthwise_pair(wide_a, wide_b, kernel, kernel_bias)
        product = grad @ out_weight
        gate = F.gelu(a)
        grad_b = gate * product
        grad_a = torch.ops.aten.gelu_backward(product.mul_(b), a)
        grad_out_weight = grad.flatten(0, 2).t() @ gate.mul_(b).flatten(0, 2)
        del product, gate, a, b
        has_bias, (first, second) = kernel_bias is not None, kernel.chunk(2)
        grad_a, *of_first = depthwise_backward(grad_a, wide_a, first, has_bias)
        grad_b, *of_second = depthwise_backward(grad_b, wide_b, second, has_bias)
        of_kernel = (
            None if f is None or s is None else torch.cat((f, s)) for f, s in zip(of_first, of_second, strict=True)
        )
        return grad_a, grad_b, *of_kernel, grad_out_weight, grad_out_bias, None


def _depthwise_pair(a: Tensor, b: Tensor, kernel: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """`plain_depthwise` of two maps with the halves of one kernel."""
    (first, second), (first_bias, second_bias) = kernel.chunk(2), _halves(bias)
    return plain_depthwise(a, first, first_bias), plain_depthwise(b, second, second_bias)
