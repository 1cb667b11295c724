"""The selective scan in PyTorch, forward and backward: see `core.ops.selective_scan.selective_scan`.

Time goes by chunks of Q steps. What does not depend on the state is computed for a chunk at once; the recursion itself is one
multiplication and addition of all channels' states for each step, since products of decays, and still more their quotients,
leave float32's range where decay is fast. Kept for the backward pass are the inputs and the state at the start of each chunk.

Within a chunk arrays are (Q, b, G, n, e): steps, samples, groups, states, channels of a group. With g_t the gradient of
y_t, and s_t that of the state::

    s_t = C_t g_t + a_{t+1} s_{t+1}        p_t = s_t a_t h_{t-1}
    dC_t = sum_e g_t h_t                   dB_t = sum_e s_t dt_t u_t        dA = sum_t p_t dt_t
    du_t = dt_t sum_n s_t B_t + D g_t      ddt_t = u_t sum_n s_t B_t + sum_n p_t A
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

CACHED = 1 << 19
"""Elements of the states of a chunk, that a processor's cache holds a few of."""
CHUNKS = (32, 256)
"""Fewest and most steps in a chunk: the former bounds the memory for the states that are kept, at n/32 of that for u."""
TOGETHER = 1 << 15
"""States below which samples are treated together on a CPU, where each step costs some microseconds whatever it computes."""


def scan_chunks(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, bias: Tensor | None, softplus: bool
) -> tuple[Tensor, Tensor]:
    """The scan of float32 or float64 tensors; differentiable once.

    Args:
        u, delta: (b, d, L).
        A: (d, n).
        B, C: (b, G, n, L) with one G, or (d, n).
        D, bias: (d), or None.
        softplus: whether softplus is applied to delta and its bias.

    Returns:
        y (b, d, L), and the last state, (b, d, n).
    """
    result: tuple[Tensor, Tensor] = _Scan.apply(u, delta, A, B, C, D, bias, softplus)
    return result


class _Piece(NamedTuple):
    samples: slice
    steps: slice


class _Layout:
    """How a scan is cut, and how tensors are laid out in a chunk."""

    def __init__(self, u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> None:
        self.batch, channels, self.length = u.shape
        self.groups = next((t.shape[1] for t in (B, C) if t.dim() == 4), 1)
        self.states, self.each = A.shape[1], channels // self.groups
        size = channels * self.states
        self.together = min(self.batch, max(1, TOGETHER // size)) if u.device.type == "cpu" else self.batch
        self.chunk = min(self.length, max(CHUNKS[0], min(CHUNKS[1], CACHED // (size * self.together))))

    def samples(self) -> Iterator[slice]:
        return (slice(i, min(i + self.together, self.batch)) for i in range(0, self.batch, self.together))

    def steps(self) -> list[slice]:
        return [slice(i, min(i + self.chunk, self.length)) for i in range(0, self.length, self.chunk)]

    def buffer(self, like: Tensor) -> Tensor:
        return like.new_empty(self.chunk, self.together, self.groups, self.states, self.each)

    def of(self, t: Tensor, where: _Piece) -> Tensor:
        """A chunk of (b, d, L): (Q, b, G, e)."""
        part: Tensor = t[where.samples, :, where.steps].permute(2, 0, 1).unflatten(2, (self.groups, self.each))
        return part.contiguous()

    def store(self, out: Tensor, where: _Piece, chunk: Tensor) -> None:
        out[where.samples, :, where.steps] = chunk.flatten(2).permute(1, 2, 0)

    def per_state(self, t: Tensor) -> Tensor:
        """(d, n) -> (G, n, e)."""
        parts: Tensor = t.unflatten(0, (self.groups, self.each))
        return parts.transpose(1, 2).contiguous()

    def per_channel(self, t: Tensor | None) -> Tensor | None:
        """(d) -> (G, e)."""
        return None if t is None else t.unflatten(0, (self.groups, self.each))

    def back(self, t: Tensor) -> Tensor:
        """(..., G, n, e) -> (..., d, n)."""
        return t.transpose(-1, -2).flatten(-3, -2)


class _Weights:
    """B or C: what states and channels of a step are multiplied by, with the products that the scan needs."""

    def __init__(self, t: Tensor, layout: _Layout) -> None:
        self.constant = t.dim() == 2
        self.whole = layout.per_state(t) if self.constant else t
        self.gradient = torch.zeros_like(self.whole)

    def at(self, where: _Piece) -> Tensor:
        """(Q, b, G, n), or (G, n, e)."""
        if self.constant:
            return self.whole
        return self.whole[where.samples, :, :, where.steps].permute(3, 0, 1, 2).contiguous()

    def spread(self, w: Tensor, x: Tensor, out: Tensor) -> Tensor:
        """The spread of x (Q, b, G, e): (Q, b, G, n, e)."""
        return torch.mul(w if self.constant else w[..., None], x[..., None, :], out=out)

    def gather(self, w: Tensor, states: Tensor) -> Tensor:
        """Sum over states of (Q, b, G, n, e): (Q, b, G, e)."""
        if self.constant:
            return (states * w).sum(-2)
        return torch.bmm(w.flatten(0, 2)[:, None], states.flatten(0, 2)).view(*states.shape[:3], -1)

    def accumulate(self, where: _Piece, states: Tensor, x: Tensor) -> None:
        """Add the gradient: the product of states and x (Q, b, G, e), summed over what the weights are shared by."""
        if self.constant:
            self.gradient += (states * x[..., None, :]).sum((0, 1))
        else:
            product = torch.bmm(states.flatten(0, 2), x.flatten(0, 2)[..., None]).view(states.shape[:4])
            self.gradient[where.samples, :, :, where.steps] = product.permute(1, 2, 3, 0)


class _Chunk:
    """What is computed of a chunk in both passes."""

    def __init__(
        self, layout: _Layout, where: _Piece, u: Tensor, delta: Tensor, bias: Tensor | None, softplus: bool
    ) -> None:
        self.u, self.raw = layout.of(u, where), layout.of(delta, where)
        if bias is not None:
            self.raw = self.raw + bias  # a chunk may be a view of the input
        self.dt = F.softplus(self.raw) if softplus else self.raw
        self.shape = self.dt.shape[:2]

    def run(
        self, A: Tensor, B: _Weights, w: Tensor, start: Tensor, decay: Tensor, states: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decays and states, written into the buffers given."""
        decay, states = (t[: self.shape[0], : self.shape[1]] for t in (decay, states))
        torch.mul(self.dt[..., None, :], A, out=decay).exp_()
        B.spread(w, self.dt * self.u, states)
        before = start
        for a, h in zip(decay.unbind(), states.unbind(), strict=True):
            before = h.addcmul_(a, before)
        return decay, states


Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]


def starts_of(u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[list[int], tuple[int, ...]]:
    """Samples that each kept state is of, and the shape of a sample's: (G, n, e)."""
    layout = _Layout(u, A, B, C)
    counts = [s.stop - s.start for s in layout.samples() for _ in layout.steps()]
    return counts, (layout.groups, layout.states, layout.each)


def forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, bias: Tensor | None, softplus: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The results of `scan_chunks`, whose shapes hold here, and the states (samples, G, n, e) at the start of each chunk."""
    layout = _Layout(u, A, B, C)
    decays, writes, reads = layout.per_state(A), _Weights(B, layout), _Weights(C, layout)
    skip, offset = layout.per_channel(D), layout.per_channel(bias)
    y, last = torch.empty_like(u), A.new_empty(layout.batch, *decays.shape)
    buffers = layout.buffer(u), layout.buffer(u)
    starts = []
    for samples in layout.samples():
        state = torch.zeros_like(last[samples])
        for steps in layout.steps():
            starts.append(state)
            where = _Piece(samples, steps)
            chunk = _Chunk(layout, where, u, delta, offset, softplus)
            _, states = chunk.run(decays, writes, writes.at(where), state, *buffers)
            out = reads.gather(reads.at(where), states)
            layout.store(y, where, out if skip is None else out.addcmul_(chunk.u, skip))
            state = states[-1].clone()
        last[samples] = state
    return y, layout.back(last), starts


def backward(
    grad: Tensor,
    grad_last: Tensor,
    given: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None],
    starts: Sequence[Tensor],
    softplus: bool,
) -> Gradients:
    """Gradients of the arguments of `forward`, in their shapes, from those of its results and the `starts` that it kept."""
    u, delta, A, B, C, D, bias = given
    layout = _Layout(u, A, B, C)
    decays, writes, reads = layout.per_state(A), _Weights(B, layout), _Weights(C, layout)
    skip, offset = layout.per_channel(D), layout.per_channel(bias)
    # Results, and sums over chunks.
    grad_u, grad_delta = torch.empty_like(u), torch.empty_like(delta)
    grad_decays = torch.zeros_like(decays)
    per_channel = torch.zeros(2, *decays.shape[::2], dtype=u.dtype, device=u.device)  # of D and bias
    buffers = [layout.buffer(u) for _ in range(3)]
    position = 0
    # Chunks from the last to the first: their states are computed again from the kept starts.
    for samples in layout.samples():
        carry = grad_last[samples].unflatten(1, (layout.groups, layout.each)).transpose(2, 3)
        every = layout.steps()
        for i in reversed(range(len(every))):
            where, start = _Piece(samples, every[i]), starts[position + i]
            chunk = _Chunk(layout, where, u, delta, offset, softplus)
            w = writes.at(where)
            decay, states = chunk.run(decays, writes, w, start, *buffers[:2])
            g = layout.of(grad, where)
            reads.accumulate(where, states, g)
            s = reads.spread(reads.at(where), g, buffers[2][: states.shape[0], : states.shape[1]])
            s[-1].add_(carry)
            # The gradient of the states, backwards in time.
            for t in range(len(s) - 1, 0, -1):
                s[t - 1].addcmul_(decay[t], s[t])
            carry = decay[0] * s[0]
            writes.accumulate(where, s, chunk.dt * chunk.u)
            met = writes.gather(w, s)
            decay[0].mul_(start)
            decay[1:].mul_(states[:-1])
            p = decay.mul_(s)
            # The gradients of this chunk's inputs.
            grad_decays += torch.mul(p, chunk.dt[..., None, :], out=states).sum((0, 1))
            grad_dt = torch.mul(p, decays, out=states).sum(-2).addcmul_(met, chunk.u)
            grad_raw = grad_dt.mul_(chunk.raw.sigmoid()) if softplus else grad_dt
            layout.store(grad_delta, where, grad_raw)
            grad_in = met.mul_(chunk.dt)
            layout.store(grad_u, where, grad_in if skip is None else grad_in.addcmul_(g, skip))
            per_channel[0] += (g * chunk.u).sum((0, 1))
            per_channel[1] += grad_raw.sum((0, 1))
        position += len(every)
    grad_B, grad_C = (layout.back(t.gradient) if t.constant else t.gradient for t in (writes, reads))
    of_D, of_bias = (None if t is None else v.flatten() for t, v in zip((D, bias), per_channel, strict=True))
    return grad_u, grad_delta, layout.back(grad_decays), grad_B, grad_C, of_D, of_bias


class _Scan(Function):
    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        bias: Tensor | None,
        softplus: bool,
    ) -> tuple[Tensor, Tensor]:
        y, last, starts = forward(u, delta, A, B, C, D, bias, softplus)
        ctx.save_for_backward(u, delta, A, B, C, D, bias, *starts)
        ctx.softplus = softplus
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, D, bias, *starts = ctx.saved_tensors
        return *backward(grad, grad_last, (u, delta, A, B, C, D, bias), starts, ctx.softplus), None
