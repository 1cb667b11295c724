"""What holds for every loss: any dtype, any autocast, correct gradients, clear refusals; and one number each."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from waits import counted

from relume.core.errors import UserError
from relume.core.ops import hosts
from relume.core.runtime.step_graph import Watch
from relume.losses import LOSSES, build_loss

L1 = {"type": "L1Loss"}
# constructor arguments by loss, and its value (in float64) on the 2x3x32x36 images of conftest.py
EXAMPLES = {
    "L1Loss": ({}, 0.1296915),
    "MSELoss": ({}, 0.02560039),
    "SmoothL1Loss": ({"beta": 0.1}, 0.08895614),
    "CharbonnierLoss": ({"eps": 1e-3, "eps_squared": True}, 0.1297139),
    "PSNRLoss": ({"toY": True}, -21.09459),
    "GradientLoss": ({"operator": "sobel"}, 1.277463),
    "EdgeLoss": ({}, 0.09061107),
    "TVLoss": ({}, 0.1916948),
    "FFTLoss": ({"norm": "ortho"}, 0.0222754),
    "SSIMLoss": ({"win_size": 7}, 0.2690239),
    "MSSSIMLoss": ({"scales": 2}, 0.1892468),
    "PerceptualLoss": ({"layer_weights": {"conv1_2": 0.5, "relu2_2": 1.0}, "style_weight": 10.0}, 0.2342763),
    "LPIPSLoss": ({"net": "squeeze"}, 0.1135782),
    "LaplacianLoss": ({"levels": 4}, 0.2045399),
    "TernaryCensusLoss": ({}, 0.08628489),
    "FlowSmoothnessLoss": ({}, 0.1718422),
    "EndpointErrorLoss": ({}, 0.2092081),
    "KDLoss": ({}, 0.1296915),
    "SinkhornLoss": ({}, 0.4749306),
    "FGWLoss": ({}, 0.3912454),
    "GWLoss": ({}, 0.3063593),
    "LearnedWeights": ({"terms": {"pixel": L1, "edge": {"type": "EdgeLoss"}}, "init": "equal"}, 0.1101513),
    "AverageLoss": ({}, 0.0734213),
    "BicubicLoss": ({"criterion": "charbonnier"}, 0.06479935),
    "ColorLoss": ({"scale": 2}, 0.07149976),
    "LumaLoss": ({"criterion": "l2"}, 0.01252121),
}
ELSEWHERE = {"GANLoss", "MultiScaleGANLoss", "GANFeatLoss", "FFLoss", "ContextualLoss", "DISTSLoss"}
"""Not losses of two images alone, or with a gradient that is by design not their value's; each has a test file of its own."""
NOT_REDUCIBLE = {
    *("AverageLoss", "BicubicLoss", "ColorLoss", "LumaLoss"),
    *("PerceptualLoss", "LaplacianLoss", "TernaryCensusLoss", "FlowSmoothnessLoss", "EndpointErrorLoss"),
    *("LearnedWeights", "KDLoss", "SinkhornLoss", "FGWLoss", "GWLoss"),
}
REDUCIBLE = [name for name in EXAMPLES if name not in NOT_REDUCIBLE]
every = pytest.mark.parametrize("name", EXAMPLES)
reducible = pytest.mark.parametrize("name", REDUCIBLE)


@pytest.fixture
def images(name, images):
    """``images((B, C, H, W))``; two flows, where the loss compares those."""
    if name != "EndpointErrorLoss":
        return images
    return lambda shape, *dtype: images((shape[0], 4, *shape[2:]), *dtype)


@pytest.fixture
def build(name, small_vgg_file, squeeze_file):
    """``build(reduction="sum")``: the example with further arguments."""
    weights = {"PerceptualLoss": {"weights": small_vgg_file}, "LPIPSLoss": {"weights": squeeze_file}}.get(name, {})
    return lambda **options: build_loss({"type": name, **EXAMPLES[name][0], **weights, **options})


@pytest.fixture
def loss(build):
    return build()


def total(value):
    return value if isinstance(value, torch.Tensor) else sum(value.values())


def test_every_registered_loss_has_an_example():
    known = {n for n in LOSSES.names() if LOSSES.get(n).__module__.count(".") == 2}
    assert sorted(EXAMPLES) == sorted(known - ELSEWHERE)


@every
def test_fingerprint(name, loss, images):
    value = total(loss(*images((2, 3, 32, 36))))
    assert float(value) == pytest.approx(EXAMPLES[name][1], rel=2e-5)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_compared_in_float32(name, loss, dtype, images):
    pred, target = images((2, 3, 32, 36), dtype)
    value = total(loss(pred, target))
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(total(loss(pred.float(), target.float()))), rel=1e-6)


@every
def test_autocast_changes_nothing(name, loss, images):
    pred, target = images((2, 3, 32, 36))
    expected = total(loss(pred, target))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(total(loss(pred, target)), expected)


@every
def test_gradient_is_that_of_the_value(name, loss, images):
    pred, target = images((1, 3, 32, 32), torch.float64)
    pred.requires_grad_()
    total(loss.double()(pred, target)).backward()
    direction = torch.cos(torch.arange(pred.numel(), dtype=torch.float64)).view_as(pred)
    step = 1e-7 * direction
    with torch.no_grad():
        slope = (total(loss(pred + step, target)) - total(loss(pred - step, target))) / 2e-7
    assert float((pred.grad * direction).sum()) == pytest.approx(float(slope), rel=1e-4, abs=1e-9)


@every
def test_gradients_are_finite_and_inputs_untouched(name, loss, images):
    pred, target = images((1, 3, 32, 32))
    before = [x.clone() for x in (pred, target)]
    total(loss(pred.requires_grad_(), target)).backward()
    assert pred.grad.abs().sum() > 0 and torch.isfinite(pred.grad).all()
    assert torch.equal(pred, before[0]) and torch.equal(target, before[1])


# TVLoss looks at the prediction only; flow and image have their own channels.
@every
def test_nothing_waits_for_the_device(name, loss, images, monkeypatch):
    """Nor is anything brought there that a CUDA graph would keep as it was, once constants are there."""
    x, y = images((2, 3, 32, 36))
    before = total(loss(x, y))
    monkeypatch.setattr(hosts, "asks_freely", lambda x: False)  # as on a GPU
    torch.testing.assert_close(total(loss(x, y)), before, rtol=1e-3, atol=0)
    x.requires_grad_()
    with counted() as waits, Watch(x.device) as watch:
        total(loss(x, y)).backward()
    assert not waits and watch.found is None


@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - {"TVLoss", "FlowSmoothnessLoss"}))
def test_shapes_that_differ_are_refused(name, loss, images):
    pred, target = images((1, 3, 32, 32))
    with pytest.raises(UserError, match="differ in shape"):
        loss(pred, target[:, :1])


@every
def test_nothing_but_learned_weights_is_saved_or_trained(name, loss):
    expected = ["weights"] if name == "LearnedWeights" else []
    assert list(loss.state_dict()) == [n for n, _ in loss.named_parameters()] == expected
    assert not any(p.requires_grad for p in loss.parameters())


@reducible
def test_loss_weight_scales(name, build, loss, images):
    pred, target = images((1, 3, 32, 32))
    assert float(build(loss_weight=2.5)(pred, target)) == pytest.approx(2.5 * float(loss(pred, target)), rel=1e-6)


@pytest.mark.parametrize("name", sorted(set(REDUCIBLE) - {"TVLoss"}))  # two means have no map; see test_gradient.py
def test_reductions_agree_with_each_other(name, build, images):
    pred, target = images((2, 3, 32, 36))
    apart, mean, total = (build(reduction=r)(pred, target) for r in ("none", "mean", "sum"))
    assert apart.ndim > 0
    assert float(total) == pytest.approx(float(apart.sum()), rel=1e-5)
    assert float(mean) == pytest.approx(float(apart.mean()), rel=1e-5)


@reducible
def test_unknown_reduction_is_one_line(name, build):
    with pytest.raises(UserError, match="Did you mean 'mean'") as e:
        build(reduction="maen")
    assert "\n" not in str(e.value)


def test_importing_all_losses_needs_no_heavy_package():
    code = (
        "import sys, relume.losses as l; l.LOSSES.names(); "
        "print([m for m in ('torchvision', 'lpips', 'pytorch_msssim', 'tensorboard') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
