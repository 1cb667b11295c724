"""Softmax-weighted terms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from relume.core.errors import UserError
from relume.losses import build_loss
from relume.losses.learned import LearnedWeights

TERMS = {"pixel": {"type": "L1Loss"}, "mse": {"type": "MSELoss", "loss_weight": 2.0}}
FOUR = {
    "charbonnier": {"type": "CharbonnierLoss", "eps": 1e-3, "eps_squared": True},
    "perceptual": {"type": "PerceptualLoss", "layer_weights": {"conv5_4": 1}, "use_input_norm": False},
    "gradient": {"type": "GradientLoss"},
    "msssim": {"type": "MSSSIMLoss"},
}


class Fixed(nn.Module):
    """A loss of a given value."""

    def __init__(self, value):
        super().__init__()
        self.value = torch.tensor(value)

    def forward(self, pred, target):
        return self.value


def set_weights(loss, values):
    loss.load_state_dict({"weights": torch.as_tensor(values).flatten()}, strict=False)
    return loss


def test_terms_are_weighted_by_the_softmax_and_logged(images):
    pred, target = images((1, 3, 8, 8))
    loss = set_weights(build_loss({"type": "LearnedWeights", "terms": TERMS}), [0.0, 1.0986123])  # softmax 1/4, 3/4
    got = loss(pred, target)
    assert list(got) == ["pixel", "mse"]
    assert float(got["pixel"]) == pytest.approx(0.25 * float((pred - target).abs().mean()), rel=1e-5)
    assert float(got["mse"]) == pytest.approx(1.5 * float((pred - target).square().mean()), rel=1e-5)
    assert {k: float(v) for k, v in loss.logs().items()} == pytest.approx({"w_pixel": 0.25, "w_mse": 0.75})


def test_terms_with_several_values_keep_their_names(small_vgg_file, images):
    percep = {"type": "PerceptualLoss", "layer_weights": {"relu1_1": 1}, "style_weight": 1.0, "weights": small_vgg_file}
    loss = build_loss(
        {"type": "LearnedWeights", "terms": {"vgg": percep, "pixel": {"type": "L1Loss"}}, "init": "equal"}
    )
    pred, target = images((1, 3, 8, 8))
    apart = build_loss(percep)(pred, target)
    got = loss(pred, target)
    assert list(got) == ["vgg_percep", "vgg_style", "pixel"]
    assert float(got["vgg_style"]) == pytest.approx(0.5 * float(apart["style"]))


def test_random_init_is_uniform_and_reproducible():
    terms = {f"t{i}": Fixed(1.0) for i in range(400)}
    torch.manual_seed(3)
    first = LearnedWeights(terms).weights
    torch.manual_seed(3)
    assert torch.equal(first, LearnedWeights(terms).weights)
    assert 0 <= float(first.min()) < 0.05 and 0.95 < float(first.max()) < 1
    assert float(first.mean()) == pytest.approx(0.5, abs=0.05)


def test_weights_train_only_when_asked(images):
    pred, target = images((1, 3, 8, 8))
    fixed = build_loss({"type": "LearnedWeights", "terms": TERMS})
    learned = build_loss({"type": "LearnedWeights", "terms": TERMS, "learn": True, "init": "equal"})
    for loss in (fixed, learned):
        sum(loss(pred.requires_grad_(), target).values()).backward()
    assert fixed.weights.grad is None and not fixed.weights.requires_grad
    parts = torch.stack([t(pred, target) for t in learned.terms.values()])
    expected = 0.5 * (parts - parts.mean())  # d/dw_i sum p L = p_i (L_i - sum p L)
    torch.testing.assert_close(learned.weights.grad, expected.detach())


def test_the_draw_survives_a_checkpoint():
    one, other = (build_loss({"type": "LearnedWeights", "terms": TERMS}) for _ in range(2))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.weights, other.weights)
    assert list(one.state_dict()) == ["weights"]


def test_no_terms():
    with pytest.raises(UserError, match="terms is empty"):
        build_loss({"type": "LearnedWeights", "terms": {}})


def test_a_wrong_term_is_reported():
    with pytest.raises(UserError, match="Did you mean 'L1Loss'"):
        build_loss({"type": "LearnedWeights", "terms": {"pixel": {"type": "L1Los"}}})


def test_spectroformer_single_branch(golden, recipe, vgg_file):
    d = torch.load(golden("underwater/loss_dual_branch.pt"), weights_only=True)
    r = recipe("underwater/golden_recipe.py")
    weights = vgg_file("vgg19", "conv5_4", lambda k, s: (2**0.5 if k.endswith("weight") else 0.1) * r.fill(k, s, 5))
    terms = {**FOUR, "perceptual": {**FOUR["perceptual"], "weights": weights}}
    loss = set_weights(build_loss({"type": "LearnedWeights", "terms": terms}), d["raw4"])
    target = r.smooth_image("dt", d["shape"], d["seed"])
    pred = (target + r.normal("dl", d["shape"], d["seed"], 0.1)).requires_grad_()
    parts = loss(pred, target)
    shares = d["raw4"].flatten().softmax(dim=0).tolist()
    expected = dict(zip(terms, (p * c for p, c in zip(shares, d["components_L"], strict=True)), strict=True))
    assert {k: v.item() for k, v in parts.items()} == pytest.approx(expected, rel=1e-4)
    assert sum(parts.values()).item() == pytest.approx(d["single_branch_total"], rel=1e-5)
    # the stored gradient is of the two-branch total, in which this branch has the first of two shares
    (sum(parts.values()) * d["raw2"].flatten().softmax(dim=0)[0]).backward()
    assert float(pred.grad.norm()) == pytest.approx(d["grad_L_norm"], rel=1e-4)
    # Not elementwise: ReLU, max pooling and L1 choose sides by rounding, which differs between CPUs and versions.
    stored = d["grad_L_stride16"]
    assert (pred.grad[..., ::16, ::16] - stored).norm() < 0.01 * stored.norm()


def test_spectroformer_two_branches_share_their_weights(golden):
    d = torch.load(golden("underwater/loss_dual_branch.pt"), weights_only=True)
    x = torch.zeros(1)
    terms = LearnedWeights({n: Fixed(v) for n, v in zip(FOUR, d["components_L"], strict=True)}, learn=True)
    set_weights(terms, d["raw4"])
    low = sum(terms(x, x).values())
    for term, value in zip(terms.terms.values(), d["components_H"], strict=True):
        term.value = torch.tensor(value)
    high = sum(terms(x, x).values())
    branches = LearnedWeights({"low": Fixed(0.0), "high": Fixed(0.0)}, learn=True)
    set_weights(branches, d["raw2"])
    branches.terms["low"].value, branches.terms["high"].value = low, high
    total = sum(branches(x, x).values())
    total.backward()
    assert total.item() == pytest.approx(d["total"]["value"], rel=1e-5)
    torch.testing.assert_close(terms.weights.grad, d["raw4_grad_if_it_were_trained"].flatten(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(branches.weights.grad, d["raw2_grad_if_it_were_trained"].flatten(), rtol=1e-4, atol=1e-6)
