"""losses/transport.py: values against POT, gradients against finite differences, and what the sets of features are."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch

from relume.core.errors import UserError
from relume.core.options import check
from relume.losses import LOSSES, build_loss
from relume.losses.local_features import LOCAL_FEATURES

KINDS = ("SinkhornLoss", "FGWLoss", "GWLoss")
EXACT = {"epsilon": 0.3, "patch": 4, "iters": 3000}


def images(seed: int = 0, size: tuple[int, ...] = (2, 3, 16, 12)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(size, generator=generator, dtype=torch.float64) for _ in range(2))


def exact(kind: str, **more: object) -> torch.nn.Module:
    descent = {} if kind == "SinkhornLoss" else {"outer_iters": 300}
    return build_loss({"type": kind, **EXACT, **descent, **more})


def pots(kind: str, x: np.ndarray, y: np.ndarray, alpha: float = 0.5) -> float:
    """POT's value of one image, from its features (n, d)."""
    scale = ot.dist(y, y).mean() / x.shape[1]
    cost = ot.dist(x, y) / x.shape[1] / scale
    a, b = (np.full(len(z), 1 / len(z)) for z in (x, y))
    first, second = (np.sqrt(ot.dist(z, z) / z.shape[1] / scale) for z in (x, y))
    settings = {"numItermax": 3000, "stopThr": 1e-12}
    if kind == "SinkhornLoss":
        plan, alpha = ot.sinkhorn(a, b, cost, EXACT["epsilon"], **settings), 0.0
    elif kind == "GWLoss":
        settings = {"max_iter": 300, "tol": 1e-12}
        plan = ot.gromov.entropic_gromov_wasserstein(first, second, a, b, epsilon=EXACT["epsilon"], **settings)
        alpha = 1.0
    else:
        plan = ot.gromov.entropic_fused_gromov_wasserstein(
            cost, first, second, a, b, epsilon=EXACT["epsilon"], alpha=alpha, max_iter=300, tol=1e-12
        )
    structure = ((first[:, None, :, None] - second[None, :, None, :]) ** 2 * plan[:, :, None, None] * plan).sum()
    entropy = (plan * np.log(plan / np.outer(a, b))).sum()
    return float((1 - alpha) * (plan * cost).sum() + alpha * structure + EXACT["epsilon"] * entropy)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_values_are_pots(kind: str, seed: int) -> None:
    x, y = images(seed)
    features = LOCAL_FEATURES.build({"type": "pixels"})
    expected = np.mean([pots(kind, a.numpy(), b.numpy()) for a, b in zip(features(x, 4), features(y, 4), strict=True)])
    assert exact(kind)(x, y).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("debias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_differences(kind: str, debias: bool) -> None:
    x, y = images(3, (1, 1, 12, 12))
    loss = exact(kind, debias=debias)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x, y), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = 1e-4
    with torch.no_grad():
        difference = (loss(x + step * direction, y) - loss(x - step * direction, y)) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(difference.item(), rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_type_alone_gives_one_scalar(kind: str) -> None:
    loss = build_loss({"type": kind})
    for dtype in (torch.float32, torch.float64):
        x, y = (z.to(dtype).requires_grad_() for z in images(5, (2, 3, 32, 40)))
        value = loss(x, y)
        assert value.shape == () and value.dtype == dtype and value.item() > 0
        (gradient,) = torch.autograd.grad(value, x)
        assert gradient.isfinite().all() and gradient.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_equal_images_lose_nothing_without_bias(kind: str) -> None:
    x, y = images(7, (1, 3, 24, 24))
    loss = exact(kind, debias=True)
    assert loss(y, y).item() == pytest.approx(0, abs=1e-8) and loss(x, y).item() > 1e-5
    flat = torch.full((1, 3, 16, 16), 0.5)
    assert loss(flat, flat).isfinite() and build_loss({"type": kind})(flat, flat).isfinite()


def test_gw_does_not_see_what_keeps_distances() -> None:
    x, _ = images(2, (1, 1, 16, 16))
    assert exact("GWLoss", debias=True)(1 - x, x).item() == pytest.approx(0, abs=1e-6)
    assert exact("SinkhornLoss", debias=True)(1 - x, x).item() > 0.01


def test_the_batch_is_a_mean_and_memory_is_bounded() -> None:
    x, y = images(4, (3, 1, 16, 16))
    loss = exact("FGWLoss")
    alone = [loss(a[None], b[None]) for a, b in zip(x, y, strict=True)]
    torch.testing.assert_close(loss(x, y), torch.stack(alone).mean())
    few = build_loss({"type": "FGWLoss", "patch": 1, "max_points": 50})
    assert few.points(torch.rand(2, 3, 64, 64)).shape == (2, 50, 3)


@pytest.mark.parametrize(
    ("block", "count", "width"),
    [
        ({"type": "pixels"}, 5 * 4, 3 * 64),
        ({"type": "vgg", "weights": "random", "layer": "relu2_2"}, 5 * 4, 128),
        ({"type": "dino", "weights": "random", "input_size": 28}, 6, 384),
    ],
)
def test_sets_of_features(block: dict, count: int, width: int) -> None:
    features = LOCAL_FEATURES.build(block)
    for channels in (1, 3):
        x = torch.rand(2, channels, 40, 32, requires_grad=True)
        found = features(x, 8)
        assert (
            found.shape[0] == 2
            and found.shape[1] == count
            and found.shape[2] == width * (channels if block["type"] == "pixels" else 3) // 3
        )
        assert torch.autograd.grad(found.sum(), x)[0].abs().sum() > 0


def test_an_option_file_selects_features() -> None:
    term = {
        "type": "FGWLoss",
        "loss_weight": 0.1,
        "features": {"type": "pixels"},
        "alpha": 0.5,
        "epsilon": 0.05,
        "patch": 8,
    }
    opt = {
        "name": "x",
        "model_type": "RestorationModel",
        "network_g": {"type": "NAFNet"},
        "train": {"total_iter": 1, "optim_g": {"type": "Adam"}, "fgw_opt": term},
    }
    assert build_loss(check(opt).train.extra["fgw_opt"]).features(torch.rand(1, 1, 8, 8), 8).shape == (1, 1, 64)
    with pytest.raises(UserError, match="Did you mean 'pixels'"):
        check({**opt, "train": {**opt["train"], "fgw_opt": {**term, "features": {"type": "pixel"}}}})


def test_mistakes() -> None:
    with pytest.raises(UserError, match="differ in shape"):
        build_loss({"type": "FGWLoss"})(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 9, 8))
    with pytest.raises(UserError, match="needs images of 1 or 3 channels"):
        build_loss({"type": "GWLoss", "features": {"type": "vgg", "weights": "random"}})(
            *[torch.rand(1, 4, 32, 32)] * 2
        )
    assert "FGWLoss" in LOSSES
