"""Gaussian denoising data."""

from __future__ import annotations

import pytest
import torch

from relume.core.errors import UserError
from relume.datasets import build_dataset
from relume.datasets.loading.worker import seeded


@pytest.fixture
def clean(tmp_path, write_images):
    write_images(tmp_path / "clean", {f"{i}": (60, 70) for i in range(3)})
    return {"type": "Dataset_GaussianDenoising", "dataroot_gt": str(tmp_path / "clean"), "dataroot_lq": "none"}


def noise(item):
    return item["lq"] - item["gt"]


def test_training_noise_has_the_level_asked_for(clean):
    constant = build_dataset({**clean, "sigma_range": 50, "gt_size": 48, "geometric_augs": True}, phase="train")
    with seeded(0):
        item = constant[0]
    assert item["gt"].shape == (3, 48, 48)
    assert noise(item).std() * 255 == pytest.approx(50, rel=0.05)

    def levels(kind, levels):
        dataset = build_dataset({**clean, "sigma_type": kind, "sigma_range": levels}, phase="train")
        with seeded(1):
            return [float(noise(dataset[0]).std() * 255) for _ in range(30)]

    drawn = levels("random", [10, 40])
    assert 9 < min(drawn) < 18 and 32 < max(drawn) < 42
    assert {round(level / 15) for level in levels("choice", [15, 30, 60])} == {1, 2, 4}


def test_test_noise_is_fixed(clean):
    dataset = build_dataset({**clean, "sigma_test": 15}, phase="test")
    assert dataset[0]["gt"].shape == (3, 60, 70)
    assert torch.equal(dataset[0]["lq"], dataset[0]["lq"])
    assert torch.allclose(noise(dataset[0]), noise(dataset[1]), atol=1e-6)
    assert noise(dataset[0]).std() * 255 == pytest.approx(15, rel=0.05)


def test_gray_images_and_normalisation(clean):
    colour = build_dataset({**clean, "sigma_test": 0}, phase="val")[0]["gt"]
    gray = build_dataset({**clean, "sigma_test": 0, "in_ch": 1, "mean": [0.5], "std": [0.5]}, phase="val")[0]
    expected = (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] - 0.5) / 0.5
    assert torch.allclose(gray["gt"][0], expected, atol=1e-5)
    assert torch.allclose(gray["lq"], gray["gt"])


def test_small_images_are_continued(clean):
    assert build_dataset({**clean, "gt_size": 64}, phase="train")[0]["lq"].shape == (3, 64, 64)


@pytest.mark.parametrize(("kind", "levels"), [("random", [10]), ("constant", [1, 2]), ("choice", [-1]), ("random", 5)])
def test_levels_that_do_not_suit_their_kind(clean, kind, levels):
    with pytest.raises(UserError, match="does not suit"):
        build_dataset({**clean, "sigma_type": kind, "sigma_range": levels}, phase="train")
