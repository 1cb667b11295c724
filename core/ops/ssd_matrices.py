"""The scan of `core.ops.ssd` by products of matrices alone, for exported files: of any length, without loops over it.

With Q steps a chunk, what steps of a chunk give each other is a product with a Q x Q matrix of decays, and what chunks give
each other one with a matrix of chunks by chunks (Dao and Gu, "Transformers are SSMs", ICML 2024, section 6). Sums of
exponents are taken from one step to the next, never as differences of longer sums, which would cost their digits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .deterministic import running_sum


def scan_matrices(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, initial: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """`core.ops.ssd_chunks.scan_chunks`, shapes included; the length may be a symbol."""
    batch, length, heads, width = x.shape
    groups = B.shape[2]
    count = (length + chunk - 1) // chunk
    # Cut the sequence into chunks; steps past the end have no effect.
    place = torch.arange(count * chunk, device=x.device)
    inside = place < length
    place = place.clamp(max=length - 1)

    def chunks(t: Tensor) -> Tensor:
        """(B, L, ...) as (B, chunks, steps, ...); what is past the end is there, and has no effect: its dt is 0."""
        return t.index_select(1, place).reshape(batch, count, chunk, *t.shape[2:])

    step = chunks(dt) * inside.reshape(count, chunk, 1).to(dt.dtype)
    decay = (step * A).unflatten(-1, (groups, -1)).permute(0, 1, 3, 4, 2)  # (B, c, G, R, Q)
    written = (chunks(x) * step[..., None]).unflatten(3, (groups, -1))  # (B, c, Q, G, R, P)
    writes, reads = chunks(B), chunks(C)  # (B, c, Q, G, N)
    # Inside each chunk: every step sees the earlier ones, with their decay.
    between = between_steps(decay)  # (B, c, G, R, Q, Q)
    products = torch.einsum("bcign,bcjgn->bcgij", reads, writes)
    y = torch.einsum("bcgrij,bcjgrp->bcigrp", products[:, :, :, None] * between, written)
    # Between chunks: what each adds to the state, and what its steps read of it.
    made = torch.einsum("bcjgn,bcgrj,bcjgrp->bcgnrp", writes, between[..., -1, :], written)
    states = torch.cat([initial[:, None], made], 1)  # the first, and what each chunk adds
    whole = decay.sum(-1).permute(0, 2, 3, 1)  # (B, G, R, c)
    of_chunks = between_steps(torch.cat([torch.zeros_like(whole[..., :1]), whole], -1))
    states = torch.einsum("bgrij,bjgnrp->bignrp", of_chunks, states)
    y = y + torch.einsum("bcign,bcgri,bcgnrp->bcigrp", reads, running_sum(decay, -1).exp(), states[:, :-1])
    y = y.reshape(batch, count * chunk, heads, width).narrow(1, 0, length)
    return (y if D is None else y + D * x), states[:, -1]


def between_steps(exponents: Tensor) -> Tensor:
    """exp of the sum of `exponents` (..., n) over the steps after j up to i, (..., n, n); 0 for j > i."""
    n = exponents.shape[-1]
    place = torch.arange(n, device=exponents.device)
    later = place[:, None] > place
    sums = running_sum(torch.where(later, exponents[..., :, None], 0.0), -2)
    return torch.where(later | (place[:, None] == place), sums, -torch.inf).exp()
