"""Images in parts: every pixel is made once (or averaged), from as much context as the fork's wrapper gives it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from relume.core.inference.parts import Cut, EqualParts, Grid, SideBySide, in_parts
from relume.core.inference.tiling import Inference


def image(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height * width))


def enlarged(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, -2).repeat_interleave(2, -1)


CUTS = [EqualParts(20, 5), EqualParts(20, 0.1), SideBySide(16, 3), Grid(24, 30, 2), Grid(0.4, 0.7, 2)]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("size", [(45, 61), (7, 16), (1, 33)])
def test_what_looks_at_single_pixels_does_not_feel_the_cut(cut: Cut, size: tuple[int, int]) -> None:
    x = image(*size)
    torch.testing.assert_close(in_parts(enlarged, x, cut, 4), enlarged(x))


@pytest.mark.parametrize("cut", [EqualParts(20, 2), SideBySide(16, 2)])
def test_within_the_context_the_cut_is_not_felt_either(cut: Cut) -> None:
    x = image(45, 61)

    def blur(y: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(y, (2, 2, 2, 2), mode="reflect"), 5, stride=1)

    inner = (..., slice(0, 43), slice(0, 59))  # beyond, parts of equal size see the image continued
    torch.testing.assert_close(in_parts(blur, x, cut)[inner], blur(x)[inner])


def test_equal_parts_are_those_of_mambair() -> None:
    for n in range(1, 1300):
        rows, _ = EqualParts(200, 0.1).spans(n, 10)
        count = n // 200 + 1
        padded = n + (-n) % count
        side = padded // count
        assert [(s.first, s.last) for s in rows] == [(i * side, (i + 1) * side) for i in range(count)]
        around = [(max(0, i * side - side // 10), min(padded, (i + 1) * side + side // 10)) for i in range(count)]
        assert [(s.begin, s.end) for s in rows] == around


def positions(n: int, crop: int, scale: int) -> list[int]:
    """Where NAFNet's crops begin, in pixels of the output of side `n`: evenly, and the last one at the border."""
    crop = crop // scale * scale
    count = (n - 1) // crop + 1
    step = crop if count == 1 else math.ceil((n - crop) / (count - 1) - 1e-8)
    step = step // scale * scale
    found = [0]
    while found[-1] + crop < n:
        found.append(min(found[-1] + step, n - crop))
    return found


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_grids_are_those_of_nafnet(scale: int) -> None:
    for n in range(scale, 400, scale):
        for crop in (c for c in (64, 100, 130) if c <= n):
            rows, _ = Grid(crop, crop, scale).spans(n // scale, n // scale)
            assert [s.begin * scale for s in rows] == positions(n, crop, scale), (n, crop)
            assert all((s.end - s.begin) * scale == crop // scale * scale for s in rows)


def test_crops_are_averaged_where_they_overlap() -> None:
    x = image(1, 30)[:, :1]
    calls: list[float] = []

    def own_number(y: Tensor) -> Tensor:
        calls.append(0.0)
        return torch.full_like(y, float(len(calls)))

    found = in_parts(own_number, x, Grid(1, 20))  # columns 0 to 20 and 10 to 30
    assert found[0, 0, 0].tolist() == [1.0] * 10 + [1.5] * 10 + [2.0] * 10


def test_several_outputs_of_different_scale() -> None:
    x = image(45, 61)
    first, second = in_parts(lambda y: (y, enlarged(y)), x, EqualParts(20, 3))
    torch.testing.assert_close(first, x)
    torch.testing.assert_close(second, enlarged(x))


@pytest.mark.parametrize(("cut", "sizes"), [(SideBySide(16, 4), {(20, 20), (20, 24)}), (None, {(16, 28)})])
def test_inference_calls_the_network_on_parts(cut: Cut | None, sizes: set[tuple[int, int]]) -> None:
    seen: set[tuple[int, int]] = set()

    def network(y: Tensor) -> Tensor:
        seen.add((y.shape[-2], y.shape[-1]))
        return y

    run: Callable[..., object] = Inference(cut=cut)
    x = image(32 if cut else 16, 48 if cut else 28)
    torch.testing.assert_close(run(network, x), x)
    assert seen == sizes
