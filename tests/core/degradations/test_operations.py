"""Degradations as a list: registration, order, draws, codecs, and mistakes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from relume.core.degradations import DEGRADATIONS, bsrgan, build_degradation
from relume.core.degradations.codecs import recompress
from relume.core.degradations.draws import Draws
from relume.core.degradations.engines import Engine, OpenCVEngine
from relume.core.degradations.operations import Degradation, DegradationList, Target
from relume.core.errors import UserError


def built(*blocks: dict[str, Any]) -> DegradationList:
    return DegradationList([build_degradation(b) for b in blocks])


class Mark(Degradation):
    """Writes down when it is its turn."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told = name, told

    def apply(self, image: torch.Tensor, draws: Draws, engine: Engine, target: Target) -> torch.Tensor:
        self.told.append(self.name)
        return image


ISSUE = (
    {"type": "blur", "kernel": "aniso"},
    {"type": "resize", "factor": [0.5, 1.0]},
    {"type": "noise"},
    {"type": "compress", "codec": ["jpeg", "webp"], "quality": [30, 95]},
    {"type": "shuffle"},
)


def test_a_list_gives_the_final_size_on_the_8_bit_grid_and_the_same_again() -> None:
    image = torch.rand(3, 48, 60)
    run = built(*ISSUE)
    first, again, other = (run(image, Draws(seed), OpenCVEngine(), 2) for seed in (1, 1, 2))
    assert first.shape == (3, 24, 30)
    assert torch.equal((first * 255).round() / 255, first)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("block", "mean", "worst"),
    [
        *[({"type": "blur", "kernel": k, "size": [7, 9]}, 1e-6, 1e-5) for k in ("iso", "plateau_aniso", "sinc")],
        *[({"type": "resize", "mode": m, "factor": [0.4, 1.6]}, 1e-6, 1e-4) for m in ("area", "bilinear", "bicubic")],
        ({"type": "resize", "mode": "bicubic", "antialias": True}, 1e-6, 1e-5),
        ({"type": "noise", "kind": "gaussian"}, 0, 0),
        ({"type": "noise", "kind": "poisson"}, 0, 0),
        ({"type": "compress", "quality": [30, 95]}, 1 / 255, 4 / 255),
    ],
    ids=lambda v: "-".join(map(str, v.values())) if isinstance(v, dict) else "",
)
def test_both_engines_compute_the_same_operation(block: dict[str, Any], mean: float, worst: float) -> None:
    rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(56.0), indexing="ij")
    smooth = torch.stack([(rows / 7).sin(), (columns / 5).cos(), ((rows + columns) / 9).sin()]) * 0.4 + 0.5
    if block["type"] == "compress":  # libjpeg smooths colours where it enlarges them
        smooth = smooth.mean(0, keepdim=True).expand(3, -1, -1)
    operation = build_degradation(block)
    target = Target((24, 28), 2)
    for seed in range(3):
        a, b = (operation.apply(smooth, Draws(seed), e, target) for e in (OpenCVEngine(), Engine("standard")))
        assert a.shape == b.shape
        assert (a - b).abs().mean() <= mean
        assert (a - b).abs().max() <= worst


def test_shuffle_puts_those_before_it_in_every_order() -> None:
    told: list[str] = []
    shuffle = build_degradation({"type": "shuffle"})
    run = DegradationList([*(Mark(n, told) for n in "abc"), shuffle, Mark("d", told)])
    orders: Counter[str] = Counter()
    for seed in range(600):
        told.clear()
        run(torch.rand(3, 4, 4), Draws(seed), Engine(), 1)
        orders["".join(told)] += 1
    assert {o[-1] for o in orders} == {"d"}
    assert len(orders) == 6
    assert min(orders.values()) > 60


def test_an_operation_more_leaves_the_draws_of_those_before_it() -> None:
    image = torch.rand(3, 32, 32)
    noise = {"type": "noise", "prob": 0.5}
    alone = built(noise)(image, Draws(4), Engine(), 1)
    both = built(noise, {"type": "blur", "prob": 0.0})(image, Draws(4), Engine(), 1)
    assert torch.equal(alone, both)


@pytest.mark.parametrize("engine", [OpenCVEngine(), Engine("standard")], ids=["opencv", "tensor"])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_bsrgan_gives_what_it_should(engine: Engine, scale: int) -> None:
    image = torch.rand(3, 64, 64)
    run = built({"type": "bsrgan"})
    for seed in range(8):
        lq = run(image, Draws(seed), engine, scale)
        assert lq.shape == (3, 64 // scale, 64 // scale)
        assert torch.isfinite(lq).all()
        assert torch.equal(lq, run(image, Draws(seed), engine, scale))


def test_bsrgan_takes_pixels_where_its_gaussian_is_centred() -> None:
    """Of a ramp, every n-th pixel is then the mean of the pixels that it stands for."""
    ramp = (torch.arange(96) / 96).expand(3, 96, 96)
    seed = next(s for s in range(99) if not Draws(s).coin("resized", 0.75))
    for scale in (2, 3, 4):
        taken = bsrgan.shrunk(ramp, Draws(seed), Engine(), scale)
        means = torch.nn.functional.avg_pool2d(ramp[None], scale)[0]
        assert taken.shape == means.shape
        inner = slice(24 // scale, -24 // scale)
        torch.testing.assert_close(taken[..., inner, inner], means[..., inner, inner], atol=1e-3, rtol=0)


def test_bsrgans_draws_follow_its_code() -> None:
    kinds: Counter[str] = Counter()
    gray = torch.full((3, 40, 40), 0.5)
    sizes = []
    for seed in range(300):
        noise = bsrgan.noisy(gray, Draws(seed), Engine(), 5) - 0.5
        equal = torch.equal(noise[0], noise[1]) and torch.equal(noise[0], noise[2])
        related = torch.corrcoef(noise.flatten(1))[0, 1].abs() > 0.1
        kinds["gray" if equal else "coloured" if related else "independent"] += 1
        if Draws(seed).coin("resized", 0.75):
            sizes.append(40 / bsrgan.shrunk(gray, Draws(seed), Engine(), 2).shape[-1])
    assert kinds["gray"] == pytest.approx(120, abs=30)
    assert kinds["coloured"] == pytest.approx(60, abs=25)
    assert kinds["independent"] == pytest.approx(120, abs=30)
    assert np.mean(sizes) == pytest.approx(2.5, abs=0.25)  # the divisor is uniform from 1 to 4, and sizes are whole
    assert 1 <= min(sizes) < 1.2
    assert 3.6 < max(sizes) <= 4.01


def test_coloured_noise_has_the_covariance_of_its_mixing() -> None:
    mixing = bsrgan.mixing(Draws(3))
    noise = Engine().coloured(torch.full((3, 200, 200), 0.5), torch.from_numpy(mixing).float(), Draws(1)) - 0.5
    assert np.allclose(np.cov(noise.flatten(1).numpy()), mixing @ mixing.T, atol=2e-4)


@pytest.mark.parametrize("codec", ["jpeg", "webp", "avif", "h264", "h265"])
def test_codecs_are_nearer_at_higher_quality(codec: Any) -> None:
    if codec == "avif":
        cv2 = pytest.importorskip("cv2")
        if not cv2.haveImageWriter("x.avif"):
            pytest.skip("this OpenCV has no AVIF")
    if codec.startswith("h26"):
        pytest.importorskip("av")
    y, x = np.mgrid[:45, :51]
    pixels = np.stack([(np.sin(x / 3) + 1) * 120, (np.cos(y / 4) + 1) * 120, (x * 5 + y * 3) % 256], -1).astype(
        np.uint8
    )
    errors = []
    for quality in (5, 50, 95):
        result = recompress(pixels, codec, quality)
        assert result.shape == pixels.shape
        assert result.dtype == np.uint8
        errors.append(np.abs(result.astype(float) - pixels).mean())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 12
    assert np.array_equal(recompress(pixels, codec, 50), recompress(pixels, codec, 50))


def test_every_operation_is_documented_and_registered() -> None:
    assert {"blur", "bsrgan", "compress", "noise", "resize", "shuffle"} <= set(DEGRADATIONS.names())


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], "give at least one"),
        ([{"type": "shuffle"}], "needs two operations before it"),
        ([{"type": "blur", "size": (7, 8)}], "size: must be a range .* of odd sizes"),
        ([{"type": "compress", "quality": (0, 50)}], "quality: must be"),
        (
            [{"type": "compress", "codec": ["jpeg", "webp"], "codec_prob": [0.5, 0.4]}],
            "codec_prob: must be probabilities",
        ),
        ([{"type": "noise", "kind": ["gaussian", "poisson"], "kind_prob": [1.0]}], "has 1 probabilities for the 2"),
        ([{"type": "blurr"}], "blur"),
    ],
)
def test_mistakes_are_refused(blocks: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        built(*blocks)


def test_the_tensor_engine_says_that_it_has_no_webp() -> None:
    with pytest.raises(UserError, match="engine: opencv"):
        built({"type": "compress", "codec": "webp"})(torch.rand(3, 16, 16), Draws(0), Engine(), 1)
