"""The scan of `core.ops.selective_scan` as one loop over chunks of steps, for exported files: of any length.

The loop is torch's higher-order ``scan``, which ONNX knows as ``Scan``: a file holds the steps of one chunk, however long the
sequence is, and the states of one chunk are in memory at a time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 16
"""Steps that one turn of the loop makes, one after the other."""


def scan_loop(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, bias: Tensor | None, softplus: bool
) -> tuple[Tensor, Tensor]:
    """`core.ops.selective_scan_chunks.scan_chunks`, shapes included, without gradients; batch and length may be symbols."""
    from torch._higher_order_ops.scan import scan  # torch's own name for it, until it is public

    batch, channels, length = u.shape
    groups = next((t.shape[1] for t in (B, C) if t.dim() == 4), 1)
    states, each = A.shape[1], channels // groups
    count = (length + CHUNK - 1) // CHUNK
    place = torch.arange(count * CHUNK, device=u.device)
    inside = (place < length).to(u.dtype)
    place = place.clamp(max=length - 1)

    def chunks(t: Tensor) -> Tensor:
        """(b, ..., L) as (chunks, Q, b, ...)."""
        cut: Tensor = t.movedim(-1, 0).index_select(0, place).unflatten(0, (count, CHUNK))
        return cut

    step = delta if bias is None else delta + bias[:, None]
    step = F.softplus(step) if softplus else step
    # What is past the end changes no state: its steps are 0.
    sizes = chunks(step) * inside.reshape(count, CHUNK, 1, 1)
    written = (sizes * chunks(u)).unflatten(-1, (groups, each))
    sizes = sizes.unflatten(-1, (groups, each))
    at_all_times = [A, *(t for t in (B, C) if t.dim() == 2)]
    rates, *constant = (t.unflatten(0, (groups, each)).transpose(1, 2).contiguous() for t in at_all_times)
    changing = [chunks(t) for t in (B, C) if t.dim() == 4]  # (chunks, Q, b, G, n)

    def turn(state: Tensor, given: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """A chunk: states are (b, G, n, e), other arrays (Q, b, G, ...)."""
        size, write, *rest = given
        fixed = iter(constant)
        left = iter([t[..., None] for t in rest])
        writes, reads = (next(left if t.dim() == 4 else fixed) for t in (B, C))
        decay, added = torch.exp(size[..., None, :] * rates), writes * write[..., None, :]
        passed = []
        for i in range(CHUNK):
            state = decay[i] * state + added[i]
            passed.append(state)
        return state.clone(memory_format=torch.contiguous_format), (torch.stack(passed) * reads).sum(-2)

    last, y = scan(turn, u.new_zeros(batch, groups, states, each), (sizes, written, *changing))
    y = y.flatten(0, 1).narrow(0, 0, length).flatten(2).permute(1, 2, 0)
    return (y if D is None else y + D[:, None] * u), last.transpose(-1, -2).flatten(1, 2)
