"""Losses of input that has nothing in it, and losses that are named after a paper's."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from relume.core.errors import UserError
from relume.losses import LOSSES, build_loss
from relume.losses.generation.flow import snr_weights

PIXEL = ["L1Loss", "MSELoss", "SmoothL1Loss", "CharbonnierLoss"]


@pytest.mark.parametrize("name", PIXEL)
def test_a_weight_of_zero_everywhere_is_a_loss_of_zero(name: str) -> None:
    pred = torch.rand(2, 3, 4, 5, requires_grad=True)
    loss = build_loss({"type": name})(pred, torch.rand(2, 3, 4, 5), torch.zeros(2, 1, 4, 5))
    loss.backward()
    assert loss.item() == 0
    assert pred.grad is not None and (pred.grad == 0).all()


@pytest.mark.parametrize("name", [*PIXEL, "TVLoss"])
@pytest.mark.parametrize("shape", [(2, 1, 3, 4), (2, 2, 4, 5), (4, 5), (3, 1, 4, 5)], ids=str)
def test_a_weight_that_does_not_fit_is_one_line(name: str, shape: tuple[int, ...]) -> None:
    images = torch.rand(2, 2, 3, 4, 5)
    with pytest.raises(UserError, match=rf"^{name}: the weight .+ does not fit images"):
        build_loss({"type": name})(*images, weight=torch.ones(shape))


PIXELS = {"type": "L1Loss"}
OPTIONS: dict[str, dict[str, Any]] = {
    "LearnedWeights": {"terms": {"pixel": PIXELS, "edge": {"type": "EdgeLoss"}}, "init": "equal"},
    "MultiScaleLoss": {"criterion": PIXELS},
    "PerceptualLoss": {"layer_weights": {"relu2_2": 0.5, "conv4_1": 1.0}, "style_weight": 1.0, "weights": "random"},
    "ContextualLoss": {"layer_weights": {"conv3_1": 1.0}, "weights": "random"},
    "MSSSIMLoss": {"scales": 2},
}
OF_OTHER_THINGS = {"GANLoss", "MultiScaleGANLoss", "GANFeatLoss", "BoundaryLoss", "ConsistencyLoss", "StructureLoss"}
WITHOUT_WEIGHTS_HERE = {"DISTSLoss", "LPIPSLoss"}
OF_IMAGES = sorted({*LOSSES.names()} - OF_OTHER_THINGS - WITHOUT_WEIGHTS_HERE)


@functools.cache
def built(name: str) -> Any:
    return build_loss({"type": name, **OPTIONS.get(name, {})})


def tried(name: str, pred: torch.Tensor, target: torch.Tensor) -> None:
    """The loss and its gradient are finite, or there is one line that names the loss."""
    pred.requires_grad_()
    try:
        value = built(name)(pred, target)
        value = value if isinstance(value, torch.Tensor) else torch.stack([*value.values()]).sum()
    except UserError as e:
        assert str(e).startswith(name) and "\n" not in str(e)
        return
    value.backward()
    assert torch.isfinite(value)
    assert pred.grad is None or (torch.isfinite(pred.grad).all() and pred.grad.abs().max() < 1e5)


def pair(name: str, height: int, width: int) -> torch.Tensor:
    channels = {"EndpointErrorLoss": 4}.get(name, 3)
    return torch.rand(2, 1, channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", OF_IMAGES)
def test_pictures_smaller_than_a_kernel_are_a_line_or_a_number(name: str) -> None:
    for size in ((1, 1), (2, 2), (1, 9), (2, 5), (5, 3), (7, 7), (10, 12), (15, 15)):
        pred, target = pair(name, *size)
        tried(name, pred[:, :2] if name == "FlowSmoothnessLoss" else pred, target)


CONTENTS = {
    "equal": lambda x, y: (y.clone(), y),
    "black": lambda x, y: (torch.zeros_like(x), torch.zeros_like(y)),
    "black prediction": lambda x, y: (torch.zeros_like(x), y),
    "black target": lambda x, y: (x, torch.zeros_like(y)),
    "flat": lambda x, y: (torch.full_like(x, 0.5), torch.full_like(y, 0.25)),
    "opposite": lambda x, y: (1 - y, y),
}


@pytest.mark.parametrize("name", [n for n in OF_IMAGES if n != "FlowSmoothnessLoss"])
def test_pictures_with_nothing_in_them_have_finite_gradients(name: str) -> None:
    for make in CONTENTS.values():
        tried(name, *(image.clone() for image in make(*pair(name, 32, 36))))


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
