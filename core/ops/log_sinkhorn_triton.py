"""The Triton side of `log_sinkhorn`; imported only where it runs. See there for the arguments.

A launch updates all columns or all rows. A program has some of them and goes through the others in blocks, with a running
maximum and a running sum of exponentials relative to it, so that nothing is written but potentials. Rows are one a program
where there are few, so that a matrix of 32 x 2048 occupies 32 multiprocessors both ways. Limit: bytes, 4 n m for each launch;
of a small matrix the launches.
"""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201, ANN202
# Triton reads annotations of kernels itself and knows its own only.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import operations
from .launching import launch, tile
from .sinkhorn_triton import COLUMNS, FEW, REACH, ROWS

LOWEST = tl.constexpr(-3.4028234663852886e38)
"""Smallest float32."""


@torch.library.custom_op("relume::log_sinkhorn", mutates_args=("phi", "gamma"))
def update_fused(
    logits: Tensor, a: Tensor, b: Tensor, phi: Tensor, gamma: Tensor, iterations: int, damping: float, outside: float,
    relaxed: bool,
) -> None:  # fmt: skip
    """`log_sinkhorn.update_potentials`, shapes included, in two launches for each iteration."""
    n, m = logits.shape
    rows = tile(1 if n <= FEW else ROWS)
    height, rule = min(64, triton.next_power_of_2(n)), (damping, outside)
    for _ in range(iterations):
        launch(
            update_columns, (triton.cdiv(m, COLUMNS),), logits, b, phi, gamma, n, m, *logits.stride(), *rule,
            RELAXED=relaxed, HEIGHT=height, WIDTH=COLUMNS,
        )  # fmt: skip
        launch(
            update_rows, (triton.cdiv(n, rows),), logits, a, phi, gamma, n, m, *logits.stride(), *rule, RELAXED=relaxed,
            HEIGHT=rows, WIDTH=REACH,
        )  # fmt: skip


@update_fused.register_fake
def _(
    logits: Tensor, a: Tensor, b: Tensor, phi: Tensor, gamma: Tensor, iterations: int, damping: float, outside: float,
    relaxed: bool,
) -> None:  # fmt: skip
    return None


@torch.library.custom_op("relume::absorbed", mutates_args=())
def absorbed_fused(logits: Tensor, phi: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """`log_sinkhorn.absorbed`, shapes included, in one launch, which reads the matrix twice and writes it once."""
    n, m = logits.shape
    kernel, shift = torch.empty(n, m, device=logits.device), torch.empty_like(gamma)
    launch(
        absorb, (triton.cdiv(m, COLUMNS),), logits, phi, gamma, kernel, shift, n, m, *logits.stride(),
        HEIGHT=min(64, triton.next_power_of_2(n)), WIDTH=COLUMNS,
    )  # fmt: skip
    return kernel, shift


@absorbed_fused.register_fake
def _(logits: Tensor, phi: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty(logits.shape, device=logits.device), torch.empty_like(gamma)


operations.register("log_sinkhorn")
operations.register("absorbed")


@triton.jit
def _relative(highest):
    """What exponentials are taken relative to: the highest exponent, or 0 where it is infinite."""
    return tl.where(tl.abs(highest) == float("inf"), 0.0, highest)


@triton.jit
def _joined(highest, total, x, AXIS: tl.constexpr):
    """A sum of exponentials and the highest exponent, with those of `x` along an axis."""
    higher = tl.maximum(highest, tl.max(x, axis=AXIS))
    relative = _relative(higher)
    more = tl.sum(tl.exp(x - tl.expand_dims(relative, AXIS)), axis=AXIS)
    return higher, total * tl.exp(highest - relative) + more


@triton.jit
def _potential(marginal, lse, damping, outside, RELAXED: tl.constexpr):
    empty = marginal == 0
    if RELAXED:
        empty = empty | (lse == float("-inf"))
    return tl.where(empty, float("-inf"), outside * tl.log(marginal) - damping * lse)


@triton.jit
def update_columns(
    logits, b, phi, gamma, n, m, down, across, damping, outside,
    RELAXED: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """gamma of WIDTH columns: neighbouring threads read neighbouring columns."""
    j = (tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)).to(tl.int64)
    highest = tl.full((WIDTH,), float("-inf"), tl.float32)
    total = tl.zeros((WIDTH,), tl.float32)
    for top in range(0, n, HEIGHT):
        i = (top + tl.arange(0, HEIGHT)).to(tl.int64)
        inside = (i[:, None] < n) & (j[None, :] < m)
        x = tl.load(logits + i[:, None] * down + j[None, :] * across, mask=inside, other=float("-inf"))
        x += tl.load(phi + i, mask=i < n, other=0.0)[:, None]
        highest, total = _joined(highest, total, x, 0)
    mass = tl.load(b + j, mask=j < m, other=0.0)
    lse = _relative(highest) + tl.log(total)
    tl.store(gamma + j, _potential(mass, lse, damping, outside, RELAXED), mask=j < m)


@triton.jit
def update_rows(
    logits, a, phi, gamma, n, m, down, across, damping, outside,
    RELAXED: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """phi of HEIGHT rows, WIDTH columns at a time."""
    i = (tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT)).to(tl.int64)
    highest = tl.full((HEIGHT,), float("-inf"), tl.float32)
    total = tl.zeros((HEIGHT,), tl.float32)
    for left in range(0, m, WIDTH):
        j = (left + tl.arange(0, WIDTH)).to(tl.int64)
        inside = (i[:, None] < n) & (j[None, :] < m)
        x = tl.load(logits + i[:, None] * down + j[None, :] * across, mask=inside, other=float("-inf"))
        x += tl.load(gamma + j, mask=j < m, other=0.0)[None, :]
        highest, total = _joined(highest, total, x, 1)
    mass = tl.load(a + i, mask=i < n, other=0.0)
    lse = _relative(highest) + tl.log(total)
    tl.store(phi + i, _potential(mass, lse, damping, outside, RELAXED), mask=i < n)


@triton.jit
def absorb(
    logits, phi, gamma, kernel, shift, n, m, down, across, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """WIDTH columns: their maxima, then their exponentials."""
    j = (tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)).to(tl.int64)
    added = tl.load(gamma + j, mask=j < m, other=0.0)
    highest = tl.full((WIDTH,), float("-inf"), tl.float32)
    for top in range(0, n, HEIGHT):
        i = (top + tl.arange(0, HEIGHT)).to(tl.int64)
        inside = (i[:, None] < n) & (j[None, :] < m)
        x = tl.load(logits + i[:, None] * down + j[None, :] * across, mask=inside, other=float("-inf"))
        x += tl.load(phi + i, mask=i < n, other=0.0)[:, None] + added[None, :]
        highest = tl.maximum(highest, tl.max(x, axis=0))
    highest = tl.maximum(highest, LOWEST)
    tl.store(shift + j, highest, mask=j < m)
    for top in range(0, n, HEIGHT):
        i = (top + tl.arange(0, HEIGHT)).to(tl.int64)
        inside = (i[:, None] < n) & (j[None, :] < m)
        x = tl.load(logits + i[:, None] * down + j[None, :] * across, mask=inside, other=float("-inf"))
        x += tl.load(phi + i, mask=i < n, other=0.0)[:, None] + added[None, :]
        tl.store(kernel + i[:, None] * m + j[None, :], tl.exp(x - highest[None, :]), mask=inside)
