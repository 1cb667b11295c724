"""Triton kernels of the state-space scan `ssd`, forward and backward; the notation is that of `core.ops.ssd_chunks`.

Forward: what every chunk of Q steps adds to the state (`_states`), the states between chunks one after another (`_pass`), the
output (`_output`). Backward: the first two again, from the end and with the output's gradient, then the gradients of B and C by
group (`_of_signals`) and of all else by head (`_of_inputs`). Seven launches where the plain form takes thousands. Limit: bytes.

Exponents are differences of float64 sums within a chunk, masked before the exponential: none is positive, so that strong decay
cannot overflow. d/da_t is a sum over the links across t, never a difference of sums, which would cancel. Sums over the heads of
a group run within a program; gradients of A and D are partial sums of programs. Nothing depends on the batch around a sample.
Kept: the inputs, and the state before every chunk (P N / Q floats a step).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import block, launch, operator, tile
from .modes import interpreted
from .operators import or_zeros

CHUNK = 32
"""Q, steps that a program treats at once: with 64 the backward pass asks for more shared memory than there is."""
SLICE = 16
"""Channels, or states, of a head that a program of the backward pass holds at once."""
STATE = 4096
"""Elements of a state that a program of 4 warps makes at once, and that one reads whole: of more, registers spill."""
PASSED = 1024
"""Elements of a state that a program passes from chunk to chunk."""


@triton.jit
def _decays(dt, A, step, length, head, heads, sample):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Step sizes of a chunk, and the sums of dt A up to every step, in float64."""
    t = tl.load(dt + (sample * length + step) * heads + head, mask=step < length, other=0.0).to(tl.float32)
    a = t.to(tl.float64) * tl.load(A + head).to(tl.float64)
    return t, tl.cumsum(a, 0)


@triton.jit
def _tile(source, row, column, stride, rows, columns):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(source + row[:, None] * stride + column[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _states(  # type: ignore[no-untyped-def]  # noqa: ANN202
    v, w, dt, A, states, kept, length, heads, share, width, size, chunks, v_batch, v_step, w_batch, w_step,  # noqa: ANN001
    BACKWARD: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``sum over s of factor_s v_s w_s^T``: forward of x and B into the state after the chunk; backward of dy and C before."""
    sample = (tl.program_id(0) // chunks).to(tl.int64)
    chunk = (tl.program_id(0) % chunks).to(tl.int64)
    head = tl.program_id(1)
    step = chunk * Q + tl.arange(0, Q)
    p, n = tl.arange(0, P), tl.arange(0, N)
    t, c = _decays(dt, A, step, length, head, heads, sample)
    end = tl.sum(tl.where(tl.arange(0, Q) == Q - 1, c, 0.0), 0)
    factor = tl.exp(c.to(tl.float32)) if BACKWARD else tl.exp((end - c).to(tl.float32)) * t
    left = _tile(v + sample * v_batch + head * width, step, p, v_step, length, width) * factor[:, None]
    right = _tile(w + sample * w_batch + head // share * size, step, n, w_step, length, size)
    total = tl.dot(tl.trans(left), right, input_precision=PRECISION)
    slot = (sample * (chunks + 1) + chunk + (0 if BACKWARD else 1)) * heads + head
    where = slot * width * size + p[:, None] * size + n[None, :]
    tl.store(states + where, total, mask=(p < width)[:, None] & (n < size)[None, :])
    if not BACKWARD:
        tl.store(kept + (sample * chunks + chunk) * heads + head, tl.exp(end.to(tl.float32)))


@triton.jit
def _pass(  # type: ignore[no-untyped-def]  # noqa: ANN202
    states, kept, heads, elements, chunks, blocks,  # noqa: ANN001
    BACKWARD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``h[i + 1] = kept[i] h[i] + what is there``; backwards ``h[i] = kept[i] h[i + 1] + what is there``. In place."""
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    head = tl.program_id(1)
    element = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    mask = element < elements
    first = chunks if BACKWARD else 0
    base = states + (sample * (chunks + 1) * heads + head) * elements + element
    h = tl.load(base + first.to(tl.int64) * heads * elements if BACKWARD else base, mask=mask, other=0.0)  # type: ignore[union-attr]
    for i in range(chunks):
        chunk = chunks - 1 - i if BACKWARD else i
        target = chunk if BACKWARD else chunk + 1
        here = base + target.to(tl.int64) * heads * elements  # type: ignore[union-attr]
        factor = tl.load(kept + (sample * chunks + chunk) * heads + head)
        h = h * factor + tl.load(here, mask=mask, other=0.0)
        tl.store(here, h, mask=mask)


@triton.jit
def _output(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, dt, A, B, C, D, states, y, length, heads, share, width, size, chunks, x_batch, x_step, b_batch, b_step,  # noqa: ANN001
    c_batch, c_step, d_head, d_width,  # noqa: ANN001
    Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr, SN: tl.constexpr, HAS_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    sample = (tl.program_id(0) // chunks).to(tl.int64)
    chunk = (tl.program_id(0) % chunks).to(tl.int64)
    head = tl.program_id(1)
    place = tl.arange(0, Q)
    step = chunk * Q + place
    p = tl.arange(0, P)
    t, c = _decays(dt, A, step, length, head, heads, sample)
    v = _tile(x + sample * x_batch + head * width, step, p, x_step, length, width)
    slot = (sample * (chunks + 1) + chunk) * heads + head
    # Products of the steps within the chunk, and what the state before it gives to each.
    out = tl.zeros((Q, P), tl.float32)
    scores = tl.zeros((Q, Q), tl.float32)
    # What the state before the chunk gives, and the scores of steps inside it.
    for first in range(0, N, SN):
        n = first + tl.arange(0, SN)
        write = _tile(B + sample * b_batch + head // share * size, step, n, b_step, length, size)
        read = _tile(C + sample * c_batch + head // share * size, step, n, c_step, length, size)
        h = _tile(states + slot * width * size, p, n, size, width, size)
        out += tl.dot(read, tl.trans(h), input_precision=PRECISION)
        scores += tl.dot(read, tl.trans(write), input_precision=PRECISION)
    out = out * tl.exp(c.to(tl.float32))[:, None]
    linked = place[:, None] >= place[None, :]
    weight = tl.exp(tl.where(linked, c[:, None] - c[None, :], 0.0).to(tl.float32))
    out += tl.dot(tl.where(linked, weight * scores, 0.0), v * t[:, None], input_precision=PRECISION)
    if HAS_D:
        out += v * tl.load(D + head * d_head + p * d_width, mask=p < width, other=0.0)[None, :]
    where = ((sample * length + step) * heads + head)[:, None] * width + p[None, :]
    tl.store(y + where, out, mask=(step < length)[:, None] & (p < width)[None, :])


@triton.jit
def _of_signals(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, x, dt, A, B, C, states, after, of_B, of_C, risen, length, heads, share, width, size, chunks,  # noqa: ANN001
    x_batch, x_step, b_batch, b_step, c_batch, c_step,  # noqa: ANN001
    Q: tl.constexpr, SP: tl.constexpr, SN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of B and C of one chunk and a slice of N, by all heads of a group; and ``risen``, what in the slice the decays
    before every step have for a gradient.

    `states` are those before chunks, `after` the gradients of those after them. Tiles are slices of P and N: whole ones are
    more than registers hold.
    """
    sample = (tl.program_id(0) // chunks).to(tl.int64)
    chunk = (tl.program_id(0) % chunks).to(tl.int64)
    group = tl.program_id(1)
    place = tl.arange(0, Q)
    step = chunk * Q + place
    inside = step < length
    n = tl.program_id(2) * SN + tl.arange(0, SN)
    sum_B = tl.zeros((Q, SN), tl.float32)
    sum_C = tl.zeros((Q, SN), tl.float32)
    linked = place[:, None] >= place[None, :]
    # Heads that share these signals.
    for i in range(share):
        head = group * share + i
        slot = (sample * (chunks + 1) + chunk) * heads + head
        met = tl.zeros((Q, Q), tl.float32)
        from_before = tl.zeros((Q, SN), tl.float32)
        from_after = tl.zeros((Q, SN), tl.float32)
        # Products of gradients and inputs, and what the states before and after contribute.
        for first in range(0, width, SP):
            p = first + tl.arange(0, SP)
            v = _tile(x + sample * x_batch + head * width, step, p, x_step, length, width)
            g = _tile(grad + (sample * length * heads + head) * width, step, p, heads * width, length, width)
            met += tl.dot(g, tl.trans(v), input_precision=PRECISION)
            h = _tile(states + slot * width * size, p, n, size, width, size)
            from_before += tl.dot(g, h, input_precision=PRECISION)
            r = _tile(after + (slot + heads) * width * size, p, n, size, width, size)
            from_after += tl.dot(v, r, input_precision=PRECISION)
        # Decays between steps of the chunk, and to its ends.
        t, c = _decays(dt, A, step, length, head, heads, sample)
        end = tl.sum(tl.where(place == Q - 1, c, 0.0), 0)
        weight = tl.exp(tl.where(linked, c[:, None] - c[None, :], 0.0).to(tl.float32))
        met = tl.where(linked, weight * met, 0.0) * t[None, :]
        write = _tile(B + sample * b_batch + group * size, step, n, b_step, length, size)
        from_before = from_before * tl.exp(c.to(tl.float32))[:, None]
        sum_C += tl.dot(met, write, input_precision=PRECISION) + from_before
        read = _tile(C + sample * c_batch + group * size, step, n, c_step, length, size)
        line = ((sample * tl.num_programs(2) + tl.program_id(2)) * length + step) * heads + head
        tl.store(risen + line, tl.sum(read * from_before, 1), mask=inside)
        sum_B += from_after * (tl.exp((end - c).to(tl.float32)) * t)[:, None]
        sum_B += tl.dot(tl.trans(met), read, input_precision=PRECISION)
    # Gradients of B and C.
    where = ((sample * length + step) * (heads // share) + group)[:, None] * size + n[None, :]
    mask = inside[:, None] & (n < size)[None, :]
    tl.store(of_B + where, sum_B, mask=mask)
    tl.store(of_C + where, sum_C, mask=mask)


@triton.jit
def _of_inputs(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, x, dt, A, B, C, D, states, after, kept, risen, of_x, of_dt, of_A, of_D,  # noqa: ANN001
    length, heads, share, width, size, chunks, x_batch, x_step, b_batch, b_step, c_batch, c_step, d_head, d_width, slices,  # noqa: ANN001
    Q: tl.constexpr, SP: tl.constexpr, SN: tl.constexpr, HAS_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of x, dt, A and D of one chunk and head, by slices as `_of_signals`."""
    sample = (tl.program_id(0) // chunks).to(tl.int64)
    chunk = (tl.program_id(0) % chunks).to(tl.int64)
    head = tl.program_id(1)
    place = tl.arange(0, Q)
    step = chunk * Q + place
    inside = step < length
    # The decay between two steps of the chunk, times the product of what one reads and the other writes.
    t, c = _decays(dt, A, step, length, head, heads, sample)
    end = tl.sum(tl.where(place == Q - 1, c, 0.0), 0)
    linked = place[:, None] >= place[None, :]
    earlier = (place[:, None] < place[None, :]).to(tl.float32)
    writes, reads = B + sample * b_batch + head // share * size, C + sample * c_batch + head // share * size
    slot = (sample * (chunks + 1) + chunk) * heads + head
    weight = tl.zeros((Q, Q), tl.float32)
    for first in range(0, size, SN):
        n = first + tl.arange(0, SN)
        write = _tile(writes, step, n, b_step, length, size)
        weight += tl.dot(_tile(reads, step, n, c_step, length, size), tl.trans(write), input_precision=PRECISION)
    weight = weight * tl.exp(tl.where(linked, c[:, None] - c[None, :], 0.0).to(tl.float32))
    weight = tl.where(linked, weight, 0.0)
    fall = tl.exp((end - c).to(tl.float32))
    # Channels of the head, a slice at a time: gradients of x and D, and what they leave for dt and A.
    met = tl.zeros((Q, Q), tl.float32)
    of_t = tl.zeros((Q,), tl.float32)
    through = tl.zeros((Q,), tl.float32)  # what the state after the chunk gives every step
    kept_whole = 0.0
    for first_p in range(0, width, SP):
        p = first_p + tl.arange(0, SP)
        v = _tile(x + sample * x_batch + head * width, step, p, x_step, length, width)
        g = _tile(grad + (sample * length * heads + head) * width, step, p, heads * width, length, width)
        u = v * t[:, None]
        met += tl.dot(g, tl.trans(u), input_precision=PRECISION)
        given = tl.zeros((Q, SP), tl.float32)
        for first in range(0, size, SN):
            n = first + tl.arange(0, SN)
            r = _tile(after + (slot + heads) * width * size, p, n, size, width, size)
            given += tl.dot(_tile(writes, step, n, b_step, length, size), tl.trans(r), input_precision=PRECISION)
            h = _tile(states + slot * width * size, p, n, size, width, size)
            kept_whole += tl.sum(tl.sum(h * r, 1), 0)
        given = given * fall[:, None]
        of_u = tl.dot(tl.trans(weight), g, input_precision=PRECISION) + given
        of_t += tl.sum(v * of_u, 1)
        through += tl.sum(u * given, 1)
        of_v = of_u * t[:, None]
        if HAS_D:
            of_v += g * tl.load(D + head * d_head + p * d_width, mask=p < width, other=0.0)[None, :]
            partial = ((sample * chunks + chunk) * heads + head) * width + p
            tl.store(of_D + partial, tl.sum(g * v, 0), mask=p < width)
        where = ((sample * length + step) * heads + head)[:, None] * width + p[None, :]
        tl.store(of_x + where, of_v, mask=inside[:, None] & (p < width)[None, :])
    # The gradient of the decays: of links within the chunk, from the state before, and through the whole chunk.
    met = tl.where(place[:, None] > place[None, :], weight * met, 0.0)
    crossing = tl.dot(met, earlier, input_precision=PRECISION)
    of_a = tl.sum(tl.where(linked, crossing, 0.0), 0)
    up = tl.zeros((Q,), tl.float32)
    for i in range(slices):
        line = ((sample * slices + i) * length + step) * heads + head
        up += tl.load(risen + line, mask=inside, other=0.0)
    of_a += tl.sum(tl.where(linked, up[:, None], 0.0), 0)
    of_a += tl.sum(earlier * through[:, None], 0)
    of_a += tl.load(kept + (sample * chunks + chunk) * heads + head) * kept_whole
    of_t += of_a * tl.load(A + head).to(tl.float32)
    tl.store(of_dt + (sample * length + step) * heads + head, of_t, mask=inside)
    tl.store(of_A + (sample * chunks + chunk) * heads + head, tl.sum(of_a * t, 0))


# --------------------------------------------------------------------------------------------------------------- launches
class _Sizes:
    """What every launch needs to know of the scan's tensors."""

    def __init__(self, x: Tensor, B: Tensor, D: Tensor | None) -> None:
        self.batch, self.length, self.heads, self.width = x.shape
        self.groups, self.size = B.shape[2:]
        chunk = min(tile(CHUNK), 8 * CHUNK)
        self.chunks = triton.cdiv(self.length, chunk)
        self.shape = (self.length, self.heads, self.heads // self.groups, self.width, self.size, self.chunks)
        self.tiles = {"Q": chunk, "P": block(self.width), "N": block(self.size)}
        self.held = {"S" + axis: min(tile(SLICE), self.tiles[axis]) for axis in "PN"}
        elements = self.tiles["P"] * self.tiles["N"]
        self.read = self.tiles["N"] if elements <= tile(STATE) else SLICE
        self.warps = 8 if elements > STATE else 4
        self.skips = (0, 0) if D is None else (D.stride(0), D.stride(1) if D.dim() == 2 and D.shape[1] > 1 else 0)

    def states(self, x: Tensor) -> Tensor:
        shape = (self.batch, self.chunks + 1, self.heads, self.width, self.size)
        return torch.empty(shape, device=x.device, dtype=torch.float32)

    def pass_on(self, states: Tensor, kept: Tensor, backward: bool) -> None:
        elements = self.width * self.size
        size = block(elements, most=elements if interpreted() else PASSED)
        size = triton.next_power_of_2(size)
        blocks = triton.cdiv(elements, size)
        launch(
            _pass, (self.batch * blocks, self.heads), states, kept, self.heads, elements, self.chunks, blocks,
            BACKWARD=backward, BLOCK=size,
        )  # fmt: skip


PRECISION = "tf32x3"
"""Precision of matrix products on tensor cores: about float32's error."""


def _inner(t: Tensor) -> Tensor:
    """(B, L, H, P) whose last two axes are contiguous: a view of a slice of a contiguous (B, L, D)."""
    return t if t.stride(3) == 1 and (t.shape[2] == 1 or t.stride(2) == t.shape[3]) else t.contiguous()


def _strides(*tensors: Tensor) -> list[int]:
    return [s for t in tensors for s in t.stride()[:2]]


def _fake(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, initial: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sizes = _Sizes(x, B, D)
    kept = torch.empty(sizes.batch, sizes.chunks, sizes.heads, device=x.device, dtype=torch.float32)
    final = torch.empty(sizes.batch, sizes.heads, sizes.width, sizes.size, device=x.device, dtype=torch.float32)
    return torch.empty(x.shape, device=x.device, dtype=torch.float32), final, sizes.states(x), kept


def _run(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, initial: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, last state, the states before every chunk and the last one, and what a chunk keeps of a state."""
    sizes = _Sizes(x, B, D)
    y, _, states, kept = _fake(x, dt, A, B, C, D, initial)
    x, B, C = _inner(x), _inner(B), _inner(C)
    dt, A = dt.contiguous(), A.contiguous()
    grid = (sizes.batch * sizes.chunks, sizes.heads)
    launch(
        _states, grid, x, B, dt, A, states, kept, *sizes.shape, *_strides(x, B),
        BACKWARD=False, PRECISION=PRECISION, **sizes.tiles, warps=sizes.warps,
    )  # fmt: skip
    states[:, 0] = 0.0 if initial is None else initial
    sizes.pass_on(states, kept, False)
    launch(
        _output, grid, x, dt, A, B, C, x if D is None else D, states, y, *sizes.shape, *_strides(x, B, C), *sizes.skips,
        HAS_D=D is not None, PRECISION=PRECISION, SN=sizes.read, **sizes.tiles, warps=8,
    )  # fmt: skip
    return y, states[:, -1].clone(), states, kept


def _fake_backward(
    grad: Tensor, grad_final: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    states: Tensor, kept: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    made = [torch.empty(t.shape, device=x.device, dtype=torch.float32) for t in (x, dt, A, B, C, grad_final)]
    of_D = torch.empty((0,) if D is None else D.shape, device=x.device, dtype=torch.float32)
    return made[0], made[1], made[2], made[3], made[4], of_D, made[5]


def _run_backward(
    grad: Tensor, grad_final: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    states: Tensor, kept: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    sizes = _Sizes(x, B, D)
    of_x, of_dt, _, of_B, of_C, _, _ = _fake_backward(grad, grad_final, x, dt, A, B, C, D, states, kept)
    x, B, C = _inner(x), _inner(B), _inner(C)
    grad, dt, A = grad.contiguous(), dt.contiguous(), A.contiguous()
    after = sizes.states(x)
    # First what the later chunks say of each state, from the last to the first.
    launch(
        _states, (sizes.batch * sizes.chunks, sizes.heads), grad, C, dt, A, after, kept, *sizes.shape, *_strides(grad, C),
        BACKWARD=True, PRECISION=PRECISION, **sizes.tiles, warps=sizes.warps,
    )  # fmt: skip
    after[:, -1] = grad_final
    sizes.pass_on(after, kept, True)
    # Then the gradients of every chunk by itself, in two launches.
    of_A = torch.empty_like(kept)
    of_D = torch.empty((*kept.shape, sizes.width if D is not None else 0), device=x.device, dtype=torch.float32)
    slices = triton.cdiv(sizes.tiles["N"], sizes.held["SN"])
    risen = torch.empty(len(x), slices, *dt.shape[1:], device=x.device, dtype=torch.float32)
    launch(
        _of_signals, (sizes.batch * sizes.chunks, sizes.groups, slices), grad, x, dt, A, B, C, states, after, of_B, of_C,
        risen, *sizes.shape, *_strides(x, B, C), Q=sizes.tiles["Q"], **sizes.held, PRECISION=PRECISION,
        warps=8, stages=1,
    )  # fmt: skip
    launch(
        _of_inputs, (sizes.batch * sizes.chunks, sizes.heads), grad, x, dt, A, B, C, x if D is None else D, states, after,
        kept, risen, of_x, of_dt, of_A, of_D, *sizes.shape, *_strides(x, B, C), *sizes.skips, slices,
        HAS_D=D is not None, Q=sizes.tiles["Q"], PRECISION=PRECISION, **sizes.held, warps=8, stages=1,
    )  # fmt: skip
    sums = of_D.sum((0, 1))
    if D is not None:
        sums = sums.sum(-1).reshape(D.shape) if D.numel() == sizes.heads else sums.reshape(D.shape)
    return of_x, of_dt, of_A.sum((0, 1)), of_B, of_C, sums.reshape(-1) if D is None else sums, after[:, 0].clone()


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:6], *output[2:])
    ctx.mark_non_differentiable(*output[2:])
    ctx.has_initial = inputs[6] is not None


def _gradients(
    ctx: Any, backward: Any, grad: Tensor | None, grad_final: Tensor | None, *_: Any
) -> tuple[Tensor | None, ...]:
    x, states = ctx.saved_tensors[0], ctx.saved_tensors[6]
    given = or_zeros(grad, x), or_zeros(grad_final, states[:, -1])
    *of, of_D, of_initial = backward(*given, *ctx.saved_tensors)
    return *of, None if ctx.saved_tensors[5] is None else of_D, of_initial if ctx.has_initial else None


fused = operator("ssd", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``fused(x, dt, A, B, C, D, initial)``: output, last state, and what the backward pass needs; all in float32."""
