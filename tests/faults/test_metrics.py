"""Images that metrics must not score as if nothing were: with alpha, without finite values, partly black."""

from __future__ import annotations

import inspect
import math
import re
from typing import Any

import numpy as np
import pytest

from relume.core.errors import UserError
from relume.core.metrics import METRICS, calculate_metric, fog, metric_space, scores_sets
from relume.core.metrics.hdr import calculate_pu21_ssim
from relume.core.options import docstrings

METRICS.names()
OF_IMAGES = [
    n for n in METRICS.names() if n.startswith("calculate_") and not scores_sets(n) and metric_space(n) != "clip"
]
Y_TOO = [n for n in OF_IMAGES if "test_y_channel" in inspect.signature(METRICS.get(n)).parameters]
FULL = [n for n in OF_IMAGES if "img2" in inspect.signature(METRICS.get(n)).parameters]
LEARNED = ("calculate_lpips", "calculate_dists")
BGRA = [n for n in OF_IMAGES if n not in (*LEARNED, "calculate_epe", "calculate_fl_all")]


def photograph(side: int = 200, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.random((side // 8 + 1, side // 8 + 1, 3))
    smooth = np.kron(coarse, np.ones((8, 8, 1)))[:side, :side]
    return (255 * (0.8 * smooth + 0.2 * rng.random((side, side, 3)))).astype(np.uint8)


def score(name: str, img: np.ndarray, img2: np.ndarray, **options: Any) -> float:
    return calculate_metric({"img": img, "img2": img2}, {"type": name, **options})


@pytest.mark.parametrize(
    ("name", "options"), [*((n, {}) for n in BGRA), *((n, {"test_y_channel": True}) for n in Y_TOO)], ids=str
)
def test_alpha_is_left_out(name: str, options: dict[str, Any]) -> None:
    pair = photograph(), photograph(seed=1)
    alphas = (np.random.default_rng(i).integers(0, 256, (200, 200, 1), dtype=np.uint8) for i in (2, 3))
    with_alpha = [np.concatenate([image, alpha], axis=2) for image, alpha in zip(pair, alphas, strict=True)]
    assert score(name, *with_alpha, **options) == score(name, *pair, **options)


@pytest.mark.parametrize(("name", "which"), [*((n, 0) for n in BGRA), *((n, 1) for n in FULL if n in BGRA)], ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_what_is_not_finite_has_no_finite_score(name: str, value: float, which: int) -> None:
    pair = [photograph() / np.float32(255), photograph(seed=1) / np.float32(255)]
    pair[which][3, 5, 1] = value
    try:
        assert math.isnan(score(name, *pair))
    except UserError as e:
        assert "NaN or infinite" in str(e)


def test_black_areas_do_not_count_as_fog() -> None:
    clear = photograph(64).astype(float)
    half = np.concatenate([clear, np.zeros_like(clear)])
    assert fog.fog_density(half) == pytest.approx(fog.fog_density(clear), rel=0.2)
    features = fog.patch_features(np.concatenate([clear, np.zeros((16, 64, 3))]))
    assert np.isnan(features[-8:]).any(axis=1).all()  # wholly black patches, away from the border
    assert math.isnan(fog.fog_density(np.zeros((32, 32, 3))))


def test_uiqm_takes_no_colour_cast_for_contrast() -> None:
    flat = np.full((80, 80, 3), (160, 150, 20), np.uint8)  # BGR
    assert score("calculate_uiqm", flat, flat) == pytest.approx(-0.113, abs=1e-3)
    assert score("calculate_uiqm_funie", flat, flat) == pytest.approx(0.585, abs=1e-3)


def test_pu21_ssim_of_matlab_counts_the_border() -> None:
    from skimage.metrics import structural_similarity

    from relume.core.imaging.transfer import PU21
    from relume.core.metrics.hdr import luminance

    x, y = (photograph(40, seed) / 255.0 * 1000 for seed in (0, 1))
    units = [PU21().units(luminance(image[..., ::-1] / 1000)[..., 0] * 4000) for image in (x, y)]
    # Far enough beyond the border that the window there sees repeated pixels only, as Matlab's does.
    continued = [np.pad(u, 5, mode="edge") for u in units]
    options = {"gaussian_weights": True, "use_sample_covariance": False, "data_range": 256, "full": True}
    expected = structural_similarity(*continued, sigma=1.5, **options)[1][5:-5, 5:-5].mean()
    assert calculate_pu21_ssim(x, y, matlab=True) == pytest.approx(expected, abs=1e-9)


def test_the_forks_msssim_of_opposites_is_a_number() -> None:
    x = photograph(64) / 255.0 * 1000
    assert calculate_metric({"img": x, "img2": 1000 - x}, {"type": "calculate_pu21_msssim_fork"}) == pytest.approx(0.0)


def test_radiance_is_not_raised_to_a_display_gamma_in_an_evaluation() -> None:
    from relume.core.imaging.transfer import MuLaw
    from relume.core.metrics.scoring import Scorer

    blocks = {"own": {"type": "calculate_psnr_mu_ntire"}, "said": {"type": "calculate_psnr_mu_ntire", "gamma": 2.24}}
    scorer = Scorer(blocks, {"a": []}, transfers={"a": MuLaw()})
    assert scorer._options(blocks["own"], MuLaw())["gamma"] == 1.0
    assert scorer._options(blocks["said"], MuLaw())["gamma"] == 2.24


# ------------------------------------------------------------------ what docstrings say is tried
FACTS = re.compile(r"Paper: (.+?) Constants: (.+?) Input: (.+?) Least size: (\d+)(?:x(\d+))? (?:pixel|columns)")


def facts(name: str) -> tuple[str, ...]:
    found = FACTS.search(" ".join((inspect.getdoc(METRICS.get(name)) or "").split()))
    assert found, f"the docstring of {name} does not say paper, constants, input and least size"
    return tuple(found.groups())


@pytest.mark.parametrize("name", OF_IMAGES)
def test_docstrings_say_what_is_scored(name: str) -> None:
    assert docstrings.facts(METRICS.get(name)).startswith("Paper: ")
    paper, constants, given, least, other = facts(name)
    assert re.search(r"\b(19|20)\d\d\b", paper) and constants and given
    channels = {
        1: "gray" in given or "any channels" in given,
        3: True,
        6: "6 channels" in given or "any channels" in given,
    }
    if "flow" in given:
        channels = {2: True}
    if (
        name in LEARNED
    ):  # building its network takes seconds; tests/core/metrics/test_lpips.py and test_dists.py try small images
        return
    width = int(other or least)

    def scored(channels: int, height: int, width: int) -> float | None:
        noise = np.random.default_rng(0).random((2, height, width, channels))
        pair = noise if channels == 2 else (255 * noise).astype(np.uint8)
        try:
            return score(name, pair[0], pair[1])
        except UserError:
            return None

    for count, takes in channels.items():
        found = scored(count, 2 * width if count == 1 else int(least), width)
        if count != 6 or takes:
            assert (found is not None and math.isfinite(found)) == takes, (count, found)
    if int(least) > 1:
        assert scored(3, int(least), width - 1) is None


@pytest.mark.parametrize("name", [n for n in METRICS.names() if scores_sets(n)])
def test_docstrings_say_which_sets_are_scored(name: str) -> None:
    said = " ".join((inspect.getdoc(METRICS.get(name)) or "").split())
    assert re.search(
        r"Paper: .+(19|20)\d\d\. Constants: .+\. Input: .+\. Least size: .+ images; fewer are an error\.", said
    )


@pytest.mark.parametrize("channels", [2, 5, 6])
def test_what_has_no_brightness_is_refused(channels: int) -> None:
    pair = [np.concatenate([photograph(), photograph(seed=1)], axis=2)[..., :channels] for _ in "ab"]
    asked: list[tuple[str, dict[str, Any]]] = [("calculate_niqe", {}), ("calculate_niqe", {"convert_to": "gray"})]
    for name, options in [*asked, ("calculate_mae", {"test_y_channel": True})]:
        with pytest.raises(UserError, match="channels"):
            score(name, *pair, **options)
