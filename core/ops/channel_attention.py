"""Attention between channels (Restormer's MDTA) on pixel-major maps, fused where that saves memory.

`core.ops.pixelwise` says what such maps are. On a GPU, Triton kernels (`mdta_triton`) do what surrounds the matrix products.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..errors import UserError
from .channel_attention_heads import (
    by_heads,
    head_attention,
    head_attention_backward,
    head_mixing,
    head_mixing_backward,
    side_by_side,
)
from .dispatch import device_obstacle, use_kernel
from .pixelwise import depthwise_backward, linear, plain_depthwise
from .precision import at_least_float32
from .self_test import case, heads
from .shapes import check_devices, check_shapes, depthwise_shape

WIDEST = 128
"""Most channels of a head that the fused kernels take."""


def self_attention(
    qkv: Tensor,
    temperature: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    kernel: Tensor | None = None,
    kernel_bias: Tensor | None = None,
    before: Tensor | None = None,
    before_bias: Tensor | None = None,
) -> Tensor:
    """Multi-head attention between channels (Restormer's MDTA, eq. 1), a 1 x 1 and, if wanted, a depthwise convolution.

    The attention matrix of a head is the softmax over keys of temperature times the cosine similarity of query and key
    channels, which are vectors of H W pixels. It is multiplied into the 1 x 1 convolution's matrix, then applied to the
    values once. Similarities are computed in float32 at least. A channel that is zero everywhere has similarity zero to all.

    Args:
        qkv: queries, keys and values side by side, pixel-major (B, H, W, 3 C).
        temperature: one element per head, in any shape.
        weight, bias: the 1 x 1 convolution: (O, C); (O) or None.
        kernel, kernel_bias: the depthwise convolution: (O, 1, k, k) or None for none; (O) or None.
        before, before_bias: another one, of `qkv` before all else: (3 C, 1, k, k) or None for none; (3 C) or None.

    Returns:
        (B, H, W, O), in the dtype of `qkv`.
    """
    return self_attention_and_map(qkv, temperature, weight, bias, kernel, kernel_bias, before, before_bias)[0]


def self_attention_and_map(
    qkv: Tensor,
    temperature: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    kernel: Tensor | None = None,
    kernel_bias: Tensor | None = None,
    before: Tensor | None = None,
    before_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`self_attention` and its attention matrices side by side, (B, C, C) with zeros between heads."""
    return _attend(None, qkv, temperature, weight, bias, kernel, kernel_bias, before, before_bias)


def cross_attention(q: Tensor, kv: Tensor, temperature: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`self_attention` with queries from elsewhere: planes (B, C, H, W); `kv` is pixel-major (B, H, W, 2 C)."""
    return _attend(q, kv, temperature, weight, bias, None, None, None, None)[0]


def _sized(side: int, width: int) -> tuple[tuple[int, ...], ...]:
    c = max(width // 3, 1)
    return (1, side, side, 3 * c), (heads(c, 64),), (c, c)


@case("mdta", (1, 5, 6, 48), (2,), (8, 16), sized=_sized)
def _case(qkv: Tensor, temperature: Tensor, weight: Tensor) -> Tensor:
    return self_attention(qkv - 0.6, temperature, weight)


def _attend(
    q: Tensor | None, kv: Tensor, temperature: Tensor, weight: Tensor, *rest: Tensor | None
) -> tuple[Tensor, Tensor]:
    _check(q, kv, temperature, weight, *rest)
    rest = tuple(None if t is None else t.to(kv.dtype) for t in rest)
    named = {"qkv" if q is None else "kv": kv, "q": q, "temperature": temperature, "bias": rest[0], "kernel": rest[1]}
    fused = use_kernel("mdta", functools.partial(_obstacle, temperature.numel(), weight, **named), kv)
    with torch.autocast(kv.device.type, enabled=False):
        result: tuple[Tensor, Tensor] = _Attention.apply(q, kv, temperature, weight, *rest, fused)
        return result


def _check(
    q: Tensor | None,
    kv: Tensor,
    temperature: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel: Tensor | None,
    kernel_bias: Tensor | None,
    before: Tensor | None,
    before_bias: Tensor | None,
) -> None:
    """Raises:
    UserError: shapes or devices do not go together.
    """
    parts = 3 if q is None else 2
    name, channels = "kv" if q is not None else "qkv", kv.shape[-1] // parts
    if kv.dim() != 4 or kv.shape[-1] % parts or channels % max(temperature.numel(), 1):
        raise UserError(
            f"channel attention: {name} must be (B, H, W, {parts} C) with a C that the {temperature.numel()} heads of "
            f"temperature divide; it is {tuple(kv.shape)}"
        )
    rest = {"bias": bias, "kernel": kernel, "kernel_bias": kernel_bias, "before": before, "before_bias": before_bias}
    check_devices("channel attention", **{name: kv}, q=q, temperature=temperature, weight=weight, **rest)
    out = weight.shape[0]
    check_shapes(
        "channel attention",
        f"{name} {tuple(kv.shape)}",
        q=(q, (kv.shape[0], channels, *kv.shape[1:3])),
        weight=(weight, (out, channels)),
        bias=(bias, (out,)),
        kernel=(kernel, None if kernel is None else depthwise_shape(kernel, out)),
        kernel_bias=(kernel_bias, (out,)),
        before=(before, None if before is None else depthwise_shape(before, kv.shape[-1])),
        before_bias=(before_bias, (kv.shape[-1],)),
    )


def _obstacle(heads: int, weight: Tensor, **others: Tensor | None) -> str | None:
    """Why the fused kernels cannot run, or None."""
    if weight.shape[1] > heads * WIDEST:
        return f"it takes up to {WIDEST} channels of a head, there are {weight.shape[1] // heads}"
    return device_obstacle("mdta", **others, weight=weight)


def softmax_by_head(similarity: Tensor, temperature: Tensor) -> Tensor:
    """Softmax over keys of temperature times similarity, within each head.

    Args:
        similarity: similarity of all queries (rows) and keys: (B, C, C).
        temperature: one element per head, in any shape.

    Returns:
        (B, C, C), zero between different heads.
    """
    c, heads = similarity.shape[-1], temperature.numel()
    scores = similarity * per_channel(temperature, c)
    if heads > 1:
        head = torch.arange(heads, device=scores.device).repeat_interleave(c // heads)
        scores = scores.masked_fill_(head[:, None] != head, -math.inf)
    return scores.softmax(-1)


def per_channel(temperature: Tensor, channels: int) -> Tensor:
    """The head's temperature of every channel: (C, 1)."""
    heads = temperature.numel()
    return temperature.reshape(heads, 1).expand(heads, channels // heads).reshape(channels, 1)


class _Attention(Function):
    """Written on matrices (B, N, C) of pixels and (B, C, C) of channels, the latter with -inf or zeros between heads.

    Normalised maps are never formed: products are divided by norms. Depthwise convolutions are repeated, not kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor | None,
        kv: Tensor,
        temperature: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        kernel: Tensor | None,
        kernel_bias: Tensor | None,
        before: Tensor | None,
        before_bias: Tensor | None,
        fused: bool,
    ) -> tuple[Tensor, Tensor]:
        given, kv = kv, kv if before is None else plain_depthwise(kv, before, before_bias)
        c = weight.shape[1]
        if fused:
            from .mdta_triton import attend

            norms, cosine, attention = attend(q, kv, temperature, c)
            mixing = torch.bmm(weight.to(attention.dtype).expand(kv.shape[0], -1, -1), attention).to(kv.dtype)
        elif by_heads(kv, temperature.numel(), c):
            norms, cosine, attention = head_attention(q, kv, temperature, c)
            mixing = head_mixing(weight, attention)
        else:
            norms, cosine, attention = _attention(q, kv, temperature, c)
            mixing = torch.bmm(weight.to(attention.dtype).expand(kv.shape[0], -1, -1), attention).to(kv.dtype)
        small = (temperature, weight, bias, kernel, before, before_bias, norms, cosine, attention, mixing)
        ctx.save_for_backward(q, given, *small)
        ctx.has_kernel_bias, ctx.fused = kernel_bias is not None, fused
        y = linear(kv[..., -c:], mixing, bias)
        y = y if kernel is None else plain_depthwise(y, kernel, kernel_bias)
        return y, side_by_side(attention) if attention.dim() == 4 else attention

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_map: Tensor) -> tuple[Tensor | None, ...]:
        q, given, *small = ctx.saved_tensors
        temperature, weight, bias, kernel, before, before_bias, norms, cosine, attention, mixing = small
        kv = given if before is None else plain_depthwise(given, before, before_bias)
        c = weight.shape[1]
        grad_kernel = grad_kernel_bias = None
        if kernel is not None:
            y = linear(kv[..., -c:], mixing, bias)
            grad, grad_kernel, grad_kernel_bias = depthwise_backward(grad, y, kernel, ctx.has_kernel_bias)
        grad_bias = None if bias is None else grad.sum((0, 1, 2))
        flat, grad_y = kv.flatten(1, 2), grad.flatten(1, 2)
        grad_flat = torch.empty_like(flat)
        # y = values mixing^T, mixing = weight attention.
        _set_product(grad_flat[..., -c:], grad_y, mixing)
        grad_mixing = torch.bmm(grad_y.transpose(1, 2), flat[..., -c:]).to(attention.dtype)
        if attention.dim() == 4:
            grad_weight, grad_attention = head_mixing_backward(grad_mixing, grad_map, weight, attention)
        else:
            grad_weight = torch.bmm(grad_mixing, attention.transpose(1, 2)).sum(0).to(weight.dtype)
            grad_attention = torch.bmm(weight.t().to(attention.dtype).expand(kv.shape[0], -1, -1), grad_mixing)
            grad_attention += grad_map
        if attention.dim() == 4:
            of_scores = (grad_attention, q, flat, temperature, norms, cosine, attention, grad_flat)
            grad_temperature, grad_q = head_attention_backward(*of_scores)
        elif ctx.fused:
            from .mdta_triton import attend_backward

            of = attend_backward(grad_attention, q, kv, temperature, norms, cosine, attention, c)
            grad_temperature, grad_q = of[0], None if q is None else of[2]
            grad_flat[..., :-c] = of[1].flatten(1, 2)
        else:
            of_scores = (grad_attention, q, flat, temperature, norms, cosine, attention, grad_flat)
            grad_temperature, grad_q = _attention_backward(*of_scores)
        grad_kv = grad_flat.view(kv.shape)
        of_before: list[Tensor | None] = [None, None]
        if before is not None:
            grad_kv, *of_before = depthwise_backward(grad_kv, given, before, before_bias is not None)
        return (
            grad_q,
            grad_kv,
            grad_temperature,
            grad_weight,
            grad_bias,
            grad_kernel,
            grad_kernel_bias,
            *of_before,
            None,
        )


def _attention(q: Tensor | None, kv: Tensor, temperature: Tensor, c: int) -> tuple[Tensor, Tensor, Tensor]:
    """Norms of query and key channels (B, 2 C), their cosine similarities and the attention matrices (B, C, C)."""
    flat = kv.flatten(1, 2)
    keys = at_least_float32(flat[..., -2 * c : -c])
    queries = at_least_float32(flat[..., :c].transpose(1, 2) if q is None else q.flatten(2))
    norms = torch.cat((queries.square().sum(2), keys.square().sum(1)), 1).sqrt_().clamp_min_(1e-12)
    scale = norms[:, :c, None] * norms[:, None, c:]
    cosine = torch.bmm(queries, keys).div_(scale)
    return norms, cosine, softmax_by_head(cosine, temperature)


def _attention_backward(
    grad_attention: Tensor,
    q: Tensor | None,
    flat: Tensor,
    temperature: Tensor,
    norms: Tensor,
    cosine: Tensor,
    attention: Tensor,
    grad_flat: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the temperature and of q, and, written into `grad_flat`, of what else of `flat` queries and keys are."""
    c, heads = cosine.shape[1], temperature.numel()
    # attention = softmax(factor cosine)
    grad_scores = torch.ops.aten._softmax_backward_data(grad_attention, attention, 2, attention.dtype)
    factor = per_channel(temperature, c)
    turned = grad_scores * cosine
    grad_temperature = turned.unflatten(1, (heads, -1)).sum((0, 2, 3)).reshape(temperature.shape)
    # cosine = q k / (|q| |k|): normalisation removes what points along the vector itself.
    turned.mul_(factor)
    inward = torch.cat((turned.sum(2), turned.sum(1)), 1) / norms.square()
    mix = grad_scores.mul_(factor).div_(norms[:, :c, None] * norms[:, None, c:])
    if q is None:
        both = mix.new_zeros(mix.shape[0], 2 * c, 2 * c)
        both[:, :c, c:] = mix
        both[:, c:, :c] = mix.transpose(1, 2)
        both.diagonal(dim1=1, dim2=2).sub_(inward)
        _set_product(grad_flat[..., : 2 * c], at_least_float32(flat[..., : 2 * c]), both)
        grad_q = None
    else:
        queries, keys = at_least_float32(q).flatten(2), at_least_float32(flat[..., :c])
        grad_q = torch.baddbmm(queries * inward[:, :c, None], mix, keys.transpose(1, 2), beta=-1)
        grad_q = grad_q.view(q.shape).to(q.dtype)
        grad_keys = torch.baddbmm(keys * inward[:, None, c:], queries.transpose(1, 2), mix, beta=-1)
        grad_flat[..., :c] = grad_keys
    return grad_temperature, grad_q


def _set_product(target: Tensor, a: Tensor, b: Tensor) -> None:
    """``target[:] = a @ b`` for batches of matrices, in place where the dtypes agree."""
    if target.dtype == a.dtype:
        target.baddbmm_(a, b, beta=0)
    else:
        target.copy_(torch.bmm(a, b))
