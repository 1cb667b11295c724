"""core/degradations/scene.py: motion, rain and darkness are what their formulas say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from relume.core.degradations import build_degradation
from relume.core.degradations.draws import Draws
from relume.core.degradations.engines import Engine, OpenCVEngine
from relume.core.degradations.operations import Target
from relume.core.degradations.scene import path_kernel
from relume.core.errors import UserError
from relume.core.imaging.srgb import to_linear, to_srgb


def applied(block: dict[str, Any], image: Tensor, seed: int = 3, engine: Engine | None = None) -> Tensor:
    target = Target((image.shape[-2], image.shape[-1]), 1)
    return build_degradation(block).apply(image, Draws(seed), engine or OpenCVEngine(), target)


def test_a_straight_path_is_a_line_of_its_length() -> None:
    kernel = path_kernel(11, 0.0)
    middle = kernel.shape[0] // 2
    assert np.allclose(kernel.sum(), 1) and np.allclose(kernel[middle].sum(), 1), "nothing leaves the x axis"
    inner = kernel[middle][middle - 4 : middle + 5]
    assert np.allclose(inner, 1 / 11, rtol=0.03), "constant speed: every pixel on the way gets the same light"
    assert np.allclose(path_kernel(11, math.pi / 2), kernel.T, atol=1e-12)
    still = path_kernel(0, 1.2)
    assert still[still.shape[0] // 2, still.shape[0] // 2] == pytest.approx(1)


@pytest.mark.parametrize(("length", "bend"), [(3.0, 0.0), (9.5, 1.0), (20.0, -2.5)])
def test_an_arc_keeps_light_and_has_its_middle_at_the_centre(length: float, bend: float) -> None:
    kernel = path_kernel(length, 0.4, bend)
    assert kernel.shape[0] == kernel.shape[1] and kernel.shape[0] % 2 == 1 and kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1)
    y, x = np.mgrid[: kernel.shape[0], : kernel.shape[0]] - kernel.shape[0] // 2
    chord = length if bend == 0 else 2 * abs(length / bend * math.sin(bend / 2))
    along = x * math.cos(0.4) + y * math.sin(0.4)
    assert abs((kernel * along).sum()) < 0.05
    spread = along[kernel > 1e-3]
    assert spread.max() - spread.min() == pytest.approx(chord, abs=2.5)


def test_motion_leaves_flat_images_as_they_are_and_both_engines_agree() -> None:
    assert torch.allclose(applied({"type": "motion"}, torch.full((3, 40, 44), 0.3)), torch.tensor(0.3), atol=1e-6)
    image = torch.rand(3, 48, 40)
    one, other = (applied({"type": "motion"}, image, engine=e) for e in (OpenCVEngine(), Engine()))
    assert torch.allclose(one, other, atol=1e-5) and not torch.allclose(one, image, atol=0.05)


def test_rain_adds_light_alike_to_all_channels() -> None:
    dark = torch.zeros(3, 64, 64)
    streaks = applied({"type": "rain", "drops": [0.01, 0.01], "brightness": [0.4, 0.4]}, dark)
    assert torch.equal(streaks[0], streaks[1]) and torch.equal(streaks[0], streaks[2])
    image = torch.rand(3, 64, 64)
    both = applied({"type": "rain", "drops": [0.01, 0.01], "brightness": [0.4, 0.4]}, image)
    assert torch.allclose(both, (image + streaks).clamp(0, 1), atol=1e-6)
    assert 0.02 < (streaks[0] > 0.1).float().mean() < 0.3 and streaks.max() <= 1
    assert torch.equal(applied({"type": "rain", "drops": [0.0, 0.0]}, image), image)
    fallen = streaks[0][1:] * streaks[0][:-1]
    across = streaks[0][:, 1:] * streaks[0][:, :-1]
    upright = applied({"type": "rain", "angle": [0, 0]}, dark)[0]
    assert (upright[1:] * upright[:-1]).sum() > 2 * (upright[:, 1:] * upright[:, :-1]).sum()
    assert fallen.sum() > across.sum()


def test_darkness_multiplies_linear_light_and_its_noise_is_the_models() -> None:
    quiet = {"shot": [0.0, 0.0], "read": [0.0, 0.0]}
    image = torch.rand(3, 20, 30)
    expected = to_srgb(to_linear(image.numpy().astype(np.float64)) * 0.1)
    assert np.allclose(applied({"type": "darken", "exposure": [0.1, 0.1], **quiet}, image), expected, atol=1e-5)
    flat = torch.full((3, 200, 200), float(to_srgb(np.float64(0.5))))
    noisy = applied({"type": "darken", "exposure": [0.5, 0.5], "shot": [0.02, 0.02], "read": [0.005, 0.005]}, flat)
    light = to_linear(noisy.numpy().astype(np.float64))
    assert light.mean() == pytest.approx(0.25, abs=2e-4)
    assert light.std() == pytest.approx(math.sqrt(0.02**2 * 0.25 + 0.005**2), rel=0.02)


@pytest.mark.parametrize("kind", ["motion", "rain", "darken"])
def test_a_sample_is_a_function_of_its_seed(kind: str) -> None:
    image = torch.rand(3, 32, 32)
    first, again, other = (applied({"type": kind}, image, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"type": "rain", "drops": [0.5, 1.5]}, "drops: must be a range .* within"),
        ({"type": "motion", "length": [9, 3]}, "length: must be a range"),
        ({"type": "darken", "exposure": [0, 1]}, "exposure: must be a range .* both positive"),
    ],
)
def test_mistakes_are_refused(block: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_degradation(block)
