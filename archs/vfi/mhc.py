"""Manifold-constrained connections: residual streams mixed by doubly stochastic matrices (Xie et al., "mHC", 2025).

`SummedStreams` is what HybridVFI's original does; `ParallelStreams` keeps several streams between layers, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.ops.precision import at_least_float32

NEVER = -8.0
"""Logit of a connection that starts closed."""


def sinkhorn(logits: Tensor, iterations: int, dims: tuple[int, int] = (-1, -2)) -> Tensor:
    """Sinkhorn and Knopp's projection of exp(logits) towards doubly stochastic matrices, computed on logarithms.

    Args:
        logits: (..., S, S).
        iterations: how many times both dimensions are normalised.
        dims: the two dimensions, in the order in which they are normalised. Sums over the second are exactly 1; those over
            the first as far as it has converged.
    """
    first = second = logits.new_zeros(())
    for _ in range(iterations):
        first = -(logits + second).logsumexp(dims[0], keepdim=True)
        second = -(logits + first).logsumexp(dims[1], keepdim=True)
    return (logits + first + second).exp()


class SummedStreams(nn.Module):
    """The connection of the original: streams mixed, given a branch, and summed at once. Parameter names are its own.

    Since columns of the mixing matrix and weights of the branch's output sum to one, mixing cancels in the sum: the result is
    the sum of all streams plus the branch, but for what Sinkhorn's iterations leave of the rows.

    Args:
        streams: number of streams.
        first: the one that the branch starts from.
        iterations: iterations of Sinkhorn's projection.
        temperature: divisor of the logits before the projection.
    """

    def __init__(self, streams: int, first: int = 0, iterations: int = 10, temperature: float = 0.05) -> None:
        super().__init__()
        self.iterations = iterations
        self.temperature = temperature
        one = F.one_hot(torch.tensor(first % streams), streams)[None]
        self.H_res_logits = nn.Parameter(NEVER * (1 - torch.eye(streams)))
        self.H_pre_logits = nn.Parameter(NEVER * (1 - one).float())
        self.H_post_logits = nn.Parameter(torch.zeros(1, streams))

    def forward(self, streams: Sequence[Tensor], branch: Callable[[Tensor], Tensor]) -> Tensor:
        """Tensors of one shape -> one of that shape."""
        with torch.autocast(streams[0].device.type, enabled=False):
            mixing = sinkhorn(at_least_float32(self.H_res_logits) / self.temperature, self.iterations).sum(1)
            entering = at_least_float32(self.H_pre_logits).softmax(-1)[0]
            leaving = at_least_float32(self.H_post_logits).softmax(-1).sum()
        output = branch(weighted_sum(streams, entering))
        return weighted_sum(streams, mixing) + leaving.to(output.dtype) * output


def weighted_sum(tensors: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Sum of tensors of one shape, with one weight each."""
    total = tensors[0] * weights[0].to(tensors[0].dtype)
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total = total + tensor * weight.to(tensor.dtype)
    return total


class ParallelStreams(nn.Module):
    """Dynamic mHC around a branch: ``x' = H_res^T x + h_post branch(h_pre . x)``, with coefficients from each token's streams.

    h_pre = sigmoid(a . x~ + c), h_post = 2 sigmoid(...) and H_res = Sinkhorn(...), x~ being the streams, each RMS-normalised.
    Names and initialisation follow the open implementation "hyper-connections": a static part as `first` says, no dynamic part.

    Args:
        dim: channels.
        streams: S, how many.
        first: the stream that the branch starts from, modulo `streams`.
        iterations: iterations of Sinkhorn's projection.
    """

    def __init__(self, dim: int, streams: int = 4, first: int = 0, iterations: int = 20) -> None:
        super().__init__()
        self.iterations = iterations
        one = F.one_hot(torch.tensor(first % streams), streams)[:, None].float()
        self.static_alpha = nn.Parameter(torch.cat([one, torch.eye(streams)], 1))
        self.dynamic_alpha_fn = nn.Parameter(torch.zeros(1, dim, streams + 1))
        self.pre_branch_scale = nn.Parameter(torch.full((1,), 1e-2))
        self.residual_scale = nn.Parameter(torch.full((1,), 1e-2))
        self.static_beta = nn.Parameter(torch.ones(streams))
        self.dynamic_beta_fn = nn.Parameter(torch.zeros(dim))
        self.h_post_scale = nn.Parameter(torch.tensor(1e-2))
        self.norm = StreamNorm(dim)

    def forward(self, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, L, S, C) -> the same; `branch` maps (B, L, C) to the same."""
        with torch.autocast(x.device.type, enabled=False):
            precise = at_least_float32(x)
            normed = self.norm(precise)
            alpha = normed @ self.dynamic_alpha_fn[0].to(normed.dtype)
            pre, mixing = alpha.split([1, alpha.shape[-1] - 1], -1)
            pre = torch.sigmoid(pre * self.pre_branch_scale + self.static_alpha[:, :1])
            mixing = sinkhorn(mixing * self.residual_scale + self.static_alpha[:, 1:], self.iterations, dims=(-2, -1))
            post = torch.sigmoid(normed @ self.dynamic_beta_fn.to(normed.dtype) * self.h_post_scale + self.static_beta)
            entering = (pre * x).sum(-2)
            kept = mixing.transpose(-2, -1) @ precise
        output = branch(entering.to(x.dtype))
        return kept.to(x.dtype) + (2 * post[..., None]).to(output.dtype) * output[..., None, :]


class StreamNorm(nn.Module):
    """RMS normalisation of the last dimension with gain 1 + gamma."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> the same shape."""
        return F.normalize(x, dim=-1) * x.shape[-1] ** 0.5 * (self.gamma + 1)
