"""`calculate_metric`: selecting a metric by name, and what all metrics have in common."""

import math
from typing import Any

import addict
import numpy as np
import pytest

from relume.core.errors import UserError
from relume.core.metrics import (
    METRICS,
    calculate_metric,
    metric,
    metric_direction,
    metric_space,
    needs_reference,
    scores_sets,
)

IMAGES = dict(zip(("img", "img2"), np.random.default_rng(0).integers(0, 256, (2, 24, 20, 3), np.uint8), strict=True))
OURS = [name for name in METRICS if METRICS.get(name).__module__.startswith("relume.core.metrics.")]
OF_SETS = [name for name in OURS if scores_sets(name)]
OF_IMAGES = [name for name in OURS if name not in OF_SETS and metric_space(name) not in ("flow", "clip")]


def test_plain_and_parsed_options_and_aliases_agree():
    plain = calculate_metric(IMAGES, {"type": "calculate_psnr", "crop_border": 2})
    assert calculate_metric(IMAGES, addict.Dict(type="calculate_psnr", crop_border=2, better="higher")) == plain
    assert calculate_metric(IMAGES, {"type": "psnr", "crop_border": 2}) == plain
    assert isinstance(plain, float)


def test_directions():
    assert metric_direction("calculate_psnr") == metric_direction("ssim") == "higher"
    with pytest.raises(UserError, match=r"no metric is called 'psnrr'\. Did you mean 'psnr'"):
        metric_direction("psnrr")


def test_every_metric_says_which_is_better_and_has_documented_options():
    for name in OURS:
        function = METRICS.get(name)
        assert function.better in ("higher", "lower")
        assert f"{function.better.capitalize()} is better." in function.__doc__
        assert METRICS.aliases(name)
        options = METRICS.parameters(name).items()
        assert all(p.annotation is not Any and (not p.required or k == "features") for k, p in options)


@pytest.mark.parametrize("name", OF_SETS)
def test_metrics_of_sets_do_not_score_single_images(name):
    with pytest.raises(UserError, match=f"^{name} scores whole sets of images"):
        calculate_metric(IMAGES, {"type": name})


def test_a_users_metric_without_reference():
    try:

        @metric("lower", "mean_of_test")
        def calculate_mean_of_test(img: np.ndarray, gain: float = 1.0) -> float:
            """Mean value."""
            return gain * float(img.mean())

        assert not needs_reference("mean_of_test")
        assert needs_reference("psnr")
        assert metric_direction("mean_of_test") == "lower"
        data = {"img": np.full((2, 2), 3.0), "img2": np.zeros((2, 2)), "lq": None}
        assert calculate_metric(data, {"type": "mean_of_test", "gain": 2}) == 6.0
    finally:
        METRICS._members.pop("calculate_mean_of_test", None)
        METRICS._aliases.pop("mean_of_test", None)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (IMAGES, {"crop_border": 4}, "need a 'type'"),
        (IMAGES, {"type": "calculate_psrn"}, "Did you mean 'calculate_psnr'"),
        (IMAGES, {"type": "psnr", "crop_boarder": 4}, "unknown key 'crop_boarder' in psnr. Did you mean 'crop_border'"),
        ({"img": IMAGES["img"]}, {"type": "psnr"}, "psnr lacks img2"),
        ({"img": IMAGES["img"], "img2": None}, {"type": "psnr"}, "psnr lacks img2"),
        ({}, {"type": "psnr"}, "psnr lacks img and img2"),
    ],
)
def test_mistakes(data, options, message):
    with pytest.raises(UserError, match=message):
        calculate_metric(data, options)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_degenerate_images_give_a_number_or_one_line(name):
    extra = {}
    if name == "calculate_lpips":
        pytest.importorskip("lpips")
        extra = {"weights": "random"}
    if name == "calculate_dists":
        pytest.skip("needs published weights; tests/losses/test_dists.py")
    scored = 0
    for side in (1, 2, 12, 70, 192):
        for values in ((0, 0), (255, 255), (0, 255), (90, 90)):
            img, img2 = (np.full((side, side, 3), value, np.uint8) for value in values)
            try:
                score = calculate_metric({"img": img, "img2": img2}, {"type": name, **extra})
            except UserError as e:
                assert str(e).startswith("calculate_")
                assert "\n" not in str(e)
                assert side < 192
            else:
                black = name == "calculate_ccf" and values[0] == 0  # in which no patch has a fog density
                assert not math.isnan(score) or black or name == "calculate_niqe", (
                    "NIQE needs texture in two large blocks"
                )
                scored += 1
    assert scored >= 4
