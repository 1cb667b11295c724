"""A real pair of views, and the view between them by measured depth: a check on real pictures that needs no download."""

from __future__ import annotations

import numpy as np
import torch

from ..core.errors import UserError
from ..core.imaging.image_io import read_pixels, to_float
from ..core.imaging.opencv import cv2
from . import DATASETS
from .base import ImageDataset, Item
from .shipped import shipped
from .transforms import Image, resize, to_tensor

NAMES = ("motorcycle_left.png", "motorcycle_right.png", "motorcycle_disp.npz")
"""Left and right view and the left one's disparities, from Middlebury's 2014 stereo set, in the scikit-image wheel."""


@DATASETS.register()
class StereoMotorcycleDataset(ImageDataset):
    """The motorcycle of Middlebury's 2014 stereo set (Scharstein et al., GCPR 2014), seen from left, right, and half-way.

    The camera moves sideways by its baseline, so that a point at disparity d moves by d pixels: 7 to 60 of them at full size,
    proportionally fewer when shrunk. Nobody took the picture half-way. ``gt`` is made from both views by the measured
    disparities, and of what no measurement covers from the background beside it. It is a reference for a sanity check, whose
    own errors bound every score, and no ground truth. The left view is among the photographs on which
    `SyntheticMotionDataset` trains.

    Args:
        shorter_side: the views are first shrunk until their shorter side has so many pixels, of 500.
    """

    score_rounding = "none"

    def __init__(self, shorter_side: int = 125) -> None:
        super().__init__()
        if not 16 <= shorter_side <= 500:
            raise UserError(f"shorter_side: must be between 16 and 500, the views' height, not {shorter_side}")
        self.paths = [shipped(name) for name in NAMES]
        self.shorter_side = shorter_side

    def __len__(self) -> int:
        return 1

    def load(self, index: int) -> Item:
        left, right = (to_float(read_pixels(path)) for path in self.paths[:2])
        with np.load(self.paths[2], allow_pickle=False) as file:
            disparity = file["arr_0"]
        middle = view_between(left, right, disparity)
        width = round(left.shape[1] * self.shorter_side / left.shape[0])
        first, last, gt = (to_tensor(resize(image, self.shorter_side, width)) for image in (left, right, middle))
        return {
            "img0": first,
            "img1": last,
            "gt": gt,
            "timestep": torch.tensor(0.5),
            "img0_path": str(self.paths[0]),
            "gt_path": str(self.paths[0].with_name("motorcycle_middle.png")),
        }


def view_between(left: Image, right: Image, disparity: np.ndarray) -> Image:
    """The view half-way between two rectified ones.

    Args:
        left: (H, W, 3) float32.
        right: the same; the left view's point x is at x - disparity here.
        disparity: (H, W) in pixels; what is not finite was not measured.

    Returns:
        (H, W, 3): the mean of both views at corresponding points; where they differ by more than 0.1 (one of them is hidden
        from), the one that looks like the background's side is taken: left of a near thing the left view, else the right one.
    """
    height, width = disparity.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    known = np.isfinite(disparity)
    target = np.rint(columns - np.where(known, disparity, 0) / 2).astype(int)
    inside = known & (target >= 0) & (target < width)
    landed = np.full((height, width), -np.inf, np.float32)
    # The largest disparity is the nearest thing, which hides what else lands there.
    np.maximum.at(landed, (rows[inside].astype(int), target[inside]), disparity[inside])
    half = np.asarray(cv2.medianBlur(fill(landed), 5))  # stray measurements stand alone
    seen_left = cv2.remap(left, columns + half / 2, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    seen_right = cv2.remap(right, columns - half / 2, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    hidden = np.abs(seen_left - seen_right).max(axis=2) > 0.1
    nearer_on_the_right = np.roll(half, -8, axis=1) > np.roll(half, 8, axis=1)
    one_sided = np.where(nearer_on_the_right[..., None], seen_left, seen_right)
    result: Image = np.where(hidden[..., None], one_sided, (seen_left + seen_right) / 2)
    return result


def fill(disparity: np.ndarray) -> np.ndarray:
    """Each row's gaps (-inf) by the smaller of the values on both sides: the background's."""
    before, after = disparity.copy(), disparity.copy()
    for x in range(1, disparity.shape[1]):
        before[:, x] = np.where(np.isfinite(before[:, x]), before[:, x], before[:, x - 1])
        after[:, -1 - x] = np.where(np.isfinite(after[:, -1 - x]), after[:, -1 - x], after[:, -x])
    both = np.minimum(np.where(np.isfinite(before), before, np.inf), np.where(np.isfinite(after), after, np.inf))
    return np.where(np.isfinite(disparity), disparity, np.where(np.isfinite(both), both, 0)).astype(np.float32)
