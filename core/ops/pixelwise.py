"""Channel mixing on pixel-major maps, fused where that saves memory: where transposed-attention networks spend their time.

A pixel-major map has shape (B, H, W, C) and is contiguous: the transposed view of a channels-last (B, C, H, W) tensor, so going
from one to the other is free. In it a 1 x 1 convolution is one matrix product, layer normalisation over channels reduces
contiguous memory, and CPUs and GPUs have their fastest depthwise convolutions.

The autograd functions keep their inputs and repeat cheap work (1 x 1 products, GELU) in the backward pass instead of keeping
every intermediate map. They can be differentiated once.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .precision import at_least_float32


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


def gate_halves(x: Tensor) -> Tensor:
    """Product of the two halves of the channels (NAFNet's simple gate): (B, H, W, 2 C) -> (B, H, W, C)."""
    result: Tensor = _GateHalves.apply(x)
    return result


class _GateHalves(Function):
    """Keeps x alone, and writes both halves of its gradient into one map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        a, b = x.chunk(2, -1)
        return a * b

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        result = torch.empty_like(x)
        for mine, other in zip(result.chunk(2, -1), reversed(x.chunk(2, -1)), strict=True):
            torch.mul(grad, other, out=mine)
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


def _depthwise(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    y = F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, padding=kernel.shape[-1] // 2, groups=kernel.shape[0])
    return y.permute(0, 2, 3, 1)


def _depthwise_backward(
    grad: Tensor, x: Tensor, kernel: Tensor, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of the input, of the kernel, and of the bias."""
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
    return _depthwise(grad, kernel.flip(2, 3)), grad_kernel, grad_bias


def depthwise(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """A depthwise k x k convolution (zero padding, k odd): (B, H, W, C) -> same.

    Args:
        x: pixel-major.
        kernel, bias: (C, 1, k, k); (C) or None.
    """
    result: Tensor = _DepthwiseConvolution.apply(*cast_for_autocast(x, kernel, bias))
    return result


class _DepthwiseConvolution(Function):
    """`_depthwise` with the gradients that are fastest."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.has_bias = bias is not None
        return _depthwise(x, kernel, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel = ctx.saved_tensors
        return _depthwise_backward(grad, x, kernel, ctx.has_bias)


class _ExpandDepthwise(Function):
    """Keeps x; the wider map between the two convolutions is computed again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, kernel: Tensor, kernel_bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, kernel)
        ctx.has_kernel_bias = kernel_bias is not None
        return _depthwise(linear(x, weight, bias), kernel, kernel_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, kernel = ctx.saved_tensors
        wide = linear(x, weight, bias)
        inner, grad_kernel, grad_kernel_bias = _depthwise_backward(grad, wide, kernel, ctx.has_kernel_bias)
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
    """
    x, weight, bias, kernel, kernel_bias, out_weight, out_bias = cast_for_autocast(
        x, weight, bias, kernel, kernel_bias, out_weight, out_bias
    )
    # Two maps and not the halves of one, whose slices would slow down all that follows.
    a, b = (linear(x, w, wb) for w, wb in zip(weight.chunk(2, -2), _halves(bias), strict=True))
    result: Tensor = _GatedProjection.apply(a, b, kernel, kernel_bias, out_weight, out_bias)
    return result


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
    ) -> Tensor:
        ctx.save_for_backward(a, b, kernel, kernel_bias, out_weight)
        ctx.has_out_bias = out_bias is not None
        a, b = _depthwise_pair(a, b, kernel, kernel_bias)
        return F.linear(F.gelu(a).mul_(b), out_weight, out_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wide_a, wide_b, kernel, kernel_bias, out_weight = ctx.saved_tensors
        a, b = _depthwise_pair(wide_a, wide_b, kernel, kernel_bias)
        grad = grad.contiguous()
        product = grad @ out_weight
        gate = F.gelu(a)
        grad_b = gate * product
        grad_a = torch.ops.aten.gelu_backward(product.mul_(b), a)
        grad_out_weight = grad.flatten(0, 2).t() @ gate.mul_(b).flatten(0, 2)
        grad_out_bias = grad.sum((0, 1, 2)) if ctx.has_out_bias else None
        del product, gate, a, b
        has_bias, (first, second) = kernel_bias is not None, kernel.chunk(2)
        grad_a, *of_first = _depthwise_backward(grad_a, wide_a, first, has_bias)
        grad_b, *of_second = _depthwise_backward(grad_b, wide_b, second, has_bias)
        of_kernel = (
            None if f is None or s is None else torch.cat((f, s)) for f, s in zip(of_first, of_second, strict=True)
        )
        return grad_a, grad_b, *of_kernel, grad_out_weight, grad_out_bias


def _depthwise_pair(a: Tensor, b: Tensor, kernel: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """`_depthwise` of two maps with the halves of one kernel."""
    (first, second), (first_bias, second_bias) = kernel.chunk(2), _halves(bias)
    return _depthwise(a, first, first_bias), _depthwise(b, second, second_bias)


# -------------------------------------------------------------------------------------------- channel attention
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


def _attend(
    q: Tensor | None, kv: Tensor, temperature: Tensor, weight: Tensor, *rest: Tensor | None
) -> tuple[Tensor, Tensor]:
    rest = tuple(None if t is None else t.to(kv.dtype) for t in rest)
    with torch.autocast(kv.device.type, enabled=False):
        result: tuple[Tensor, Tensor] = _Attention.apply(q, kv, temperature, weight, *rest)
        return result


def softmax_by_head(similarity: Tensor, temperature: Tensor) -> Tensor:
    """Softmax over keys of temperature times similarity, within each head.

    Args:
        similarity: of all queries (rows) and keys: (B, C, C).
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
    ) -> tuple[Tensor, Tensor]:
        given, kv = kv, kv if before is None else _depthwise(kv, before, before_bias)
        c, flat = weight.shape[1], kv.flatten(1, 2)
        keys = at_least_float32(flat[..., -2 * c : -c])
        queries = at_least_float32(flat[..., :c].transpose(1, 2) if q is None else q.flatten(2))
        norms = torch.cat((queries.square().sum(2), keys.square().sum(1)), 1).sqrt_().clamp_min_(1e-12)
        scale = norms[:, :c, None] * norms[:, None, c:]
        cosine = torch.bmm(queries, keys).div_(scale)
        attention = softmax_by_head(cosine, temperature)
        mixing = torch.bmm(weight.to(attention.dtype).expand(kv.shape[0], -1, -1), attention).to(kv.dtype)
        small = (temperature, weight, bias, kernel, before, before_bias, norms, scale, cosine, attention, mixing)
        ctx.save_for_backward(q, given, *small)
        ctx.has_kernel_bias = kernel_bias is not None
        y = linear(kv[..., -c:], mixing, bias)
        return (y if kernel is None else _depthwise(y, kernel, kernel_bias)), attention

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_map: Tensor) -> tuple[Tensor | None, ...]:
        q, given, *small = ctx.saved_tensors
        temperature, weight, bias, kernel, before, before_bias, norms, scale, cosine, attention, mixing = small
        kv = given if before is None else _depthwise(given, before, before_bias)
        c, heads = weight.shape[1], temperature.numel()
        grad_kernel = grad_kernel_bias = None
        if kernel is not None:
            y = linear(kv[..., -c:], mixing, bias)
            grad, grad_kernel, grad_kernel_bias = _depthwise_backward(grad, y, kernel, ctx.has_kernel_bias)
        grad_bias = None if bias is None else grad.sum((0, 1, 2))
        flat, grad_y = kv.flatten(1, 2), grad.flatten(1, 2)
        grad_flat = torch.empty_like(flat)
        # y = values mixing^T, mixing = weight attention.
        _set_product(grad_flat[..., -c:], grad_y, mixing)
        grad_mixing = torch.bmm(grad_y.transpose(1, 2), flat[..., -c:]).to(attention.dtype)
        grad_weight = torch.bmm(grad_mixing, attention.transpose(1, 2)).sum(0).to(weight.dtype)
        grad_attention = torch.bmm(weight.t().to(attention.dtype).expand(kv.shape[0], -1, -1), grad_mixing)
        grad_attention += grad_map
        # attention = softmax(factor cosine)
        grad_scores = torch.ops.aten._softmax_backward_data(grad_attention, attention, 2, attention.dtype)
        factor = per_channel(temperature, c)
        turned = grad_scores * cosine
        grad_temperature = turned.unflatten(1, (heads, -1)).sum((0, 2, 3)).reshape(temperature.shape)
        # cosine = q k / (|q| |k|): normalisation removes what points along the vector itself.
        turned.mul_(factor)
        inward = torch.cat((turned.sum(2), turned.sum(1)), 1) / norms.square()
        mix = grad_scores.mul_(factor).div_(scale)
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
        grad_kv = grad_flat.view(kv.shape)
        of_before: list[Tensor | None] = [None, None]
        if before is not None:
            grad_kv, *of_before = _depthwise_backward(grad_kv, given, before, before_bias is not None)
        return grad_q, grad_kv, grad_temperature, grad_weight, grad_bias, grad_kernel, grad_kernel_bias, *of_before


def _set_product(target: Tensor, a: Tensor, b: Tensor) -> None:
    """``target[:] = a @ b`` for batches of matrices, in place where the dtypes agree."""
    if target.dtype == a.dtype:
        target.baddbmm_(a, b, beta=0)
    else:
        target.copy_(torch.bmm(a, b))
