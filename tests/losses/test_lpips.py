"""LPIPS against its definition and against the lpips package."""

from __future__ import annotations

import lpips
import pytest
import torch

from relume.core.errors import UserError
from relume.losses import build_loss
from relume.losses.lpips import TRUNKS


@pytest.fixture(params=["alex", "squeeze"])
def loss(request):
    return build_loss({"type": "LPIPSLoss", "net": request.param, "weights": "random", "reduction": "none"})


def test_equals_the_definition(loss, images):
    pred, target = images((2, 3, 40, 36))
    network = loss.network
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    layers = [network.net((2 * x - 1 - shift) / scale) for x in (pred, target)]
    expected = torch.zeros(2)
    for x, y, head in zip(*layers, network.lins, strict=True):
        unit = [f / (f.square().sum(dim=1, keepdim=True).sqrt() + 1e-10) for f in (x, y)]
        per_channel = (unit[0] - unit[1]).square().mean(dim=(2, 3))
        expected += per_channel @ head.model[-1].weight.flatten()
    torch.testing.assert_close(loss(pred, target), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_heads_and_trunk_are_those_of_the_package(images):
    ours = build_loss({"type": "LPIPSLoss", "net": "squeeze", "weights": "random", "range_norm": True})
    theirs = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    theirs.net.load_state_dict(ours.network.net.state_dict())
    for ours_head, theirs_head in zip(ours.network.lins, theirs.lins, strict=True):
        assert torch.equal(ours_head.model[-1].weight, theirs_head.model[-1].weight)
    pred, target = (2 * x - 1 for x in images((2, 3, 33, 40)))
    assert torch.equal(ours(pred, target), theirs(pred, target).mean())


def test_trunk_weights_come_from_a_torchvision_file(tmp_path, images):
    import torchvision

    theirs = torchvision.models.squeezenet1_1(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "squeezenet.pth")
    loss = build_loss({"type": "LPIPSLoss", "net": "squeeze", "weights": str(tmp_path / "squeezenet.pth")})
    x = images((1, 3, 40, 40))[0]
    torch.testing.assert_close(loss.network.net(x).relu7, theirs.features(x))


def test_equal_images_are_at_distance_zero_and_range_norm_is_the_range(loss, images):
    pred, target = images((1, 3, 40, 40))
    assert loss(pred, pred).tolist() == [0]
    loss.range_norm = True
    signed = loss(2 * pred - 1, 2 * target - 1)
    loss.range_norm = False
    torch.testing.assert_close(signed, loss(pred, target), rtol=1e-4, atol=1e-7)


def test_gradient_reaches_the_prediction_only(loss, images):
    pred, target = (x.requires_grad_() for x in images((1, 3, 40, 40)))
    loss(pred, target).sum().backward()
    assert pred.grad.abs().sum() > 0 and target.grad is None
    assert all(p.grad is None and p.device.type == "cpu" for p in loss.network.parameters())


@pytest.mark.parametrize("net", TRUNKS)
def test_smallest_images(net, images):
    loss = build_loss({"type": "LPIPSLoss", "net": net, "weights": "random"})
    side = loss.smallest_side
    assert torch.isfinite(loss(*images((1, 3, side, side))))
    with pytest.raises(UserError, match=f"at least {side} pixels"):
        loss(*images((1, 3, side, side - 1)))
    with pytest.raises(UserError, match="3 channels"):
        loss(*images((1, 1, side, side)))
