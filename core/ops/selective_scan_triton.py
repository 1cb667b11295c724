"""Triton kernels of `selective_scan`; imported only where they run. Computed in float32.

A program has one channel of one sample and goes along time by tiles of some steps and all states, (n, T). In a tile the
recursion is an associative scan of pairs: (a1, b1), then (a2, b2), is (a1 a2, a2 b1 + b2). No decay is ever divided by. Kept
for the backward pass are the inputs and the state before each tile. There a program has some channels of a group, whose
gradients of B and C it adds up in registers, and leaves as one partial sum: no atomic addition, whose order would be chance.
One launch forward, one and sums of partial sums backward. Limit: bytes and exponentials.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import launch, operator, tile
from .operators import or_zeros

TILE = 2048
"""Elements that a program holds of each quantity."""
SHARE = 16
"""Channels of a program of the backward pass: of as many B and C get one partial sum, which is of 2 N / 16 maps."""


@triton.jit
def _then(a1, b1, a2, b2):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return a1 * a2, a2 * b1 + b2


@triton.jit
def _step_size(raw, SOFTPLUS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Softplus that keeps the digits of small steps: log(1 + x) by Kahan's correction."""
    if SOFTPLUS:
        x = tl.exp(tl.minimum(raw, 20.0))
        more = 1.0 + x
        small = tl.where(more == 1.0, x, tl.log(more) * x / tl.where(more == 1.0, 1.0, more - 1.0))
        return tl.where(raw > 20.0, raw, small)
    return raw


@triton.jit
def _forward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    u, delta, A, B, C, D, bias, y, starts, last, length, channels, groups, states, tiles,  # noqa: ANN001
    SOFTPLUS: tl.constexpr, N: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    channel = row % channels
    group = row // channels * groups + channel // (channels // groups)
    n, t = tl.arange(0, N), tl.arange(0, T)
    real = n < states
    rate = tl.load(A + channel * states + n, mask=real, other=0.0)
    offset, skip = tl.load(bias + channel), tl.load(D + channel)
    state = tl.zeros((N,), tl.float32)
    for i in range(tiles):
        time = i * T + t
        inside = time < length
        both = real[:, None] & inside[None, :]
        where = (group * states + n)[:, None] * length + time[None, :]
        tl.store(starts + (row * tiles + i) * states + n, state, mask=real)
        raw = tl.load(delta + row * length + time, mask=inside, other=0.0) + offset
        dt = tl.where(inside, _step_size(raw, SOFTPLUS), 0.0)  # beyond the end states stay as they are
        x = tl.load(u + row * length + time, mask=inside, other=0.0)
        a = tl.exp(dt[None, :] * rate[:, None])
        b = (dt * x)[None, :] * tl.load(B + where, mask=both, other=0.0)
        kept, added = tl.associative_scan((a, b), 1, _then)
        h = added + kept * state[:, None]
        out = tl.sum(h * tl.load(C + where, mask=both, other=0.0), 0) + skip * x
        tl.store(y + row * length + time, out, mask=inside)
        state = tl.sum(tl.where((t == T - 1)[None, :], h, 0.0), 1)
    tl.store(last + row * states + n, state, mask=real)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, later, u, delta, A, B, C, D, bias, starts,  # noqa: ANN001
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_bias, length, channels, groups, states, tiles, blocks,  # noqa: ANN001
    SOFTPLUS: tl.constexpr, N: tl.constexpr, T: tl.constexpr, SHARE: tl.constexpr,
):  # fmt: skip
    """``later`` has the gradients of last states, and of the states after the tile on the way back."""
    sample = (tl.program_id(0) // (groups * blocks)).to(tl.int64)
    group = tl.program_id(0) // blocks % groups
    block = tl.program_id(0) % blocks
    inner = channels // groups
    n, t = tl.arange(0, N), tl.arange(0, T)
    real = n < states
    for j in range(tiles):
        i = tiles - 1 - j
        time = i * T + t
        inside = time < length
        both = real[:, None] & inside[None, :]
        where = ((sample * groups + group) * states + n)[:, None] * length + time[None, :]
        behind = inside & (t > 0)
        ahead = (t < T - 1) & (time + 1 < length)
        write = tl.load(B + where, mask=both, other=0.0)
        read = tl.load(C + where, mask=both, other=0.0)
        write_behind = tl.load(B + where - 1, mask=real[:, None] & behind[None, :], other=0.0)
        of_B = tl.zeros((N, T), tl.float32)
        of_C = tl.zeros((N, T), tl.float32)
        for own in range(block * SHARE, tl.minimum(block * SHARE + SHARE, inner)):
            channel = group * inner + own
            row = sample * channels + channel
            line = row * length + time
            rate = tl.load(A + channel * states + n, mask=real, other=0.0)
            offset, skip = tl.load(bias + channel), tl.load(D + channel)
            raw = tl.load(delta + line, mask=inside, other=0.0) + offset
            dt = tl.where(inside, _step_size(raw, SOFTPLUS), 0.0)
            x = tl.load(u + line, mask=inside, other=0.0)
            g = tl.load(grad + line, mask=inside, other=0.0)
            # States before each step, by the steps before: of the tile's first step that is the state kept.
            raw_behind = tl.load(delta + line - 1, mask=behind, other=0.0) + offset
            dt_behind = tl.where(behind, _step_size(raw_behind, SOFTPLUS), 0.0)
            x_behind = tl.load(u + line - 1, mask=behind, other=0.0)
            a = tl.exp(dt_behind[None, :] * rate[:, None])
            b = (dt_behind * x_behind)[None, :] * write_behind
            kept, added = tl.associative_scan((a, b), 1, _then)
            start = tl.load(starts + (row * tiles + i) * states + n, mask=real, other=0.0)
            before = added + kept * start[:, None]
            a = tl.exp(dt[None, :] * rate[:, None])
            of_C += (a * before + (dt * x)[None, :] * write) * g[None, :]
            # Gradients of states, by the steps after.
            raw_ahead = tl.load(delta + line + 1, mask=ahead, other=0.0) + offset
            dt_ahead = tl.where(ahead, _step_size(raw_ahead, SOFTPLUS), 0.0)
            a_ahead = tl.exp(dt_ahead[None, :] * rate[:, None])
            kept, added = tl.associative_scan((a_ahead, read * g[None, :]), 1, _then, reverse=True)
            s = added + kept * tl.load(later + row * states + n, mask=real, other=0.0)[:, None]
            tl.debug_barrier()  # all have read it
            tl.store(later + row * states + n, tl.sum(tl.where((t == 0)[None, :], a * s, 0.0), 1), mask=real)
            of_B += s * (dt * x)[None, :]
            met = tl.sum(s * write, 0)
            p = s * a * before
            part = row * tiles + i
            tl.store(grad_A + part * states + n, tl.sum(p * dt[None, :], 1), mask=real)
            of_raw = met * x + tl.sum(p * rate[:, None], 0)
            if SOFTPLUS:
                of_raw = of_raw * tl.sigmoid(raw)
            of_raw = tl.where(inside, of_raw, 0.0)
            tl.store(grad_delta + line, of_raw, mask=inside)
            tl.store(grad_u + line, met * dt + skip * g, mask=inside)
            tl.store(grad_D + part, tl.sum(g * x))
            tl.store(grad_bias + part, tl.sum(of_raw))
        partial = (((sample * blocks + block) * groups + group) * states + n)[:, None] * length + time[None, :]
        tl.store(grad_B + partial, of_B, mask=both)
        tl.store(grad_C + partial, of_C, mask=both)
        tl.debug_barrier()  # what is written of `later` can be read


def tiling(states: int, length: int) -> tuple[int, int]:
    """States and steps of a tile, powers of two."""
    rows = triton.next_power_of_2(states)
    return rows, max(16, min(TILE // rows, triton.next_power_of_2(length)))


class _Sizes:
    """Numbers that both kernels are told, and the sizes of tiles."""

    def __init__(self, u: Tensor, A: Tensor, B: Tensor) -> None:
        self.batch, channels, length = u.shape
        self.states = A.shape[1]
        rows, steps = tiling(self.states, length)
        self.tiles = triton.cdiv(length, steps)
        self.shape = (length, channels, B.shape[1], self.states, self.tiles)
        self.grid = (self.batch * channels,)
        self.held = {"N": rows, "T": steps}


def _fake(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, bias: Tensor | None, softplus: bool
) -> tuple[Tensor, Tensor, Tensor]:
    sizes = _Sizes(u, A, B)
    last = u.new_empty(*u.shape[:2], sizes.states)
    return u.new_empty(u.shape), last, u.new_empty(*u.shape[:2], sizes.tiles, sizes.states)


def _run(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, bias: Tensor | None, softplus: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, last state, and the states before tiles."""
    sizes, (y, last, starts) = _Sizes(u, A, B), _fake(u, delta, A, B, C, D, bias, softplus)
    given = [t.contiguous() for t in (u, delta, A, B, C, *_vectors(u, D, bias))]
    launch(_forward, sizes.grid, *given, y, starts, last, *sizes.shape, SOFTPLUS=softplus, **sizes.held)
    return y, last, starts


def _vectors(u: Tensor, D: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """D and bias, or zeros."""
    none = u.new_zeros(u.shape[1])
    return none if D is None else D, none if bias is None else bias


def _fake_backward(
    grad: Tensor, grad_last: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    bias: Tensor | None, starts: Tensor, softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    made = [t.new_empty(t.shape) for t in (u, delta, A, B, C)]
    return made[0], made[1], made[2], made[3], made[4], u.new_empty(u.shape[1]), u.new_empty(u.shape[1])


def _run_backward(
    grad: Tensor, grad_last: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    bias: Tensor | None, starts: Tensor, softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of u, delta, A, B, C, D and bias."""
    sizes = _Sizes(u, A, B)
    share = tile(SHARE)
    blocks = triton.cdiv(u.shape[1] // B.shape[1], share)
    of_u, of_delta = u.new_empty(u.shape), delta.new_empty(delta.shape)
    of_B, of_C = (t.new_empty(len(t), blocks, *t.shape[1:]) for t in (B, C))
    later = grad_last.clone(memory_format=torch.contiguous_format)
    given = [t.contiguous() for t in (u, delta, A, B, C, *_vectors(u, D, bias), starts)]
    of_A, of_D, of_bias = torch.empty_like(starts), *(u.new_empty(starts.shape[:3]) for _ in range(2))
    launch(
        _backward, (sizes.batch * B.shape[1] * blocks,), grad.contiguous(), later, *given, of_u, of_delta, of_A, of_B, of_C,
        of_D, of_bias, *sizes.shape, blocks, SOFTPLUS=softplus, **sizes.held, SHARE=share, warps=8,
    )  # fmt: skip
    return of_u, of_delta, of_A.sum((0, 2)), of_B.sum(1), of_C.sum(1), of_D.sum((0, 2)), of_bias.sum((0, 2))


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:7], output[2])
    ctx.mark_non_differentiable(output[2])
    ctx.softplus = inputs[7]


def _gradients(
    ctx: Any, backward: Any, grad: Tensor | None, grad_last: Tensor | None, _: Any
) -> tuple[Tensor | None, ...]:
    u, starts = ctx.saved_tensors[0], ctx.saved_tensors[7]
    given = or_zeros(grad, u), or_zeros(grad_last, starts[:, :, 0])
    *of, of_D, of_bias = backward(*given, *ctx.saved_tensors, ctx.softplus)
    D, bias = ctx.saved_tensors[5:7]
    return *of, None if D is None else of_D, None if bias is None else of_bias, None


fused = operator("selective_scan", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``fused(u, delta, A, B, C, D, bias, softplus)`` where B and C change with time: see `selective_scan_chunks.scan_chunks`."""
