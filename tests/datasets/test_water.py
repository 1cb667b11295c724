"""The image formation model."""

from __future__ import annotations

import numpy as np
import pytest

from relume.datasets.water import JERLOV, Scene, distances, random_water, submerge, to_linear, to_srgb

RANGES = ((2.0, 10.0), (0.5, 8.0), (0.05, 0.5), (0.0, 0.03))


def scene(**changes):
    values = {
        "daylight": np.array([0.2, 1.0, 0.8]),
        "absorption": np.array([0.3, 0.1, 0.2]),
        "scattering": np.array([0.1, 0.2, 0.3]),
        "brightness": 0.5,
        "relief": np.full((5, 5), 3.0, np.float32),
        "noise": 0.0,
    }
    return Scene(**{**values, **changes})


def flat(value, size=(16, 16)):
    return np.full((*size, 3), value, np.float32)


def test_a_uniform_object_follows_the_formula():
    s = scene()
    z = np.full((16, 16), 2.5)
    result = submerge(flat(0.6), z, s, np.random.RandomState(0), 16)
    kept = np.exp(-(s.absorption + 0.08 * s.scattering) * 2.5)
    c = s.absorption + s.scattering
    expected = s.daylight * (to_linear(np.float64(0.6)) * kept + 0.5 * s.scattering / c * (1 - kept))
    assert result.dtype == np.float32
    assert np.allclose(to_linear(result.astype(np.float64)), expected, atol=1e-5)


def test_near_things_show_their_own_light_and_far_ones_the_veil():
    s = scene(daylight=np.ones(3))
    image = np.random.RandomState(0).rand(16, 16, 3).astype(np.float32)
    assert np.allclose(submerge(image, np.full((16, 16), 1e-6), s, np.random.RandomState(0), 16), image, atol=1e-4)
    far = submerge(image, np.full((16, 16), 1e3), s, np.random.RandomState(0), 16)
    veil = to_srgb(0.5 * s.scattering / (s.absorption + s.scattering))
    assert np.allclose(far, veil, atol=1e-4)


def test_scattering_blurs_and_distance_blurs_more():
    edge = flat(0.0, (32, 32))
    edge[:, 16:] = 1.0

    def sharpness(z, **changes):
        result = to_linear(
            submerge(edge, np.full((32, 32), z), scene(brightness=0.0, **changes), np.random.RandomState(0), 256)
        )
        profile = result[16, :, 1]
        return (profile[16] - profile[15]) / profile[-1]

    assert sharpness(3.0, scattering=np.full(3, 1e-9)) == pytest.approx(1.0, abs=1e-3)
    assert 1 > sharpness(1.0) > sharpness(4.0) > sharpness(8.0)


def test_noise_has_the_given_strength():
    noisy = to_linear(
        submerge(flat(0.5, (64, 64)), np.full((64, 64), 1e-6), scene(noise=0.02), np.random.RandomState(0), 64)
    )
    green = noisy[..., 1]
    expected = 0.02 * np.sqrt(to_linear(np.float64(0.5)) + 0.01)
    assert green.std() == pytest.approx(expected, rel=0.05)


def test_red_fades_first_and_turbid_coasts_are_green():
    for name, (red, green, blue) in JERLOV.items():
        if name in ("7C", "9C"):
            assert blue > green  # brown: blue is what goes first
        else:
            assert red > max(green, blue) or name == "5C"
    assert JERLOV["I"][2] < JERLOV["I"][1] and JERLOV["3C"][2] > JERLOV["3C"][1]


def test_scenes_are_plausible_and_reproducible():
    scenes = [random_water(np.random.RandomState(i), list(JERLOV), *RANGES) for i in range(100)]
    for s in scenes:
        assert s.daylight.max() == 1 and s.daylight.min() > 0
        assert 0.49 < s.relief.min() <= s.relief.max() < 8.01
        clearest = np.min(s.absorption + 0.08 * s.scattering)
        assert np.exp(-clearest * s.relief.max()) > 0.13
        assert s.relief[0].mean() >= s.relief[-1].mean() - 1.5
    again = random_water(np.random.RandomState(7), list(JERLOV), *RANGES)
    assert np.array_equal(again.relief, scenes[7].relief) and np.array_equal(again.daylight, scenes[7].daylight)


def test_the_distances_of_a_window_are_those_of_the_whole_image():
    s = scene(relief=np.random.RandomState(0).rand(5, 5).astype(np.float32) + 1)
    whole = distances(s, (40, 60), (0, 0, 40, 60))
    assert whole.shape == (40, 60)
    assert np.allclose(distances(s, (40, 60), (7, 11, 20, 30)), whole[7:27, 11:41], atol=1e-6)
    assert s.relief.min() - 0.3 < whole.min() and whole.max() < s.relief.max() + 0.3


def test_srgb_and_back():
    x = np.linspace(0, 1, 1000)
    assert np.allclose(to_srgb(to_linear(x)), x, atol=1e-12)
    assert to_linear(np.float64(0.5)) == pytest.approx(0.21404114)
