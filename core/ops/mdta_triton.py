"""Triton kernels of the attention between channels: what surrounds the matrix products with values and weights.

Forward two launches: products of queries and keys with both norms, in one read of them, as one partial sum for every slab of
pixels; then a small program for every image and head, which adds slabs up and takes the softmax. Backward two: that of the
softmax, and one that reads queries and keys once and writes their gradients. Plain PyTorch reads them five times. Limit: bytes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from .launching import block, launch, operator, tile

PIXELS = 64
"""Pixels of a tile, at most."""
SLICE = 16
"""Channels of a head that the last kernel sums over at once."""
SLAB = 2048
"""Pixels of a program of the first kernel."""
TILE = 2048
"""Elements of a map that it multiplies at once: more, in two halves of the digits each, are more than registers hold."""


@triton.jit
def _load(source, pixel, channel, pixels, width, pixel_stride, channel_stride):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    mask = (pixel < pixels)[:, None] & (channel < width)[None, :]
    return tl.load(source + pixel[:, None] * pixel_stride + channel[None, :] * channel_stride, mask=mask, other=0.0)


@triton.jit
def _gram(  # type: ignore[no-untyped-def]  # noqa: ANN202
    q, k, products, squares, pixels, width, heads, slabs, q_image, q_pixel, q_channel, k_image, k_pixel,  # noqa: ANN001
    PIXELS: tl.constexpr, TILES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    image, slab = (tl.program_id(0) // slabs).to(tl.int64), (tl.program_id(0) % slabs).to(tl.int64)
    head = tl.program_id(1).to(tl.int64)
    c = tl.arange(0, WIDTH)
    total = tl.zeros((WIDTH, WIDTH), tl.float32)
    of_q = tl.zeros((WIDTH,), tl.float32)
    of_k = tl.zeros((WIDTH,), tl.float32)
    for i in range(TILES):
        pixel = (slab * TILES + i) * PIXELS + tl.arange(0, PIXELS)
        a = _load(q + image * q_image + head * width * q_channel, pixel, c, pixels, width, q_pixel, q_channel)
        b = _load(k + image * k_image + head * width, pixel, c, pixels, width, k_pixel, 1)
        a, b = a.to(tl.float32), b.to(tl.float32)
        total += tl.dot(tl.trans(a), b, input_precision="tf32x3")
        of_q += tl.sum(a * a, 0)
        of_k += tl.sum(b * b, 0)
    place = tl.program_id(0).to(tl.int64) * heads + head
    mask = c < width
    where = place * width * width + c[:, None] * width + c[None, :]
    tl.store(products + where, total, mask=mask[:, None] & mask[None, :])
    tl.store(squares + place * 2 * width + c, of_q, mask=mask)
    tl.store(squares + (place * 2 + 1) * width + c, of_k, mask=mask)


@triton.jit
def _mix(  # type: ignore[no-untyped-def]  # noqa: ANN202
    products, squares, temperature, norms, cosine, attention, width, heads, slabs,  # noqa: ANN001
    WIDTH: tl.constexpr,
):  # fmt: skip
    image, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    c = tl.arange(0, WIDTH)
    known = c < width
    mask = known[:, None] & known[None, :]
    total = tl.zeros((WIDTH, WIDTH), tl.float32)
    of_q = tl.zeros((WIDTH,), tl.float32)
    of_k = tl.zeros((WIDTH,), tl.float32)
    for slab in range(slabs):
        place = (image * slabs + slab) * heads + head
        total += tl.load(products + place * width * width + c[:, None] * width + c[None, :], mask=mask, other=0.0)
        of_q += tl.load(squares + place * 2 * width + c, mask=known, other=0.0)
        of_k += tl.load(squares + (place * 2 + 1) * width + c, mask=known, other=0.0)
    of_q, of_k = tl.maximum(tl.sqrt(of_q), 1e-12), tl.maximum(tl.sqrt(of_k), 1e-12)
    whole = heads * width
    tl.store(norms + image * 2 * whole + head * width + c, of_q, mask=known)
    tl.store(norms + (image * 2 + 1) * whole + head * width + c, of_k, mask=known)
    similar = total / (of_q[:, None] * of_k[None, :])
    here = (image * heads + head) * width * width + c[:, None] * width + c[None, :]
    tl.store(cosine + here, similar, mask=mask)
    scores = similar * tl.load(temperature + head).to(tl.float32)
    scores = tl.where(known[None, :], scores, -float("inf"))
    scores = tl.exp(scores - tl.max(scores, 1)[:, None])
    where = (image * whole + head * width + c)[:, None] * whole + (head * width + c)[None, :]
    tl.store(attention + where, scores / tl.sum(scores, 1)[:, None], mask=mask)


@triton.jit
def _mix_backward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, temperature, norms, cosine, attention, mix, inward, of_temperature, width, heads,  # noqa: ANN001
    WIDTH: tl.constexpr,
):  # fmt: skip
    """What queries are to be multiplied with for the keys' gradients, and what of themselves is to be taken off."""
    image, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    c = tl.arange(0, WIDTH)
    known = c < width
    mask = known[:, None] & known[None, :]
    whole = heads * width
    where = (image * whole + head * width + c)[:, None] * whole + (head * width + c)[None, :]
    a = tl.load(attention + where, mask=mask, other=0.0)
    d = a * tl.load(grad + where, mask=mask, other=0.0)
    d = d - a * tl.sum(d, 1)[:, None]
    here = (image * heads + head) * width * width + c[:, None] * width + c[None, :]
    turned = d * tl.load(cosine + here, mask=mask, other=0.0)
    tl.store(of_temperature + image * heads + head, tl.sum(tl.sum(turned, 1), 0))
    t = tl.load(temperature + head).to(tl.float32)
    at_q, at_k = image * 2 * whole + head * width + c, (image * 2 + 1) * whole + head * width + c
    of_q, of_k = tl.load(norms + at_q, mask=known, other=1.0), tl.load(norms + at_k, mask=known, other=1.0)
    tl.store(inward + at_q, tl.sum(turned, 1) * t / of_q / of_q, mask=known)
    tl.store(inward + at_k, tl.sum(turned, 0) * t / of_k / of_k, mask=known)
    tl.store(mix + here, d * t / (of_q[:, None] * of_k[None, :]), mask=mask)


@triton.jit
def _apply(  # type: ignore[no-untyped-def]  # noqa: ANN202
    q, k, mix, inward, of_q, of_k, pixels, width, heads, tiles, q_image, q_pixel, q_channel, k_image, k_pixel,  # noqa: ANN001
    oq_image, oq_pixel, oq_channel, ok_image, ok_pixel,  # noqa: ANN001
    PIXELS: tl.constexpr, WIDTH: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    """Gradients of queries, then of keys. What is summed over comes in slices: whole matrices are more than registers hold."""
    image, head = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(1).to(tl.int64)
    pixel = (tl.program_id(0) % tiles).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    c = tl.arange(0, WIDTH)
    known = c < width
    mask = (pixel < pixels)[:, None] & known[None, :]
    queries, keys = q + image * q_image + head * width * q_channel, k + image * k_image + head * width
    mix += (image * heads + head) * width * width
    # The gradient of the queries: the mixed keys, less what the normalisation takes away.
    total = tl.zeros((PIXELS, WIDTH), tl.float32)
    for first in range(0, width, SLICE):
        s = first + tl.arange(0, SLICE)
        m = tl.load(mix + c[:, None] * width + s[None, :], mask=known[:, None] & (s < width)[None, :], other=0.0)
        b = _load(keys, pixel, s, pixels, width, k_pixel, 1).to(tl.float32)
        total += tl.dot(b, tl.trans(m), input_precision="tf32x3")
    own = tl.load(inward + (image * 2 * heads + head) * width + c, mask=known, other=0.0)
    total -= _load(queries, pixel, c, pixels, width, q_pixel, q_channel).to(tl.float32) * own[None, :]
    where = image * oq_image + pixel[:, None] * oq_pixel + (head * width + c)[None, :] * oq_channel
    tl.store(of_q + where, total.to(of_q.dtype.element_ty), mask=mask)
    # The gradient of the keys: the mixed queries, less the same correction.
    total = tl.zeros((PIXELS, WIDTH), tl.float32)
    for first in range(0, width, SLICE):
        s = first + tl.arange(0, SLICE)
        m = tl.load(mix + s[:, None] * width + c[None, :], mask=(s < width)[:, None] & known[None, :], other=0.0)
        a = _load(queries, pixel, s, pixels, width, q_pixel, q_channel).to(tl.float32)
        total += tl.dot(a, m, input_precision="tf32x3")
    own = tl.load(inward + ((image * 2 + 1) * heads + head) * width + c, mask=known, other=0.0)
    total -= _load(keys, pixel, c, pixels, width, k_pixel, 1).to(tl.float32) * own[None, :]
    where = image * ok_image + pixel[:, None] * ok_pixel + (head * width + c)[None, :]
    tl.store(of_k + where, total.to(of_k.dtype.element_ty), mask=mask)


def _strides(q: Tensor | None, kv: Tensor, c: int) -> tuple[Tensor, Tensor, list[int]]:
    """Queries, keys, and their strides of images, pixels and channels: those of queries, then of keys without the last."""
    of_map = [kv[0].numel(), kv.shape[-1]] if len(kv) else [0, 0]
    keys = kv[..., kv.shape[-1] - 2 * c : kv.shape[-1] - c]
    if q is None:
        return kv[..., :c], keys, [*of_map, 1, *of_map]
    return q, keys, [c * q[0, 0].numel() if len(q) else 0, 1, q.shape[2] * q.shape[3], *of_map]


def _warps(padded: int) -> int:
    """Of a program that holds a matrix of a head."""
    return 4 if padded < 64 else 8


def _run(q: Tensor | None, kv: Tensor, temperature: Tensor, c: int) -> tuple[Tensor, Tensor, Tensor]:
    kv, q = kv.contiguous(), None if q is None else q.contiguous()
    batch, pixels, heads = kv.shape[0], kv.shape[1] * kv.shape[2], temperature.numel()
    width = c // heads
    queries, keys, strides = _strides(q, kv, c)
    padded = block(width)
    held = tile(max(min(PIXELS, TILE // padded), 16))
    slabs = max(triton.cdiv(pixels, tile(SLAB)), 1)
    tiles = triton.cdiv(tile(SLAB) if slabs > 1 else pixels, held)
    products = torch.empty(batch, slabs, heads, width, width, device=kv.device, dtype=torch.float32)
    squares = torch.empty(batch, slabs, heads, 2, width, device=kv.device, dtype=torch.float32)
    launch(
        _gram, (batch * slabs, heads), queries, keys, products, squares, pixels, width, heads, slabs, *strides,
        PIXELS=held, TILES=tiles, WIDTH=padded, warps=_warps(padded),
    )  # fmt: skip
    norms, cosine, attention = _fake(q, kv, temperature, c)
    attention.zero_()
    launch(
        _mix, (batch, heads), products, squares, temperature.contiguous(), norms, cosine, attention, width, heads, slabs,
        WIDTH=padded, warps=_warps(padded),
    )  # fmt: skip
    return norms, cosine, attention


def _fake(q: Tensor | None, kv: Tensor, temperature: Tensor, c: int) -> tuple[Tensor, Tensor, Tensor]:
    heads = temperature.numel()
    shapes = (kv.shape[0], 2 * c), (kv.shape[0], heads, c // heads, c // heads), (kv.shape[0], c, c)
    norms, cosine, attention = (torch.empty(s, device=kv.device, dtype=torch.float32) for s in shapes)
    return norms, cosine, attention


def _run_backward(
    grad: Tensor,
    q: Tensor | None,
    kv: Tensor,
    temperature: Tensor,
    norms: Tensor,
    cosine: Tensor,
    attention: Tensor,
    c: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the temperature, of `kv` without its values, and of q (or nothing), from that of the attention (B, C, C)."""
    of_temperature, of_kv, of_q = _fake_backward(grad, q, kv, temperature, norms, cosine, attention, c)
    kv, q, grad = kv.contiguous(), None if q is None else q.contiguous(), grad.contiguous()
    batch, pixels, heads = kv.shape[0], kv.shape[1] * kv.shape[2], temperature.numel()
    width = c // heads
    queries, keys, strides = _strides(q, kv, c)
    held, padded = tile(PIXELS), block(width)
    mix, inward = torch.empty_like(cosine), torch.empty_like(norms)
    partial = torch.empty(batch, heads, device=kv.device, dtype=torch.float32)
    launch(
        _mix_backward, (batch, heads), grad, temperature.contiguous(), norms, cosine, attention, mix, inward, partial, width,
        heads, WIDTH=padded, warps=8,
    )  # fmt: skip
    own = [of_kv.shape[1] * of_kv.shape[2] * of_kv.shape[3], of_kv.shape[3]]
    of_queries, of_keys = (of_kv[..., :c], of_kv[..., c:]) if q is None else (of_q, of_kv)
    tiles = triton.cdiv(pixels, held)
    launch(
        _apply, (batch * tiles, heads), queries, keys, mix, inward, of_queries, of_keys, pixels, width, heads, tiles, *strides,
        *([*own, 1] if q is None else strides[:3]), *own, PIXELS=held, WIDTH=padded, SLICE=min(tile(SLICE), padded), warps=8,
    )  # fmt: skip
    return of_temperature.copy_(partial.sum(0).reshape(temperature.shape)), of_kv, of_q


def _fake_backward(
    grad: Tensor,
    q: Tensor | None,
    kv: Tensor,
    temperature: Tensor,
    norms: Tensor,
    cosine: Tensor,
    attention: Tensor,
    c: int,
) -> tuple[Tensor, Tensor, Tensor]:
    of_kv = torch.empty(*kv.shape[:3], 2 * c if q is None else c, device=kv.device, dtype=kv.dtype)
    of_q = torch.empty((0,) if q is None else q.shape, device=kv.device, dtype=kv.dtype if q is None else q.dtype)
    return torch.empty(temperature.shape, device=kv.device, dtype=temperature.dtype), of_kv, of_q


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.mark_non_differentiable(*output[:2])
    ctx.c = inputs[3]


def _gradients(ctx: Any, backward: Any, _: Any, __: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    q, kv = ctx.saved_tensors[:2]
    of_temperature, of_kv, of_q = backward(grad, *ctx.saved_tensors, ctx.c)
    return None if q is None else of_q, F.pad(of_kv, (0, kv.shape[-1] - of_kv.shape[-1])), of_temperature, None


attend = operator("mdta", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``attend(q, kv, temperature, C)``: norms of query and key channels (B, 2 C), cosines (B, heads, C / heads, C / heads), and
attention (B, C, C), which alone has gradients; in float32.

q is in planes (B, C, H, W), or None for the first C channels of kv, which is pixel-major; keys are the C channels before the
last C; temperature has one element per head.
"""
attend_backward = torch.ops.relume.mdta_backward
"""Gradients of the temperature, of `kv` without its values, and of q (or nothing), from that of the attention (B, C, C)."""
