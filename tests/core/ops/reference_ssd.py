"""The state-space scan as its equations say, three ways: what core/ops/ssd.py is compared with, in value and in speed.

`sequential` is the recurrence itself. `minimal` and `chunked` follow the two pure-PyTorch forms that mamba_ssm publishes
(``ssd_minimal_discrete`` and the reference of ``mamba_chunk_scan_combined``): the same intermediate tensors, order of work and
restrictions. B and C are (B, L, H, N), one per head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sequential(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T, y_t = h_t C_t: (B, L, H, P) and the last h, (B, H, P, N)."""
    b, _, h, p = x.shape
    state = x.new_zeros(b, h, p, B.shape[-1]) if initial is None else initial
    outputs = []
    for x_t, dt_t, B_t, C_t in zip(x.unbind(1), dt.unbind(1), B.unbind(1), C.unbind(1), strict=True):
        state = torch.exp(dt_t * A)[..., None, None] * state + (dt_t[..., None] * x_t)[..., None] * B_t[..., None, :]
        outputs.append((state * C_t[..., None, :]).sum(-1))
    return torch.stack(outputs, 1), state


def segment_sum(a: Tensor) -> Tensor:
    """(..., T) -> (..., T, T): [l, s] is the sum of a over s < t <= l, and -inf above the diagonal."""
    t = a.shape[-1]
    lower = torch.ones(t, t, dtype=torch.bool, device=a.device).tril()
    steps = a[..., None].expand(*a.shape, t).masked_fill(~lower.tril(-1), 0)
    return steps.cumsum(-2).masked_fill(~lower, -torch.inf)


def minimal(
    x: Tensor, a: Tensor, B: Tensor, C: Tensor, chunk: int, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Of inputs already multiplied by dt, and a = dt A (B, L, H); L a multiple of `chunk`."""
    x, B, C = (t.unflatten(1, (-1, chunk)) for t in (x, B, C))
    a = a.unflatten(1, (-1, chunk)).permute(0, 3, 1, 2)
    total = a.cumsum(-1)
    decay = segment_sum(a).exp()
    inside = torch.einsum("bclhn,bcshn,bhcls,bcshp->bclhp", C, B, decay, x)
    states = torch.einsum("bclhn,bhcl,bclhp->bchpn", B, (total[..., -1:] - total).exp(), x)
    first = torch.zeros_like(states[:, :1]) if initial is None else initial[:, None]
    states = torch.cat([first, states], 1)
    between = segment_sum(F.pad(total[..., -1], (1, 0))).exp()
    states = torch.einsum("bhzc,bchpn->bzhpn", between, states)
    outside = torch.einsum("bclhn,bchpn,bhcl->bclhp", C, states[:, :-1], total.exp())
    return (inside + outside).flatten(1, 2), states[:, -1]


def chunked(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int) -> Tensor:
    """With decays from differences of cumulative sums, masked after the exponential; L a multiple of `chunk`."""
    x, dt, B, C = (t.unflatten(1, (-1, chunk)) for t in (x, dt, B, C))
    dt = dt.permute(0, 3, 1, 2)
    total = (dt * A[:, None, None]).cumsum(-1)
    states = torch.einsum("bclhn,bhcl,bhcl,bclhp->bchpn", B, (total[..., -1:] - total).exp(), dt, x)
    last = F.pad(total[..., -1], (1, 0)).cumsum(-1)
    n = last.shape[-1]
    lower = torch.ones(n, n, dtype=torch.bool).tril()
    between = (last[..., :, None] - last[..., None, :]).exp().masked_fill(~lower, 0)
    states = torch.einsum("bhzc,bchpn->bzhpn", between, torch.cat([torch.zeros_like(states[:, :1]), states], 1))
    scores = torch.einsum("bclhn,bcshn->bchls", C, B)
    decay = (total[..., :, None] - total[..., None, :]).exp().permute(0, 2, 1, 3, 4)
    weights = (scores * decay).masked_fill(~torch.ones(chunk, chunk, dtype=torch.bool).tril(), 0)
    inside = torch.einsum("bchls,bhcs,bcshp->bclhp", weights, dt, x)
    outside = torch.einsum("bclhn,bchpn->bclhp", C, states[:, :-1]) * total.exp().permute(0, 2, 3, 1)[..., None]
    return (inside + outside).flatten(1, 2)
