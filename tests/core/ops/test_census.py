"""The census distance against maps of all neighbours, in value and gradient; its memory; its kernels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from filling import waves
from torch import Tensor

from relume.core.errors import UserError
from relume.core.ops.census import census_distance


def by_maps(pred: Tensor, target: Tensor, patch: int) -> Tensor:
    """One map per neighbour, by a convolution with one-hot kernels, as the originals have it."""
    kernel = torch.eye(patch**2, dtype=pred.dtype).view(-1, 1, patch, patch)
    signs = []
    for x in (pred[:, None], target[:, None]):
        d = F.conv2d(x, kernel, padding=patch // 2) - x
        signs.append(d / torch.sqrt(0.81 + d**2))
    u = (signs[0] - signs[1]) ** 2
    return (u / (0.1 + u)).mean(1)


@pytest.mark.parametrize(("shape", "patch"), [((2, 9, 11), 7), ((1, 2, 3), 5), ((1, 1, 1), 7), ((2, 6, 5), 1)])
def test_equals_maps_of_all_neighbours(shape: tuple[int, ...], patch: int) -> None:
    pred, target, weight = (waves(name, shape) for name in ("p", "t", "w"))
    results = []
    for function in (census_distance, by_maps):
        x = pred.clone().requires_grad_()
        y = function(x, target, patch)
        results.append((y, torch.autograd.grad((y * weight).sum(), x)[0]))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_gradient_is_that_of_the_value() -> None:
    pred, target = waves("p", (1, 5, 6)).requires_grad_(), waves("t", (1, 5, 6))
    assert torch.autograd.gradcheck(lambda x: census_distance(x, target, 5), (pred,))


def test_keeps_the_two_images_and_nothing_else() -> None:
    kept: list[int] = []

    def note(t: Tensor) -> Tensor:
        kept.append(t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        census_distance(torch.rand(1, 20, 30, requires_grad=True), torch.rand(1, 20, 30))
    assert kept == [600, 600]


def test_fingerprint() -> None:
    y = census_distance(waves("p", (1, 8, 8)).float(), waves("t", (1, 8, 8)).float())
    assert [y.sum().item(), y[0, 3, 4].item()] == pytest.approx([12.186408, 0.23167044], rel=1e-5)


def test_kernels_forced_on_without_a_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELUME_KERNELS", "on")
    with pytest.raises(
        UserError, match=r"RELUME_KERNELS=on, but the fused census distance cannot run: it needs a GPU"
    ) as e:
        census_distance(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4))
    assert "\n" not in str(e.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_kernels_on_a_gpu_equal_the_plain_version(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, weight, results = [waves(n, (2, 40, 50)).float().cuda() for n in "pt"], waves("w", (2, 40, 50)).cuda(), []
    for mode in ("on", "off"):
        monkeypatch.setenv("RELUME_KERNELS", mode)
        x = drawn[0].clone().requires_grad_()
        y = census_distance(x, drawn[1])
        results.append([y, *torch.autograd.grad((y * weight).sum(), x)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
