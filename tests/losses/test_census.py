"""The census loss against both originals, and against loops over pixels and neighbours."""

from __future__ import annotations

import pytest
import torch
from filling import waves

from relume.core.errors import UserError
from relume.losses import build_loss

FORMS = {
    "ternary": {},
    "composite": {},
    "rife_ternary": {"gray": "luma", "border": 1},
}


@pytest.mark.parametrize("file", ["vfi/losses.pt", "vfi/losses_rife.pt"])
def test_originals(file, golden):
    compared = 0
    for case in torch.load(golden(file), weights_only=True)["cases"]:
        kind = case["config"]["kind"]
        if kind in FORMS:
            pred, target = case["input"]["pred"].requires_grad_(), case["input"]["gt"].requires_grad_()
            loss = build_loss({"type": "TernaryCensusLoss", **FORMS[kind]})(pred, target)
            torch.testing.assert_close(loss, case["output"].get("loss_ter", case["output"]["loss"]), rtol=1e-5, atol=0)
            loss.backward()
            assert target.grad is None
            if kind != "composite":  # whose gradient is of the sum of its terms
                expected = case["grad"]["pred"]
                assert (pred.grad - expected).abs().max() <= 1e-5 * expected.abs().max()
            compared += 1
    assert compared


def by_loops(pred, target, radius, border, weights):
    def sign(gray, i, j, a, b):
        height, width = gray.shape
        inside = 0 <= i + a < height and 0 <= j + b < width
        d = (float(gray[i + a, j + b]) if inside else 0.0) - float(gray[i, j])
        return d / (0.81 + d * d) ** 0.5

    grays = [(x[0] * torch.tensor(weights, dtype=x.dtype)[:, None, None]).sum(0) for x in (pred, target)]
    height, width = grays[0].shape
    reach = range(-radius, radius + 1)
    total = 0.0
    for i in range(border, height - border):
        for j in range(border, width - border):
            for a in reach:
                for b in reach:
                    d = (sign(grays[0], i, j, a, b) - sign(grays[1], i, j, a, b)) ** 2
                    total += d / (0.1 + d)
    return total / (2 * radius + 1) ** 2 / height / width


@pytest.mark.parametrize(
    ("options", "radius", "border", "weights"),
    [
        ({"patch_size": 3}, 1, 1, [1 / 3, 1 / 3, 1 / 3]),
        ({"patch_size": 5, "gray": "luma", "border": 0}, 2, 0, [0.2989, 0.587, 0.114]),
    ],
)
def test_pixel_by_pixel(options, radius, border, weights):
    pred, target = waves("x", (1, 3, 5, 6)), waves("y", (1, 3, 5, 6))
    loss = build_loss({"type": "TernaryCensusLoss", **options, "loss_weight": 2.0})(pred, target)
    assert float(loss) == pytest.approx(2 * by_loops(pred, target, radius, border, weights), rel=1e-6)


def test_images_smaller_than_twice_the_border_count_nothing():
    x, y = waves("x", (1, 3, 6, 9)), waves("y", (1, 3, 6, 9))
    assert build_loss({"type": "TernaryCensusLoss"})(x, y) == 0


def test_mistakes_are_one_line():
    with pytest.raises(UserError, match="patch_size must be odd"):
        build_loss({"type": "TernaryCensusLoss", "patch_size": 4})
    with pytest.raises(UserError, match="border must be at least 0"):
        build_loss({"type": "TernaryCensusLoss", "border": -1})
    with pytest.raises(UserError, match="Did you mean 'luma'"):
        build_loss({"type": "TernaryCensusLoss", "gray": "lumma"})
    with pytest.raises(UserError, match="luma needs 3 channels"):
        build_loss({"type": "TernaryCensusLoss", "gray": "luma"})(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
