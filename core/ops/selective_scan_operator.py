"""The plain scan of `core.ops.selective_scan` as an operator, for ``torch.compile``, which has no need to look inside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .operations import counted_inside
from .operators import custom_operator, or_zeros
from .selective_scan_chunks import backward, forward, starts_of


def scan_operator(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, bias: Tensor | None, softplus: bool
) -> tuple[Tensor, Tensor]:
    """`core.ops.selective_scan_chunks.scan_chunks`, shapes included, as an operator that torch.compile and export know."""
    y, last, _ = _scan(u, delta, A, B, C, D, bias, softplus)
    return y, last


def _run(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, bias: Tensor | None, softplus: bool
) -> tuple[Tensor, Tensor, Tensor]:
    y, last, starts = forward(u, delta, A, B, C, D, bias, softplus)
    return y.contiguous(), last.contiguous(), torch.cat(starts)


def _fake(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, bias: Tensor | None, softplus: bool
) -> tuple[Tensor, Tensor, Tensor]:
    counts, shape = starts_of(u, A, B, C)
    return u.new_empty(u.shape), A.new_empty(len(u), *A.shape), A.new_empty(sum(counts), *shape)


def _run_backward(
    grad: Tensor, grad_last: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    bias: Tensor | None, starts: Tensor, softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    kept = starts.split(starts_of(u, A, B, C)[0])
    *of, of_D, of_bias = backward(grad, grad_last, (u, delta, A, B, C, D, bias), kept, softplus)
    rest = [u.new_empty(0) if g is None else g.clone() for g in (of_D, of_bias)]
    of_u, of_delta, of_A, of_B, of_C = (g.contiguous() for g in of if g is not None)
    return of_u, of_delta, of_A, of_B, of_C, rest[0], rest[1]


def _fake_backward(
    grad: Tensor, grad_last: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    bias: Tensor | None, starts: Tensor, softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    of_u, of_delta, of_A, of_B, of_C = (t.new_empty(t.shape) for t in (u, delta, A, B, C))
    of_D, of_bias = (u.new_empty(0 if t is None else t.shape) for t in (D, bias))
    return of_u, of_delta, of_A, of_B, of_C, of_D, of_bias


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:7], output[2])
    ctx.mark_non_differentiable(output[2])
    ctx.softplus = inputs[7]


def _gradients(ctx: Any, run: Any, grad: Tensor | None, grad_last: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    u, A, D, bias = (ctx.saved_tensors[i] for i in (0, 2, 5, 6))
    given = or_zeros(grad, u), A.new_zeros(len(u), *A.shape) if grad_last is None else grad_last
    *of, of_D, of_bias = run(*given, *ctx.saved_tensors, ctx.softplus)
    return *of, None if D is None else of_D, None if bias is None else of_bias, None


_scan = custom_operator(
    *("selective_scan_plain", _run, _fake, _run_backward, _fake_backward, _setup, _gradients),
    "the selective scan can be differentiated once",
)
counted_inside("selective_scan_plain", _run, _run_backward)
