"""DISTS against the original, and that nothing is scored without its weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from adversarial import near, procedural

from relume.core.errors import UserError
from relume.core.metrics import calculate_metric
from relume.losses import build_loss


@pytest.fixture(scope="module")
def cases(golden):
    return torch.load(golden("adversarial/dists.pt"), weights_only=True)["cases"]


def loss_of(case, cases, folder):
    source = next(c for c in cases if c["name"] == case.get("weights_of", case["name"]))
    torch.save({"alpha": source["alpha"], "beta": source["beta"]}, folder / "weights.pt")
    torch.save(procedural(case["procedural"]), folder / "vgg16.pth")
    return build_loss(
        {"type": "DISTSLoss", "weights": str(folder / "weights.pt"), "vgg_weights": str(folder / "vgg16.pth")}
    )


def test_scores_and_gradients_are_the_originals(cases, tmp_path):
    for case in cases:
        loss = loss_of(case, cases, tmp_path)
        x, y = case["inputs"]
        x = x.clone().requires_grad_()
        score = loss.score(x, y)
        assert (score - case["score"]).abs().max() <= case["atol"]
        assert (loss.score(x, x) - case["score_same"]).abs().max() <= case["atol"]
        near(torch.autograd.grad(score.mean(), x)[0], case["input_grad_of_mean"], case["grad_rtol"])
        assert loss(x, y).item() == pytest.approx(case["score"].mean().item(), abs=1e-4)


def test_the_metric_is_the_originals(cases, tmp_path):
    case = cases[0]
    loss_of(case, cases, tmp_path)
    files = {"weights": str(tmp_path / "weights.pt"), "vgg_weights": str(tmp_path / "vgg16.pth")}
    x, y = (image[:1] for image in case["inputs"])

    def score(img, img2, **options):
        return calculate_metric({"img": img, "img2": img2}, {"type": "dists", **files, **options})

    assert score(x, y) == pytest.approx(case["score"][0].item(), abs=case["atol"] + 1e-6)
    assert score(x, x) == pytest.approx(0, abs=1e-6)
    bgr = [image[0].permute(1, 2, 0).flip(-1).numpy() for image in (x, y)]
    assert score(*bgr) == pytest.approx(score(x, y), abs=1e-6)
    # Larger images are first shrunk, as for published figures.
    larger = [F.interpolate(image, (64, 80)) for image in (x, y)]
    shrunk = [F.interpolate(image, (32, 40), mode="bilinear", antialias=True) for image in larger]
    assert score(*larger, shorter_side=32) == pytest.approx(score(*shrunk), abs=1e-5)
    with pytest.raises(UserError, match="needs 3 channels and 16 pixels a side, got 3 of 15x40"):
        score(larger[0][..., :15, :40], larger[1][..., :15, :40])
    with pytest.raises(UserError, match="got 1 of"):
        score(larger[0][:, :1], larger[1][:, :1])


def test_nothing_is_scored_without_the_weights_of_channels(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="dists-pytorch"):
        build_loss({"type": "DISTSLoss", "vgg_weights": "random"})
    torch.save({"alpha": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="1475"):
        build_loss({"type": "DISTSLoss", "weights": str(tmp_path / "other.pt"), "vgg_weights": "random"})


def test_small_or_gray_images_are_refused(tmp_path):
    torch.save({"alpha": torch.ones(1475), "beta": torch.ones(1475)}, tmp_path / "w.pt")
    loss = build_loss({"type": "DISTSLoss", "weights": str(tmp_path / "w.pt"), "vgg_weights": "random"})
    for shape in ((1, 1, 32, 32), (1, 3, 15, 32)):
        with pytest.raises(UserError, match="at least 16 pixels"):
            loss(torch.rand(shape), torch.rand(shape))
