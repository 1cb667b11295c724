"""Losses of input that has nothing in it, and losses that are named after a paper's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from relume.core.errors import UserError
from relume.losses import build_loss
from relume.losses.generation.flow import snr_weights

PIXEL = ["L1Loss", "MSELoss", "SmoothL1Loss", "CharbonnierLoss"]


@pytest.mark.parametrize("name", PIXEL)
def test_a_weight_of_zero_everywhere_is_a_loss_of_zero(name: str) -> None:
    pred = torch.rand(2, 3, 4, 5, requires_grad=True)
    loss = build_loss({"type": name})(pred, torch.rand(2, 3, 4, 5), torch.zeros(2, 1, 4, 5))
    loss.backward()
    assert loss.item() == 0
    assert pred.grad is not None and (pred.grad == 0).all()


SMALL: list[dict[str, Any]] = [
    {"type": name}
    for name in (
        "GradientLoss",
        "EdgeLoss",
        "TVLoss",
        "SSIMLoss",
        "MSSSIMLoss",
        "LaplacianLoss",
        "TernaryCensusLoss",
        "FFTLoss",
    )
]


@pytest.mark.parametrize("opt", SMALL, ids=lambda o: o["type"])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 9), (2, 5), (5, 3)], ids=str)
def test_pictures_smaller_than_a_kernel_are_a_line_or_a_number(opt: dict[str, Any], size: tuple[int, int]) -> None:
    pred, target = torch.rand(2, 1, 3, *size)
    try:
        value = build_loss(opt)(pred.requires_grad_(), target)
    except UserError as e:
        assert str(e).startswith(opt["type"])
    else:
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(pred.grad).all()


@pytest.mark.parametrize("which", [0, 1], ids=["prediction", "target"])
def test_a_feature_vector_of_zeros_has_a_bounded_gradient(which: int) -> None:
    vectors = torch.rand(2, 4, 8)
    vectors[which] = 0
    pred = vectors[0].requires_grad_()
    build_loss({"type": "FeatureLoss"})(pred, vectors[1]).backward()
    assert pred.grad is not None and pred.grad.abs().max() < 1e4


def test_fft_loss_of_the_whole_spectrum_is_mimo_unets() -> None:
    pred, target = torch.rand(2, 2, 3, 8, 10, dtype=torch.float64)
    pred.requires_grad_()
    ours = build_loss({"type": "FFTLoss", "spectrum": "whole"})(pred, target)
    a, b = (torch.view_as_real(torch.fft.fft2(x)) for x in (pred, target))
    theirs = torch.nn.functional.l1_loss(a, b)
    assert torch.allclose(ours, theirs)
    assert torch.allclose(*(torch.autograd.grad(loss, pred, retain_graph=True)[0] for loss in (ours, theirs)))
    half = build_loss({"type": "FFTLoss"})(pred, target)
    assert not torch.allclose(ours, half)


@pytest.mark.parametrize(
    ("weighting", "formula"),
    [
        ("min_snr", lambda s: torch.minimum(s, torch.tensor(5.0))),
        ("truncated_snr", lambda s: torch.maximum(s, torch.tensor(1.0))),
        ("snr", lambda s: s / (s + 1)),
    ],
)
def test_weights_are_those_of_an_image_prediction(weighting: str, formula: Any) -> None:
    sigma = torch.tensor([0.01, 0.1, 0.4, 1.0, 20.0])
    wanted = formula(0.25 / sigma.square())
    found = snr_weights(sigma, 0.5, weighting)
    assert torch.allclose(found, wanted / wanted.mean(), rtol=1e-3)
    assert (found.diff() <= 0).all()  # an image is harder to see in more noise
