"""Channel mixing on pixel-major maps, fused where that saves memory: where transposed-attention networks spend their time.

A pixel-major map has shape (B, H, W, C) and is contiguous: the transposed view of a channels-last (B, C, H, W) tensor, so going
from one to the other is free. In it a 1 x 1 convolution is one matrix product, layer normalisation over channels reduces
contiguous memory, and CPUs and GPUs have their fastest depthwise convolutions.

The autograd functions keep their inputs and repeat cheap work (1 x 1 products, GELU) in the backward pass instead of keeping
every intermediate map. They can be differentiated once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .fourier import at_least_float32


def pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) in any memory layout -> pixel-major (B, H, W, C); a view where `x` is channels-last."""
    return x.permute(0, 2, 3, 1).contiguous()


def channels(x: Tensor) -> Tensor:
    """Pixel-major (B, H, W, C) -> a channels-last view (B, C, H, W)."""
    return x.permute(0, 3, 1, 2)


def cast_for_autocast(*tensors: Tensor | None) -> list[Tensor | None]:
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
    y = (x.flatten(1, 2) @ weight.transpose(-1, -2).to(x.dtype)).unflatten(1, x.shape[1:3])
    return y if bias is None else y + bias.unflatten(-1, (1, 1, -1)).to(y.dtype)


# -------------------------------------------------------------------------------- 1 x 1, then depthwise 3 x 3
def expand_depthwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, kernel: Tensor, kernel_bias: Tensor | None, parts: int
) -> tuple[Tensor, ...]:
    """A 1 x 1 convolution to O channels, a depthwise 3 x 3 convolution (zero padding), the result in `parts` equal maps.

    Args:
        x: (B, H, W, C).
        weight, bias: (O, C) or (B, O, C); (O), (B, O) or None.
        kernel, kernel_bias: (O, 1, 3, 3); (O) or None.
        parts: how many maps (B, H, W, O / parts) to return; separate, since a slice of a wider map would slow down all that
            follows.
    """
    x, weight, bias, kernel, kernel_bias = cast_for_autocast(x, weight, bias, kernel, kernel_bias)  # type: ignore[assignment]
    return _ExpandDepthwise.apply(x, weight, bias, kernel, kernel_bias, parts)  # type: ignore[no-any-return]


def _depthwise(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    y = F.conv2d(channels(x), kernel, bias, padding=kernel.shape[-1] // 2, groups=kernel.shape[0])
    return y.permute(0, 2, 3, 1)


def _depthwise_kernel_grad(grad: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
    edge, stride = kernel.shape[-1] // 2, (1, 1)
    mask = (False, True, False)
    _, g, _ = torch.ops.aten.convolution_backward(
        channels(grad), channels(x), kernel, None, stride, (edge, edge), (1, 1), False, (0, 0), kernel.shape[0], mask
    )
    return g  # type: ignore[no-any-return]


class _ExpandDepthwise(Function):
    """Keeps x; the map between the two convolutions, `parts` times as wide or more, is computed again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        kernel: Tensor,
        kernel_bias: Tensor | None,
        parts: int,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, weight, bias, kernel)
        ctx.has_kernel_bias = kernel_bias is not None
        ctx.parts = parts
        biases = split(bias, parts)
        return tuple(
            _depthwise(linear(x, w, b), k, kb)
            for w, b, k, kb in zip(
                weight.chunk(parts, -2), biases, kernel.chunk(parts), split(kernel_bias, parts), strict=True
            )
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, kernel = ctx.saved_tensors
        per_image = weight.dim() == 3
        rows = x.flatten(1, 2) if per_image else x.flatten(0, 2)
        grad_x: Tensor | None = None
        grad_weight, grad_bias, grad_kernel, grad_kernel_bias = [], [], [], []
        pieces = zip(grads, weight.chunk(ctx.parts, -2), split(bias, ctx.parts), kernel.chunk(ctx.parts), strict=True)
        for grad, w, b, k in pieces:
            grad = grad.contiguous()
            grad_kernel.append(_depthwise_kernel_grad(grad, linear(x, w, b), k))
            if ctx.has_kernel_bias:
                grad_kernel_bias.append(grad.sum((0, 1, 2)))
            inner = _depthwise(grad, k.flip(2, 3))
            if bias is not None:
                grad_bias.append(inner.sum((0, 1, 2) if bias.dim() == 1 else (1, 2)))
            inner = inner.reshape(*rows.shape[:-1], -1)
            grad_weight.append(inner.transpose(-2, -1) @ rows)
            grad_x = inner @ w if grad_x is None else _add_product(grad_x, inner, w)
        assert grad_x is not None
        return (
            grad_x.view_as(x),
            torch.cat(grad_weight, -2),
            torch.cat(grad_bias, -1) if grad_bias else None,
            torch.cat(grad_kernel),
            torch.cat(grad_kernel_bias) if grad_kernel_bias else None,
            None,
        )


def split(x: Tensor | None, parts: int) -> tuple[Tensor | None, ...]:
    """`x` in equal parts along its last axis, or as many Nones."""
    return (None,) * parts if x is None else x.chunk(parts, -1)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return total.baddbmm_(a, b) if total.dim() == 3 else total.addmm_(a, b)


# -------------------------------------------------------------------------------------------- gated projection
def gated_projection(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``linear(gelu(a) * b, weight, bias)`` of pixel-major maps: (B, H, W, E) twice -> (B, H, W, O)."""
    a, b, weight, bias = cast_for_autocast(a, b, weight, bias)  # type: ignore[assignment]
    return _GatedProjection.apply(a, b, weight, bias)  # type: ignore[no-any-return]


class _GatedProjection(Function):
    """Keeps a and b; gelu(a) and its product with b are computed again."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(a, b, weight)
        ctx.has_bias = bias is not None
        return F.linear(F.gelu(a).mul_(b), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b, weight = ctx.saved_tensors
        grad = grad.contiguous()
        product = grad @ weight
        gate = F.gelu(a)
        grad_b = gate * product
        grad_a = torch.ops.aten.gelu_backward(product.mul_(b), a)
        gate.mul_(b)
        grad_weight = grad.flatten(0, 2).t() @ gate.flatten(0, 2)
        return grad_a, grad_b, grad_weight, grad.sum((0, 1, 2)) if ctx.has_bias else None


# -------------------------------------------------------------------------------------------- channel attention
def cosine_attention(q: Tensor, k: Tensor, temperature: Tensor) -> Tensor:
    """Softmax of the cosine similarities of query and key channels: one matrix per image and head, in float32.

    Args:
        q: queries (rows of the result), (B, H, W, C): pixel-major, or a permuted view of planes.
        k: keys (columns), the same.
        temperature: factor of the similarities, one element per head, in any shape.

    Returns:
        (B, heads, C / heads, C / heads). A channel that is zero everywhere has similarity zero to all.
    """
    heads = temperature.numel()
    with torch.autocast(q.device.type, enabled=False):  # sums over all pixels do not fit float16
        cosine = _Cosine.apply(at_least_float32(q).flatten(1, 2), at_least_float32(k).flatten(1, 2), heads)
        return (cosine * temperature.reshape(heads, 1, 1)).softmax(dim=-1)  # type: ignore[no-any-return]


class _Cosine(Function):
    """(B, N, C) twice -> cosines (B, heads, d, d). The normalised maps are never formed: products are divided by norms."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, heads: int) -> Tensor:
        by_head = [t.unflatten(2, (heads, -1)).permute(0, 2, 3, 1) for t in (q, k)]
        norms = [t.square().sum(1).sqrt_().clamp_min_(1e-12).unflatten(1, (heads, -1)) for t in (q, k)]
        scale = 1 / (norms[0][..., :, None] * norms[1][..., None, :])
        cosine = (by_head[0] @ by_head[1].transpose(-2, -1)).mul_(scale)
        ctx.save_for_backward(q, k, cosine, scale, *norms)
        return cosine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, cosine, scale, norm_q, norm_k = ctx.saved_tensors
        along = grad * cosine  # the part of each gradient along the vector itself, which normalisation removes
        inward_q = (along.sum(-1) / norm_q.square()).flatten(1)
        inward_k = (along.sum(-2) / norm_k.square()).flatten(1)
        mix = block_diagonal(grad * scale)
        grad_q = (q * inward_q[:, None]).baddbmm_(k, mix.transpose(1, 2), beta=-1)  # in place: in the layout of q
        grad_k = (k * inward_k[:, None]).baddbmm_(q, mix, beta=-1)
        return grad_q, grad_k, None


def block_diagonal(blocks: Tensor) -> Tensor:
    """(B, heads, d, d) -> (B, heads * d, heads * d) with the blocks on the diagonal."""
    b, heads, d, _ = blocks.shape
    if heads == 1:
        return blocks[:, 0]
    out = blocks.new_zeros(b, heads, d, heads, d)
    out.diagonal(dim1=1, dim2=3).copy_(blocks.permute(0, 2, 3, 1))
    return out.reshape(b, heads * d, heads * d)


def compose(weight: Tensor, attention: Tensor) -> Tensor:
    """The one matrix per image that attention, then a 1 x 1 convolution, amount to.

    Args:
        weight: (O, C), the convolution that follows.
        attention: (B, heads, d, d) with ``heads * d = C``.

    Returns:
        (B, O, C), in the attention's dtype.
    """
    with torch.autocast(attention.device.type, enabled=False):
        return weight.to(attention.dtype) @ block_diagonal(attention)
