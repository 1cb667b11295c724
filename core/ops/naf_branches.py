"""Both branches of NAFNet's block, each as one operation that trains faster on a CPU than its parts one after another.

What is saved are maps that need not be written: sums of gradients are added where they are, the scales of a branch's last
matrix are folded into it, and the mean's gradient goes into the product that it is added to. Maps are pixel-major: see
`core.ops.pixelwise`. Both can be differentiated once.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .modes import mode_of
from .pixelwise import channels, depthwise_backward, pixels, plain_depthwise
from .simple_gate import halves_product, halves_product_backward

EPS = 1e-6
"""Epsilon of the norms."""


def worthwhile(x: Tensor) -> bool:
    """Whether the functions below are to compute the branches of `x`, of any shape: in training on a CPU, by plain PyTorch.

    A GPU has kernels for norm and gate, and autocast casts each part by itself.

    A GPU has kernels for norm and gate, and autocast casts each part as that part wants it.
    """
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and "on" not in (mode_of("layer_norm"), mode_of("simple_gate"))
    )


def gate_branch(
    x: Tensor,
    norm: Tensor,
    norm_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    gain: Tensor,
) -> Tensor:
    """``x + gain * linear(gate(linear(layer_norm(x))))``: NAFNet's second branch.

    Args:
        x: (B, H, W, C).
        norm, norm_bias: (C).
        weight, bias: (2 E, C) and (2 E).
        out_weight, out_bias, gain: (C, E), (C) and (C).
    """
    result: Tensor = _GateBranch.apply(x, norm, norm_bias, weight, bias, out_weight, out_bias, gain)
    return result


def attention_branch(
    x: Tensor,
    norm: Tensor,
    norm_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    kernel: Tensor,
    kernel_bias: Tensor,
    attention: Tensor,
    attention_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    gain: Tensor,
) -> Tensor:
    """``x + gain * linear(a * y)``, y = ``gate(depthwise(linear(layer_norm(x))))``, a = ``linear(mean(y))``: the first branch.

    Args:
        x: (B, H, W, C).
        norm, norm_bias: (C).
        weight, bias: (2 E, C) and (2 E).
        kernel, kernel_bias: (2 E, 1, k, k), k odd, and (2 E).
        attention, attention_bias: (E, E) and (E).
        out_weight, out_bias, gain: (C, E), (C) and (C).
    """
    result: Tensor = _AttentionBranch.apply(
        x,
        norm,
        norm_bias,
        weight,
        bias,
        kernel,
        kernel_bias,
        attention,
        attention_bias,
        out_weight,
        out_bias,
        gain,
    )
    return result


def halve(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """A 2 x 2 convolution with stride 2, as one product of blocks of pixels.

    Args:
        x: (B, C, H, W), H and W even.
        kernel, bias: (O, C, 2, 2); (O) or None.

    Returns:
        (B, O, H / 2, W / 2), channels-last.
    """
    blocks = pixels(x).unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3).flatten(3)
    return channels(F.linear(blocks, kernel.permute(0, 2, 3, 1).flatten(1), bias))


def double_onto(skip: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
    """``skip + pixel_shuffle(conv2d(x, kernel), 2)``, written in one go.

    Args:
        skip: (B, O, 2 H, 2 W).
        x: (B, C, H, W).
        kernel: (4 O, C, 1, 1).

    Returns:
        As `skip`, channels-last.
    """
    weight = kernel.view(-1, 2, 2, x.shape[1]).permute(1, 2, 0, 3).flatten(0, 2)
    blocks = F.linear(pixels(x), weight).unflatten(3, (2, 2, -1)).transpose(2, 3)
    return channels((pixels(skip).view(blocks.shape) + blocks).flatten(3, 4).flatten(1, 2))


class _GateBranch(Function):
    """Keeps x, the normalised map, the wide map, and the gate's result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        norm, norm_bias, weight, bias, out_weight, out_bias, gain = parameters
        n, mean, scale = torch.native_layer_norm(x, x.shape[-1:], norm, norm_bias, EPS)
        wide = _affine(n, weight, bias)
        y = halves_product(wide)
        matrix = out_weight * gain[:, None]
        ctx.save_for_backward(x, n, mean, scale, wide, y, matrix, *parameters)
        return _affine(y, matrix, out_bias * gain, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, n, mean, scale, wide, y, matrix, norm, norm_bias, weight, _, out_weight, out_bias, gain = ctx.saved_tensors
        of_projection = _projection_backward(grad, y, out_weight, out_bias, gain)
        inner = halves_product_backward(_affine(grad, matrix.t()), wide)
        return *_norm_linear_backward(grad, inner, x, n, mean, scale, norm, norm_bias, weight), *of_projection


class _AttentionBranch(Function):
    """Keeps x and all maps that its gradients are made from."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        norm, norm_bias, weight, bias, kernel, kernel_bias, attention, attention_bias, out_weight, out_bias, gain = (
            parameters
        )
        n, mean, scale = torch.native_layer_norm(x, x.shape[-1:], norm, norm_bias, EPS)
        wide = _affine(n, weight, bias)
        convolved = plain_depthwise(wide, kernel, kernel_bias)
        y = halves_product(convolved)
        pooled = y.mean((1, 2))
        factor = F.linear(pooled, attention, attention_bias)
        matrix, offset = out_weight * gain[:, None], out_bias * gain
        attended = None
        # Where there are no more pixels than channels, a matrix for each image costs more than the map, as its gradient does.
        if y.shape[1] * y.shape[2] > y.shape[3]:
            out = x + offset
            out.flatten(1, 2).baddbmm_(y.flatten(1, 2), (matrix * factor[:, None]).mT)
        else:
            attended = y * factor[:, None, None]
            out = _affine(attended, matrix, offset, x)
        ctx.save_for_backward(x, n, mean, scale, wide, convolved, y, pooled, factor, attended, matrix, *parameters)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, n, mean, scale, wide, convolved, y, pooled, factor, attended, matrix, *parameters = ctx.saved_tensors
        norm, norm_bias, weight, _, kernel, _, attention, _, out_weight, out_bias, gain = parameters
        if attended is not None:
            of_projection = _projection_backward(grad, attended, out_weight, out_bias, gain)
            of_y = _affine(grad, matrix.t())
            of_factor = (of_y * y).sum((1, 2))
        else:
            of_each = grad.flatten(1, 2).transpose(1, 2) @ y.flatten(1, 2)
            of_factor = (of_each * matrix).sum(1)
            of_matrix = of_each.mul_(factor[:, None]).sum(0)
            of_projection = _unscaled(of_matrix, grad.sum((0, 1, 2)), out_weight, out_bias, gain)
        of_mean = (of_factor @ attention).div_(y.shape[1] * y.shape[2])[:, None]
        if attended is not None:
            torch.addcmul(of_mean[:, None], of_y, factor[:, None, None], out=of_y)
        else:
            of_y = torch.baddbmm(of_mean, grad.flatten(1, 2), matrix * factor[:, None]).view_as(y)
        inner, of_kernel, of_kernel_bias = depthwise_backward(
            halves_product_backward(of_y, convolved), wide, kernel, True
        )
        of_first = _norm_linear_backward(grad, inner, x, n, mean, scale, norm, norm_bias, weight)
        of_attention = of_factor.t() @ pooled, of_factor.sum(0)
        return *of_first, of_kernel, of_kernel_bias, *of_attention, *of_projection


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None = None, onto: Tensor | None = None) -> Tensor:
    """``linear(x, weight, bias)``, and `onto` added, without a gradient.

    oneDNN's product adds both as it writes, and is the faster one where matrices have few columns.
    """
    # Of tensors without data (torch's fake ones) the operator knows no shapes.
    if x.dtype != torch.float32 or type(x) is not Tensor or not has_fused_products():
        y = F.linear(x, weight, bias)
        return y if onto is None else y.add_(onto)
    fused = torch.ops.mkldnn._linear_pointwise
    if onto is None:
        result: Tensor = fused(x, weight, bias, "none", [], "")
    else:
        result = fused.binary(x, onto, weight, bias, "add")
    return result


@functools.cache
def has_fused_products() -> bool:
    """Whether this PyTorch was built with oneDNN's products, whose operator is the one that ``torch.compile`` calls."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _projection_backward(grad: Tensor, y: Tensor, weight: Tensor, bias: Tensor, gain: Tensor) -> tuple[Tensor, ...]:
    """Gradients of `weight`, `bias` and `gain` of ``gain * linear(y)``."""
    return _unscaled(grad.flatten(0, 2).t() @ y.flatten(0, 2), grad.sum((0, 1, 2)), weight, bias, gain)


def _unscaled(of_matrix: Tensor, of_offset: Tensor, weight: Tensor, bias: Tensor, gain: Tensor) -> tuple[Tensor, ...]:
    """The same, from the gradients of ``gain * weight`` and ``gain * bias``; the first is overwritten."""
    of_gain = torch.linalg.vecdot(of_matrix, weight).addcmul_(of_offset, bias)
    return of_matrix.mul_(gain[:, None]), of_offset * gain, of_gain


def _norm_linear_backward(
    skipped: Tensor,
    grad: Tensor,
    x: Tensor,
    normalised: Tensor,
    mean: Tensor,
    scale: Tensor,
    norm: Tensor,
    norm_bias: Tensor,
    weight: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients of `x`, that of the skip connection added, of the norm's parameters, and of the matrix and its offset."""
    rows = grad.flatten(0, 2)
    of_normalised = _affine(grad, weight.t())
    of_x, of_norm, of_norm_bias = torch.ops.aten.native_layer_norm_backward(
        of_normalised, x, x.shape[-1:], mean, scale, norm, norm_bias, (True, True, True)
    )
    return of_x.add_(skipped), of_norm, of_norm_bias, rows.t() @ normalised.flatten(0, 2), rows.sum(0)
