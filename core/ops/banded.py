"""Linear maps of lines of pixels, each of a few neighbours, as tables for kernels: halving, doubling, and their adjoints.

Borders, strides and odd sizes are in the table, so that a kernel has one short loop and no cases.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import torch
from torch import Tensor

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
BURT_ADELSON = (0.05, 0.25, 0.4, 0.25, 0.05)
"""Burt and Adelson's generating kernel with a = 0.4 (The Laplacian Pyramid as a Compact Image Code, 1983)."""
Kind = Literal["binomial", "edge"]
"""``binomial``, mirrored at the border, or ``edge``: `BURT_ADELSON` with replicated borders."""


class Band(NamedTuple):
    """Rows of a matrix that are zero but for K neighbours."""

    start: Tensor
    """The first of them, (n,) int32; all K are columns of the matrix."""
    weights: Tensor
    """(n, K) float32."""


class Entries(NamedTuple):
    """A matrix of `shape` by entries, of which several at one place are added."""

    row: Tensor
    column: Tensor
    value: Tensor
    shape: tuple[int, int]

    def transposed(self) -> Entries:
        return Entries(self.column, self.row, self.value, (self.shape[1], self.shape[0]))

    def band(self) -> Band:
        """The same as a table."""
        rows, columns = self.shape
        kept = self.value != 0
        row, column, value = self.row[kept], self.column[kept], self.value[kept]
        ends = [
            torch.full((rows,), empty).scatter_reduce(0, row, column, how)
            for empty, how in ((columns - 1, "amin"), (0, "amax"))
        ]
        width = max(int((ends[1] - ends[0]).max()) + 1, 1)
        start = ends[0].clamp_max(columns - width)
        weights = torch.zeros(rows * width, dtype=torch.float64)
        weights.scatter_add_(0, row * width + column - start[row], value)
        return Band(start.int(), weights.view(rows, width).float())


def halved(size: int, kind: Kind) -> Entries:
    """Filter, then every second pixel: (size + 1) // 2 of `size`."""
    rows = (size + 1) // 2
    at = 2 * torch.arange(rows)[:, None] + torch.arange(-2, 3)
    value = torch.tensor(_taps(kind), dtype=torch.float64).expand(rows, 5)
    row = torch.arange(rows)[:, None].expand(rows, 5)
    return Entries(row.flatten(), _inside(at, size, kind).flatten(), value.flatten(), (rows, size))


def doubled(size: int, kind: Kind) -> Entries:
    """Back to `size`: zeros between the pixels, filter times 2; ``binomial`` makes an even size, resampled to an odd one."""
    columns = (size + 1) // 2
    spread = 2 * columns if kind == "binomial" else size
    at = _inside(torch.arange(spread)[:, None] + torch.arange(-2, 3), spread, kind)
    value = 2 * torch.tensor(_taps(kind), dtype=torch.float64) * (at % 2 == 0)
    row = torch.arange(size)[:, None]
    if spread != size:
        place = ((torch.arange(size, dtype=torch.float64) + 0.5) * (spread / size) - 0.5).clamp_min(0)
        lower = place.long()
        share = (place - lower)[:, None]
        upper = (lower + 1).clamp_max(spread - 1)
        value = torch.cat([(1 - share) * value[lower], share * value[upper]], 1)
        at = torch.cat([at[lower], at[upper]], 1)
    row = row.expand_as(at)
    return Entries(row.flatten(), (at // 2).flatten(), value.flatten(), (size, columns))


MAPS = {"halved": halved, "doubled": doubled}


@functools.lru_cache(maxsize=256)
def table(name: Literal["halved", "doubled"], size: int, kind: Kind, adjoint: bool, device: torch.device) -> Band:
    """One of `MAPS`, or its adjoint, on a device: made and uploaded once for each size."""
    with torch.inference_mode(False):
        entries = MAPS[name](size, kind)
        start, weights = (entries.transposed() if adjoint else entries).band()
        return Band(start.to(device), weights.to(device))


def _taps(kind: Kind) -> tuple[float, ...]:
    return BINOMIAL if kind == "binomial" else BURT_ADELSON


def _inside(at: Tensor, size: int, kind: Kind) -> Tensor:
    """Places within (-size, 2 size) as those of pixels that are there."""
    if kind == "edge":
        return at.clamp(0, size - 1)
    return size - 1 - (size - 1 - at.abs()).abs()
