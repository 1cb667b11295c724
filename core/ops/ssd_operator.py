"""The plain scan of `core.ops.ssd` as an operator, for ``torch.compile``, which cannot look inside and has no need to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .operations import counted_inside
from .operators import custom_operator, or_zeros
from .ssd_chunks import Memory, backward, forward, layouts, least_tile, safe_tile


def scan_operator(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, initial: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """`core.ops.ssd_chunks.scan_chunks`, shapes included, as an operator that torch.compile and export know."""
    y, last, _ = _scan(x, dt, A, B, C, D, initial, chunk, least_tile(x, dt, A, B, C, D, initial))
    return y, last


def _run(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, initial: Tensor, chunk: int, tile: int
) -> tuple[Tensor, Tensor, Tensor]:
    y, last, starts = forward(x, dt, A, B, C, D, initial, chunk, tile or safe_tile(dt * A, chunk))
    return y, last, torch.stack(starts)


def _fake(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, initial: Tensor, chunk: int, tile: int
) -> tuple[Tensor, Tensor, Tensor]:
    blocks = list(layouts(x, B, chunk, Memory(x)))
    samples = blocks[0][0].batch
    starts = initial.new_empty(sum(map(len, blocks)), samples, *initial.shape[1:])
    return x.new_empty(x.shape), torch.empty_like(initial), starts


def _run_backward(
    grad: Tensor, grad_last: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    starts: Tensor, chunk: int, tile: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    of = backward(grad, grad_last, (x, dt, A, B, C, D), starts.unbind(), chunk, tile or safe_tile(dt * A, chunk))
    return *of[:5], x.new_empty(0) if of[5] is None else of[5], of[6]


def _fake_backward(
    grad: Tensor, grad_last: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    starts: Tensor, chunk: int, tile: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    of_x, of_dt, of_A, of_B, of_C = (torch.empty_like(t) for t in (x, dt, A, B, C))
    return (
        of_x,
        of_dt,
        of_A,
        of_B,
        of_C,
        x.new_empty(0) if D is None else torch.empty_like(D),
        torch.empty_like(grad_last),
    )


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:6], output[2])
    ctx.mark_non_differentiable(output[2])
    ctx.chunk, ctx.tile = inputs[7:]


def _gradients(ctx: Any, run: Any, grad: Tensor | None, grad_last: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    x, starts = ctx.saved_tensors[0], ctx.saved_tensors[-1]
    given = or_zeros(grad, x), (starts.new_zeros(len(x), *starts.shape[2:]) if grad_last is None else grad_last)
    *of, of_D, of_initial = run(*given, *ctx.saved_tensors, ctx.chunk, ctx.tile)
    return *of, None if ctx.saved_tensors[5] is None else of_D, of_initial, None, None


_scan = custom_operator(
    "ssd_plain", _run, _fake, _run_backward, _fake_backward, _setup, _gradients, "the scan can be differentiated once"
)
counted_inside("ssd_plain", _run, _run_backward)
