"""Flow smoothness against the original and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from relume.core.errors import UserError
from relume.losses import build_loss


@pytest.fixture
def loss():
    return build_loss({"type": "FlowSmoothnessLoss"})


def test_original(loss, golden):
    compared = 0
    for case in torch.load(golden("vfi/losses.pt"), weights_only=True)["cases"]:
        if case["config"]["kind"] in ("flow_smoothness", "composite"):
            given = case["input"]
            flow = given["flow"].requires_grad_()
            value = loss(flow, given.get("img", given.get("img0")))
            expected = case["output"].get("loss_flow_smooth", case["output"]["loss"])
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)
            value.backward()
            # In the composite the flow is in this term only, which weighs 0.1.
            factor = 0.1 if case["config"]["kind"] == "composite" else 1.0
            torch.testing.assert_close(factor * flow.grad, case["grad"]["flow"], rtol=1e-4, atol=1e-9)
            compared += 1
    assert compared == 2


def test_by_hand(loss):
    """A step of 3 pixels in one of two channels, across an edge of the image of 0.5 in one of two channels."""
    flow, image = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    flow[0, 0, :, 1] = 3
    image[0, 1, :, 1] = 0.5
    # Two horizontal neighbours in each of two channels.
    assert float(loss(flow, image)) == pytest.approx(2 * 3 * math.exp(-0.25) / 4)


def test_half_precision_and_weight(loss):
    flow, image = torch.rand(1, 4, 8, 8), torch.rand(1, 3, 8, 8)
    twice = build_loss({"type": "FlowSmoothnessLoss", "loss_weight": 2.0})
    value = twice(flow.half(), image)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(2 * float(loss(flow.half().float(), image)))


def test_sizes_that_differ_are_one_line(loss):
    with pytest.raises(UserError, match="same batch and size"):
        loss(torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 8, 9))


def test_endpoint_error_by_hand():
    loss = build_loss({"type": "EndpointErrorLoss", "loss_weight": 2.0})
    flow, truth = torch.zeros(1, 4, 1, 2, dtype=torch.float64, requires_grad=True), torch.zeros(1, 4, 1, 2).double()
    truth[0, :2, 0, 0] = torch.tensor([3.0, -4.0])  # 5 pixels off at one of two pixels of one of two flows
    value = loss(flow, truth)
    assert value.item() == pytest.approx(2 * 5 / 4)
    value.backward()
    assert flow.grad[0, :, 0, 0].tolist() == pytest.approx([-2 * 0.6 / 4, 2 * 0.8 / 4, 0, 0])
    assert flow.grad[0, :, 0, 1].abs().max() == 0, "no slope, and no NaN, where flow is right"
    assert loss(flow.detach().bfloat16(), truth.float()).dtype == torch.float32
    with pytest.raises(UserError, match="two channels each; there are 3"):
        loss(flow[:, :3], truth[:, :3])
