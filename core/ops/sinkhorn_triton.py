"""The Triton side of `sinkhorn`; imported only where it runs. See there for the arguments.

A small matrix is read once, in one launch for all iterations; another twice in each iteration, in two launches. Limit: bytes,
4 n m each time the matrix is read; of a small one the latency of its sums.
"""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201
# Triton reads annotations of kernels itself and knows its own only.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import operations
from .launching import launch, tile

TINY = tl.constexpr(1.1754943508222875e-38)
"""Smallest normal float32."""
WHOLE = 2**15
"""Entries of a matrix, padded to powers of 2, that one program keeps in registers: 64 for each thread of 16 warps."""
COLUMNS, ROWS, REACH = 64, 4, 512
"""Columns or rows that one program updates, and how far it reads along a row at a time."""
FEW = 512
"""Rows up to which a program takes a single one: a matrix of 32 x 2048 then occupies 32 multiprocessors both ways."""


@torch.library.custom_op("relume::sinkhorn", mutates_args=("u", "v"))
def scale_fused(kernel: Tensor, a: Tensor, b: Tensor, u: Tensor, v: Tensor, iterations: int) -> None:
    """`sinkhorn.scale_to_marginals`, shapes included: one launch for a small matrix, two for each iteration otherwise."""
    n, m = kernel.shape
    rows, columns = triton.next_power_of_2(n), triton.next_power_of_2(m)
    if rows * columns <= WHOLE:
        if iterations:
            launch(all_iterations, (1,), kernel, a, b, u, v, n, m, iterations, HEIGHT=rows, WIDTH=columns, warps=16)
        return
    height, few = min(64, rows), tile(1 if n <= FEW else ROWS)
    for _ in range(iterations):
        launch(update_columns, (triton.cdiv(m, COLUMNS),), kernel, b, u, v, n, m, HEIGHT=height, WIDTH=COLUMNS)
        launch(update_rows, (triton.cdiv(n, few),), kernel, a, u, v, n, m, HEIGHT=few, WIDTH=REACH)


@scale_fused.register_fake
def _(kernel: Tensor, a: Tensor, b: Tensor, u: Tensor, v: Tensor, iterations: int) -> None:
    return None


operations.register("sinkhorn")


@triton.jit
def all_iterations(kernel, a, b, u, v, n, m, iterations, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """K stays in registers of one program through all iterations. Entries beyond (n, m) are zero and stay so."""
    i, j = tl.arange(0, HEIGHT), tl.arange(0, WIDTH)
    inside = (i[:, None] < n) & (j[None, :] < m)
    matrix = tl.load(kernel + i[:, None] * m + j[None, :], mask=inside, other=0.0)
    mass_rows = tl.load(a + i, mask=i < n, other=0.0)
    mass_columns = tl.load(b + j, mask=j < m, other=0.0)
    x = tl.load(u + i, mask=i < n, other=0.0)
    y = tl.zeros((WIDTH,), tl.float32)
    for _ in range(iterations):
        y = mass_columns / (tl.sum(matrix * x[:, None], axis=0) + TINY)
        x = mass_rows / (tl.sum(matrix * y[None, :], axis=1) + TINY)
    tl.store(u + i, x, mask=i < n)
    tl.store(v + j, y, mask=j < m)


@triton.jit
def update_columns(kernel, b, u, v, n, m, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """v = b / (K^T u), WIDTH of them: neighbouring threads read neighbouring columns."""
    j = (tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)).to(tl.int64)
    total = tl.zeros((HEIGHT, WIDTH), tl.float32)
    for top in range(0, n, HEIGHT):
        i = (top + tl.arange(0, HEIGHT)).to(tl.int64)
        inside = (i[:, None] < n) & (j[None, :] < m)
        block = tl.load(kernel + i[:, None] * m + j[None, :], mask=inside, other=0.0)
        total += block * tl.load(u + i, mask=i < n, other=0.0)[:, None]
    mass = tl.load(b + j, mask=j < m, other=0.0)
    tl.store(v + j, mass / (tl.sum(total, axis=0) + TINY), mask=j < m)


@triton.jit
def update_rows(kernel, a, u, v, n, m, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """u = a / (K v), HEIGHT of them, WIDTH columns at a time."""
    i = tl.program_id(0).to(tl.int64) * HEIGHT + tl.arange(0, HEIGHT)
    total = tl.zeros((HEIGHT, WIDTH), tl.float32)
    for left in range(0, m, WIDTH):
        j = left + tl.arange(0, WIDTH)
        inside = (i[:, None] < n) & (j[None, :] < m)
        block = tl.load(kernel + i[:, None] * m + j[None, :], mask=inside, other=0.0)
        total += block * tl.load(v + j, mask=j < m, other=0.0)[None, :]
    mass = tl.load(a + i, mask=i < n, other=0.0)
    tl.store(u + i, mass / (tl.sum(total, axis=1) + TINY), mask=i < n)
