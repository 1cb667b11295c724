"""The sum over several orders of `core.ops.rms_norm.rmsnorm_gated`, whose gate is the same in all of them, on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

CACHED = 1 << 16
"""Elements of a block, of all orders."""


def rmsnorm_gated_sum(
    y: Tensor, weight: Tensor, z: Tensor, eps: float, size: int | None, norm_before_gate: bool
) -> Tensor:
    """``sum over k of rmsnorm_gated(y[:, k], weight, z)``, block by block in the cache; differentiable once.

    Args:
        y: (B, K, T, D), float32 or float64 as all others.
        weight: (D).
        z: gate, (B, T, D).
        eps: constant added to the mean square.
        size: channels that are normalised together; all when None.
        norm_before_gate: whether the norm comes before the gate.

    Returns:
        (B, T, D).
    """
    result: Tensor = _Sum.apply(y, weight, z, eps, size or len(weight), norm_before_gate)
    return result


def _blocks(y: Tensor) -> Iterator[tuple[int, slice]]:
    step = max(CACHED // (y.shape[1] * y.shape[3]), 1)
    for sample in range(len(y)):
        for start in range(0, y.shape[2], step):
            yield sample, slice(start, start + step)


class _Norm:
    """A block: what is normalised (K, S, D), by groups, its factor of each group, and the sum of what comes out."""

    def __init__(self, y: Tensor, gate: Tensor | None, eps: float, size: int) -> None:
        self.values = (y if gate is None else y * gate).unflatten(-1, (-1, size))
        self.factor = (torch.linalg.vector_norm(self.values, dim=-1, keepdim=True).square_() / size + eps).rsqrt_()
        self.normed = self.values * self.factor
        self.sum = self.normed.sum(0).flatten(-2)

    def backward(self, grad: Tensor) -> Tensor:
        """From the gradient of the sum (S, D) that of what is normalised, (K, S, D)."""
        grad = grad.unflatten(-1, self.values.shape[-2:])
        along = (self.normed * grad).mean(-1, keepdim=True)
        return torch.addcmul(grad, self.normed, along, value=-1).mul_(self.factor).flatten(-2)


class _Sum(Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor, z: Tensor, eps: float, size: int, first: bool) -> Tensor:
        ctx.save_for_backward(y, weight, z)
        ctx.options = eps, size, first
        out = torch.empty(z.shape, dtype=z.dtype)
        for sample, tokens in _blocks(y):
            gate = F.silu(z[sample, tokens])
            norm = _Norm(y[sample, :, tokens], None if first else gate, eps, size)
            torch.mul(norm.sum, weight * gate if first else weight, out=out[sample, tokens])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, weight, z = ctx.saved_tensors
        eps, size, first = ctx.options
        of_y, of_weight, of_z = torch.empty_like(y), torch.zeros_like(weight), torch.empty(z.shape, dtype=z.dtype)
        for sample, tokens in _blocks(y):
            scans, opened, g = y[sample, :, tokens], z[sample, tokens], grad[sample, tokens]
            gate = F.silu(opened)
            norm = _Norm(scans, None if first else gate, eps, size)
            met = g * norm.sum
            of_weight += (met * gate if first else met).sum(0)
            of_values = norm.backward(g * weight * gate if first else g * weight)
            of_gate = met * weight if first else (of_values * scans).sum(0)
            of_y[sample, :, tokens] = of_values if first else of_values.mul_(gate)
            of_z[sample, tokens] = torch.ops.aten.silu_backward(of_gate, opened)
        return of_y, of_weight, of_z, None, None, None
