"""Images and VGG weights made by formulas, and the comparison with a golden value and gradient."""

from __future__ import annotations

import math

import pytest
import torch

from relume.losses.vgg import VGGFeatures


def wave(shape, frequency, phase):
    """An image in [0.1, 0.9] that needs no random numbers."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (0.5 + 0.4 * torch.sin(frequency * i + phase)).reshape(shape)


@pytest.fixture(scope="session")
def images():
    """``images((2, 3, 20, 24))``: a prediction and a target of that shape, somewhat alike."""

    def make(shape, dtype=torch.float32):
        pred, other = wave(shape, 0.7, 0.0), wave(shape, 0.31, 2.0)
        return pred.to(dtype), (0.6 * pred + 0.4 * other).to(dtype)

    return make


@pytest.fixture(scope="session")
def vgg_file(tmp_path_factory):
    """``vgg_file("vgg19", "conv5_4", fill)``: weights ``fill(key, shape)`` as torchvision would save them."""

    def save(vgg_type, deepest, fill):
        shapes = {k: v.shape for k, v in VGGFeatures(vgg_type, [deepest], "test", "random").state_dict().items()}
        path = tmp_path_factory.mktemp("weights") / f"{vgg_type}.pth"
        torch.save({k: fill(k, tuple(s)) for k, s in shapes.items()}, path)
        return str(path)

    return save


def sines(key, shape):
    """Kernels and biases of a network, from the index of each element."""
    scale = 0.1 if len(shape) == 1 else math.sqrt(4 / math.prod(shape[1:]))
    return scale * torch.sin(1.7 * torch.arange(math.prod(shape), dtype=torch.float64) ** 1.1).reshape(shape).float()


@pytest.fixture(scope="session")
def small_vgg_file(vgg_file):
    """VGG19 up to relu2_2, made of sines."""
    return vgg_file("vgg19", "relu2_2", sines)


@pytest.fixture(scope="session")
def squeeze_file(tmp_path_factory):
    """SqueezeNet 1.1, made of sines."""
    import torchvision

    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in torchvision.models.squeezenet1_1().state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save({k: sines(k, s) for k, s in shapes.items()}, path)
    return str(path)


@pytest.fixture
def agrees():
    """``agrees(loss, pred, target, golden_entry, rtol)``: value and gradient equal the stored ones."""

    def check(loss, pred, target, expected, rtol=1e-5):
        pred = pred.clone().requires_grad_()
        value = loss(pred, target)
        value.backward()
        assert value.item() == pytest.approx(expected["value"], rel=rtol, abs=1e-7)
        assert float(pred.grad.norm()) == pytest.approx(expected["grad_norm"], rel=10 * rtol, abs=1e-8)
        stride = expected["grad_stride"]
        scale = max(float(expected["grad"].abs().max()), 1e-6)
        difference = (pred.grad[..., ::stride, ::stride] - expected["grad"]).abs().max()
        assert float(difference) <= 100 * rtol * scale

    return check
