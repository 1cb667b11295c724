"""The map of artefacts against the original, a slow direct formula, and where its derivative would be infinite."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from adversarial import near

from relume.core.errors import UserError
from relume.losses.ldl import get_refined_artifact_map, local_variance


def test_map_and_gradients_are_the_originals(golden):
    for case in torch.load(golden("adversarial/ldl.pt"), weights_only=True)["cases"]:
        output = case["output"].clone().requires_grad_()
        found = get_refined_artifact_map(case["gt"], output, case["ema"], case["config"]["ksize"])
        near(found, case["map"], 1e-4)
        near(
            torch.autograd.grad((found * case["map_cotangent"]).sum(), output, retain_graph=True)[0],
            case["map_grad"],
            5e-4,
        )
        loss = case["config"]["loss_weight"] * F.l1_loss(found * output, found * case["gt"])
        near(loss, case["loss"], 1e-4)
        near(torch.autograd.grad(loss, output)[0], case["loss_grad"], 5e-4)


@pytest.mark.parametrize(("side", "offset"), [(3, 0.0), (7, 5.0)])
def test_local_variance_is_that_of_each_window(side, offset):
    torch.manual_seed(0)
    x = torch.rand(2, 1, 11, 9) + offset
    padded = F.pad(x, [(side - 1) // 2] * 4, mode="reflect")
    windows = padded.unfold(2, side, 1).unfold(3, side, 1).double()
    torch.testing.assert_close(local_variance(x, side).double(), windows.var(dim=(-1, -2)), rtol=1e-4, atol=1e-6)


def test_an_output_that_equals_its_target_has_no_map_and_finite_gradients():
    gt = torch.rand(2, 3, 16, 16)
    output = gt.clone()
    output[1, :, 4:8, 4:8] += 0.1
    output.requires_grad_()
    found = get_refined_artifact_map(gt, output, torch.zeros_like(gt))
    assert not found[0].any()
    found = get_refined_artifact_map(gt, output, gt.clone())
    assert not found[0].any()
    assert found[1].any()
    (found * output - found * gt).abs().mean().backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_even_windows_are_refused():
    x = torch.rand(1, 3, 16, 16)
    with pytest.raises(UserError, match="odd"):
        get_refined_artifact_map(x, x, x, 6)
