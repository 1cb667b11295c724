"""Tiled equals whole, whatever the sizes of picture, tile and overlap: tried with made-up ones."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from relume.core.inference.tiling import pad_to_multiple, tiled

KERNEL = torch.rand(2, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def near(x: Tensor) -> Tensor:
    """A network that sees five pixels at most, and halves and doubles on a grid of two."""
    x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), KERNEL)
    half = F.avg_pool2d(x, 2)
    return x + F.interpolate(half, scale_factor=2, mode="nearest")


def enlarged(x: Tensor) -> Tensor:
    return F.interpolate(near(x), scale_factor=2, mode="nearest")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 45), st.integers(1, 45), st.integers(12, 24), st.sampled_from([6, 8]), st.booleans())
def test_tiled_equals_whole(height: int, width: int, tile: int, overlap: int, enlarges: bool) -> None:
    network, tile = enlarged if enlarges else near, max(tile, 2 * overlap)
    x = torch.rand(1, 2, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scale = 1 + enlarges
    padded, _ = pad_to_multiple(x, 2)
    whole = network(padded)[..., : scale * height, : scale * width]
    result = tiled(network, x, tile, overlap, multiple=2)
    assert isinstance(result, Tensor) and torch.allclose(result, whole, rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 16))
def test_padding_keeps_the_picture(height: int, width: int, multiple: int) -> None:
    x = torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width)
    padded, size = pad_to_multiple(x, multiple)
    assert size == (height, width) and torch.equal(padded[..., :height, :width], x)
    assert all(
        new % multiple == 0 and 0 <= new - old < multiple for new, old in zip(padded.shape[2:], size, strict=True)
    )
