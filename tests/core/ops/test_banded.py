"""core/ops/banded.py: tables are the filters that they stand for, at every size, and their adjoints."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from relume.core.ops.banded import Kind, table
from relume.core.ops.laplacian import edge_band, enlarged, laplacian_pyramid

CPU = torch.device("cpu")


def dense(name: str, size: int, kind: Kind, adjoint: bool = False) -> Tensor:
    """The matrix of a table."""
    start, weights = table(name, size, kind, adjoint, CPU)  # type: ignore[arg-type]
    rows, width = weights.shape
    columns = (size + 1) // 2 if (name == "doubled") != adjoint else size
    assert start.min() >= 0 and int(start.max()) + width <= columns
    matrix = torch.zeros(rows, columns)
    matrix.scatter_(1, start.long()[:, None] + torch.arange(width), weights)
    return matrix


@pytest.mark.parametrize("size", [(3, 4), (5, 8), (16, 7), (9, 33)])
def test_tables_are_the_bands_of_a_pyramid(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 1, *size)
    down = [dense("halved", side, "binomial") for side in size]
    up = [dense("doubled", side, "binomial") for side in size]
    band, rest = (t[0, 0] for t in laplacian_pyramid(x, 1))
    torch.testing.assert_close(down[0] @ x[0, 0] @ down[1].T, rest)
    torch.testing.assert_close(x[0, 0] - up[0] @ rest @ up[1].T, band)


@pytest.mark.parametrize("size", [(1, 2), (2, 3), (8, 5)])
def test_tables_are_the_band_of_edges(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 1, *size)
    both = [dense("doubled", side, "edge") @ dense("halved", side, "edge") for side in size]
    torch.testing.assert_close(x[0, 0] - both[0] @ x[0, 0] @ both[1].T, edge_band(x)[0, 0])


@pytest.mark.parametrize("name", ["halved", "doubled"])
@pytest.mark.parametrize("size", [1, 2, 3, 8, 13])
def test_adjoints_are_transposed(name: str, size: int) -> None:
    kinds: tuple[Kind, ...] = ("binomial", "edge") if size > 2 else ("edge",)
    for kind in kinds:
        torch.testing.assert_close(dense(name, size, kind, True), dense(name, size, kind).T)


def test_even_sizes_are_doubled_without_resampling() -> None:
    x = torch.randn(1, 1, 4, 5)
    up = [dense("doubled", side, "binomial") for side in (8, 10)]
    torch.testing.assert_close(up[0] @ x[0, 0] @ up[1].T, enlarged(x)[0, 0])
