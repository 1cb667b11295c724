"""Attention between channels head by head, on a CPU: the parts of `core.ops.channel_attention` that differ there.

Elsewhere all heads are one product, of which only the blocks on the diagonal count. On a CPU the rest costs as much time as it
has arithmetic, which is 7 of 8 parts with 8 heads. Matrices of channels are (B, heads, C / heads, C / heads) here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import hosts

NARROW = 32
"""Most channels of a single head whose gradients of queries and keys are one product, which memory limits."""


def by_heads(kv: Tensor, heads: int, channels: int) -> bool:
    """Whether attention of `channels` runs head by head."""
    several = heads > 1 or channels > NARROW
    return several and hosts.asks_freely(kv) and kv.dtype in (torch.float32, torch.float64)


def _split(t: Tensor, heads: int) -> Tensor:
    """(B, N, C) -> (B, heads, N, C / heads), a view."""
    result: Tensor = t.unflatten(-1, (heads, -1)).transpose(1, 2)
    return result


def _blocks(full: Tensor, heads: int) -> Tensor:
    """The blocks on the diagonal of (B, C, C), as a view (B, heads, C / heads, C / heads)."""
    parts = full.unflatten(2, (heads, -1)).unflatten(1, (heads, -1))
    blocks: Tensor = parts.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
    return blocks


def side_by_side(matrices: Tensor) -> Tensor:
    """(B, heads, c, c) -> (B, C, C), with zeros between heads."""
    batch, heads, width, _ = matrices.shape
    full = matrices.new_zeros(batch, heads * width, heads * width)
    _blocks(full, heads).copy_(matrices)
    return full


def head_attention(q: Tensor | None, kv: Tensor, temperature: Tensor, c: int) -> tuple[Tensor, Tensor, Tensor]:
    """Norms of query and key channels (B, 2 C), their cosine similarities and the attention matrices, by heads."""
    flat, heads = kv.flatten(1, 2), temperature.numel()
    keys = flat[..., -2 * c : -c]
    queries = flat[..., :c].transpose(1, 2) if q is None else q.flatten(2)
    norms = torch.cat((queries.square().sum(2), keys.square().sum(1)), 1).sqrt_().clamp_min_(1e-12)
    of_queries, of_keys = (n.unflatten(1, (heads, -1)) for n in norms.chunk(2, 1))
    cosine = torch.matmul(queries.unflatten(1, (heads, -1)), _split(keys, heads))
    cosine /= of_queries[..., None] * of_keys[..., None, :]
    return norms, cosine, (cosine * temperature.view(heads, 1, 1)).softmax(-1)


def head_mixing(weight: Tensor, attention: Tensor) -> Tensor:
    """``weight`` (O, C) times the matrices of all heads: (B, O, C)."""
    columns = weight.to(attention.dtype).unflatten(1, (attention.shape[1], -1)).transpose(0, 1)
    return torch.matmul(columns, attention).transpose(1, 2).flatten(2)


def head_mixing_backward(grad: Tensor, grad_map: Tensor, weight: Tensor, attention: Tensor) -> tuple[Tensor, Tensor]:
    """From the gradients of `head_mixing` and of the map (B, C, C) those of `weight` and of the attention matrices."""
    heads = attention.shape[1]
    parts = _split(grad, heads)  # (B, heads, O, c)
    grad_weight = torch.matmul(parts, attention.transpose(2, 3)).sum(0).transpose(0, 1).flatten(1)
    columns = weight.to(attention.dtype).unflatten(1, (heads, -1)).permute(1, 2, 0)
    return grad_weight.to(weight.dtype), torch.matmul(columns, parts).add_(_blocks(grad_map, heads))


def head_attention_backward(
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
    heads, c = temperature.numel(), norms.shape[1] // 2
    grad_scores = torch.ops.aten._softmax_backward_data(grad_attention, attention, 3, attention.dtype)
    turned = grad_scores * cosine
    grad_temperature = turned.sum((0, 2, 3)).reshape(temperature.shape)
    # cosine = q k / (|q| |k|): normalisation removes what points along the vector itself.
    factor = temperature.view(heads, 1, 1)
    turned.mul_(factor)
    inward = torch.cat((turned.sum(3).flatten(1), turned.sum(2).flatten(1)), 1) / norms.square()
    of_queries, of_keys = (n.unflatten(1, (heads, -1)) for n in norms.chunk(2, 1))
    mix = grad_scores.mul_(factor).div_(of_queries[..., None] * of_keys[..., None, :])
    keys, of = _split(flat[..., -2 * c : -c], heads), _split(grad_flat[..., -2 * c : -c], heads)
    if q is None:
        queries, grad_q, of_q = _split(flat[..., :c], heads), None, _split(grad_flat[..., :c], heads)
    else:
        queries, grad_q = q.flatten(2).unflatten(1, (heads, -1)).transpose(2, 3), q.new_empty(q.shape)
        of_q = grad_q.flatten(2).unflatten(1, (heads, -1)).transpose(2, 3)
    # Sample by sample: batches of heads within a sample are views, and all of them would be copied first.
    for sample in range(len(mix)):
        of_q[sample].baddbmm_(keys[sample], mix[sample].transpose(1, 2), beta=0)
        of[sample].baddbmm_(queries[sample], mix[sample], beta=0)
    both = slice(0, 2 * c) if q is None else slice(0, c)
    grad_flat[..., both].addcmul_(flat[..., both], inward[:, None, -grad_flat[..., both].shape[2] :], value=-1)
    if grad_q is not None and q is not None:
        grad_q.flatten(2).addcmul_(q.flatten(2), inward[:, :c, None], value=-1)
    return grad_temperature, grad_q
