"""Tone mapping: exposure, invariance to the unit, one curve for several images."""

from __future__ import annotations

import numpy as np
from filling import image

from relume.core.imaging.srgb import to_linear, to_srgb
from relume.core.imaging.tonemap import tone_mapped


def scene() -> np.ndarray:
    """Linear RGB over five orders of magnitude."""
    return 1e5 ** (image("scene", 1, 3, 20, 24)[0].permute(1, 2, 0).numpy() - 1)


def test_the_unit_of_radiance_does_not_matter():
    once, thousand = (tone_mapped({"a": k * scene()}, "a")["a"] for k in (1.0, 1000.0))
    assert once.dtype == np.uint8 and np.abs(once.astype(int) - thousand).max() <= 1


def test_middle_grey_and_white():
    grey = np.full((9, 9, 3), 7.0, np.float32)
    grey[0, 0] = 7e3
    shown = tone_mapped({"a": grey}, "a")["a"]
    light = to_linear(shown / 255)
    assert light[0, 0, 0] > 0.99
    assert 0.1 < light[4, 4, 0] < 0.2, "18 %, compressed to 18 / 118, a little less for the one bright pixel"


def test_brighter_is_brighter_and_nothing_wraps_around():
    ramp = np.repeat(1e5 ** np.linspace(0, 1, 200, dtype=np.float32)[None, :, None], 3, axis=2)
    shown = tone_mapped({"a": ramp}, "a")["a"].astype(int)
    assert (np.diff(shown, axis=1) >= 0).all() and shown[0, 0, 0] < 20 and shown[0, -1, 0] == 255


def test_images_are_shown_under_one_curve():
    truth = scene()
    shown = tone_mapped({"target": truth, "output": 0.5 * truth, "same": truth.copy()}, "target")
    assert np.array_equal(shown["target"], shown["same"])
    assert shown["output"].mean() < shown["target"].mean() - 5
    assert np.array_equal(shown["target"], tone_mapped({"target": truth}, "target")["target"])


def test_black_and_gray_images():
    assert not tone_mapped({"a": np.zeros((4, 5, 3), np.float32)}, "a")["a"].any()
    gray = tone_mapped({"a": scene()[..., :1]}, "a")["a"]
    assert gray.shape == (20, 24, 1)


def test_srgb_curve():
    x = np.linspace(0, 1, 101)
    assert np.allclose(to_srgb(to_linear(x)), x, atol=1e-7)
    assert abs(float(to_linear(np.array(0.5))) - 0.2140411) < 1e-6
