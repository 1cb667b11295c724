"""Adversarial losses against the originals, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from adversarial import near

from relume.core.errors import UserError
from relume.losses import build_loss
from relume.losses.gan import GANLoss, logits, relativistic_d_loss, relativistic_g_loss


def leaves(tensors):
    return [t.clone().requires_grad_() for t in tensors]


def nested(inputs, case):
    """The inputs in the structure that a discriminator of several scales gives."""
    if case["structure"] == "list":
        return inputs
    parts, start = [], 0
    for length in case["lengths"]:
        parts.append(inputs[start : start + length])
        start += length
    return parts


def check(value, wanted, grads, inputs, rtol):
    near(value, wanted, rtol)
    found = torch.autograd.grad(value, inputs, allow_unused=True, retain_graph=True)
    for gradient, expected in zip(found, grads, strict=True):
        if expected is None or gradient is None:
            assert expected is None or not expected.any()
            assert gradient is None or not gradient.any()
        else:
            near(gradient, expected, rtol)


def test_values_and_gradients_are_the_originals(golden):
    for case in torch.load(golden("adversarial/gan_losses.pt"), weights_only=True)["cases"]:
        loss = build_loss({"type": case["type"], **case["config"]})
        inputs = leaves(case["inputs"])
        if case["kind"] == "relativistic":
            real, fake = inputs
            terms = {
                "l_g_gan": relativistic_g_loss(loss, real, fake),
                "l_d_real": relativistic_d_loss(loss, real, fake, True),
                "l_d_fake": relativistic_d_loss(loss, fake, real, False),
            }
            for name, value in terms.items():
                check(value, case[name], case[f"{name}_grads"], inputs, case["rtol"])
            continue
        prediction = nested(inputs, case) if case["kind"] == "multiscale" else inputs[0]
        value = loss(prediction, case["target_is_real"], is_disc=case["is_disc"])
        check(value, case["value"], case["input_grads"], inputs, case["rtol"])


@pytest.mark.parametrize(
    ("gan_type", "values"),
    [
        ("vanilla", (0.55436, 0.05544, 0.85436, 0.08544)),
        ("lsgan", (0.49, 0.049, 0.09, 0.009)),
        ("wgan", (-0.3, -0.03, 0.3, 0.03)),
        ("wgan_softplus", (0.55436, 0.05544, 0.85436, 0.08544)),
        ("hinge", (0.7, -0.03, 1.3, -0.03)),
    ],
)
def test_a_logit_of_0_3(gan_type, values):
    loss = GANLoss(gan_type, loss_weight=0.1)
    p = torch.full((2, 1), 0.3)
    calls = [(True, True), (True, False), (False, True), (False, False)]
    found = [loss(p, real, is_disc=disc).item() for real, disc in calls]
    assert found == pytest.approx(values, abs=1e-5)


def test_half_precision_predictions_are_compared_in_float32():
    p = torch.linspace(-30, 30, 64).view(8, 8)
    for gan_type in ("vanilla", "lsgan", "wgan_softplus", "hinge"):
        near(GANLoss(gan_type)(p.half(), True), GANLoss(gan_type)(p.half().float(), True), 0)


def test_several_maps_need_the_loss_for_several_scales():
    maps = [torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 2, 2)]
    with pytest.raises(UserError, match="MultiScaleGANLoss"):
        GANLoss("hinge")(maps, True)
    assert build_loss({"type": "MultiScaleGANLoss", "gan_type": "lsgan"})(maps, True).item() == pytest.approx(0.5)
    assert [len(x) for x in logits([[maps[0], maps[1]], [maps[0]]])] == [1, 1]


def test_feature_matching_needs_features():
    loss = build_loss({"type": "GANFeatLoss"})
    with pytest.raises(UserError, match="no features"):
        loss([torch.zeros(1)], [torch.zeros(1)])


def test_an_unknown_objective_is_refused():
    with pytest.raises(UserError, match="lsgan"):
        build_loss({"type": "GANLoss", "gan_type": "lsgann"})
