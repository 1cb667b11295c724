"""The view between two views."""

from __future__ import annotations

import numpy as np
import pytest

from relume.core.errors import UserError
from relume.datasets import build_dataset
from relume.datasets.stereo import fill, view_between


def texture(width: int, seed: int = 0) -> np.ndarray:
    import cv2

    coarse = np.random.RandomState(seed).rand(8, width // 8, 3).astype(np.float32)
    return np.clip(cv2.resize(coarse, (width, 32), interpolation=cv2.INTER_CUBIC), 0, 1)


def test_a_flat_wall_moves_by_half_the_disparity():
    wall = texture(96)
    left, right = wall[:, :64], wall[:, 6:70]  # right(x) = left(x + 6)
    middle = view_between(left, right, np.full((32, 64), 6.0, np.float32))
    assert np.abs(middle[:, 8:52] - wall[:, 11:55]).max() < 1e-5


def test_a_near_thing_hides_the_wall_and_each_side_is_taken_from_where_it_is_seen():
    wall, thing = texture(96), np.full((32, 12, 3), [1.0, 0.0, 0.0], np.float32)
    disparity = np.zeros((32, 96), np.float32)
    disparity[:, 40:52] = 16  # the thing, in the left view
    views = {}
    for name, start in (("left", 40), ("middle", 32), ("right", 24)):
        views[name] = wall.copy()
        views[name][:, start : start + 12] = thing
    middle = view_between(views["left"], views["right"], disparity)
    error = np.abs(middle - views["middle"]).max(axis=(0, 2))
    assert error[34:42].max() < 1e-5 and error[:16].max() < 1e-5 and error[60:].max() < 1e-5
    assert error.mean() < 0.05 < np.abs(views["left"] - views["middle"]).mean()


def test_gaps_are_filled_from_behind():
    row = np.array([[-np.inf, 5, -np.inf, -np.inf, 2, -np.inf]], np.float32)
    assert fill(row).tolist() == [[5, 5, 2, 2, 2, 2]]


def test_the_motorcycle():
    item = build_dataset({"type": "StereoMotorcycleDataset"}, phase="val")[0]
    assert all(item[k].shape == (3, 125, 185) for k in ("img0", "img1", "gt"))

    def error(a) -> float:
        return float(((a - item["gt"]) ** 2)[:, :, 20:-20].mean())

    assert error((item["img0"] + item["img1"]) / 2) < error(item["img0"]) < 0.05
    assert item["gt"].mean() == pytest.approx(float(item["img0"].mean()), abs=0.02)
    with pytest.raises(UserError, match="shorter_side: must be between"):
        build_dataset({"type": "StereoMotorcycleDataset", "shorter_side": 600})
