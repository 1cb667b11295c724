"""Crops and flips of BasicSR's data sets: of arrays (H, W, C) or tensors (C, H, W), one or several alike."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from torch import Tensor

from ...imaging.opencv import cv2

Images = Any


def mod_crop(img: np.ndarray, scale: int) -> np.ndarray:
    """An image (H, W) or (H, W, C) cut to multiples of `scale`.

    Raises:
        ValueError: the image has neither two nor three dimensions.
    """
    if img.ndim not in (2, 3):
        raise ValueError(f"Wrong img ndim: {img.ndim}.")
    height, width = img.shape[:2]
    return np.array(img[: height - height % scale, : width - width % scale])


def _size(image: Any) -> tuple[int, int]:
    height, width = image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2]
    return int(height), int(width)


def _cut(image: Any, top: int, left: int, height: int, width: int) -> Any:
    if isinstance(image, Tensor):
        return image[..., top : top + height, left : left + width]
    return image[top : top + height, left : left + width, ...]


def paired_random_crop(
    img_gts: Images, img_lqs: Images, gt_patch_size: int, scale: int, gt_path: str | None = None
) -> tuple[Images, Images]:
    """Patches of `gt_patch_size` from the one and the same place, on the pixel grid of the smaller images, of the others.

    Raises:
        ValueError: sizes do not differ by `scale`, or smaller than the patch.
    """
    return paired_random_crop_hw(img_gts, img_lqs, gt_patch_size, gt_patch_size, scale, gt_path)


def paired_random_crop_hw(
    img_gts: Images,
    img_lqs: Images,
    gt_patch_size_h: int,
    gt_patch_size_w: int,
    scale: int,
    gt_path: str | None = None,
) -> tuple[Images, Images]:
    """As `paired_random_crop`, of patches that are not square.

    Raises:
        ValueError: the images' sizes do not belong together, or are smaller than the patch.
    """
    gts = img_gts if isinstance(img_gts, list) else [img_gts]
    lqs = img_lqs if isinstance(img_lqs, list) else [img_lqs]
    height, width = _size(lqs[0])
    rows, columns = gt_patch_size_h // scale, gt_patch_size_w // scale
    if _size(gts[0]) != (height * scale, width * scale):
        raise ValueError(f"Scale mismatches. GT {_size(gts[0])} is not {scale}x multiplication of LQ {height, width}.")
    if height < rows or width < columns:
        raise ValueError(f"LQ {height, width} is smaller than patch size ({rows}, {columns}). Please remove {gt_path}.")
    top, left = random.randint(0, height - rows), random.randint(0, width - columns)  # noqa: S311
    lqs = [_cut(image, top, left, rows, columns) for image in lqs]
    gts = [_cut(image, top * scale, left * scale, gt_patch_size_h, gt_patch_size_w) for image in gts]
    return (gts[0] if len(gts) == 1 else gts), (lqs[0] if len(lqs) == 1 else lqs)


def paired_random_crop_DP(  # noqa: N802
    img_lqLs: Images, img_lqRs: Images, img_gts: Images, gt_patch_size: int, scale: int, gt_path: str | None = None
) -> tuple[Images, Images, Images]:
    """As `paired_random_crop`, of two views and a ground truth: left, right, ground truth."""
    truth, views = paired_random_crop(img_gts, [img_lqLs, img_lqRs], gt_patch_size, scale, gt_path)
    return views[0], views[1], truth


def augment(
    imgs: Images, hflip: bool = True, rotation: bool = True, flows: Images = None, return_status: bool = False
) -> Any:
    """Images (H, W, C), and flows (H, W, 2), flipped or turned alike: left to right, upside down, transposed."""
    across = hflip and random.random() < 0.5  # noqa: S311
    down = rotation and random.random() < 0.5  # noqa: S311
    turned = rotation and random.random() < 0.5  # noqa: S311

    def changed(image: np.ndarray) -> np.ndarray:
        image = image[:, ::-1] if across else image
        image = image[::-1] if down else image
        return np.array(image.transpose(1, 0, 2) if turned else image, order="C")

    def changed_flow(flow: np.ndarray) -> np.ndarray:
        signs = np.array([-1 if across else 1, -1 if down else 1], flow.dtype)
        moved = changed(flow) * signs
        return np.asarray(moved[..., ::-1] if turned else moved)

    images = [changed(i) for i in (imgs if isinstance(imgs, list) else [imgs])]
    found: Any = images[0] if len(images) == 1 else images
    if flows is not None:
        moved = [changed_flow(f) for f in (flows if isinstance(flows, list) else [flows])]
        return found, (moved[0] if len(moved) == 1 else moved)
    return (found, (across, down, turned)) if return_status else found


def img_rotate(
    img: np.ndarray, angle: float, center: tuple[float, float] | None = None, scale: float = 1.0
) -> np.ndarray:
    """An image turned by `angle` degrees, counter-clockwise, about `center`."""
    height, width = img.shape[:2]
    matrix = cv2.getRotationMatrix2D(center or (width // 2, height // 2), angle, scale)
    return np.asarray(cv2.warpAffine(img, matrix, (width, height)))


def random_augmentation(*args: np.ndarray) -> list[np.ndarray]:
    """Images (H, W, C) in one of eight orientations, all in the same one, as in Restormer."""
    turns, flipped = random.randint(0, 3), random.random() < 0.5  # noqa: S311
    return [np.ascontiguousarray(np.flipud(t) if flipped else t) for t in (np.rot90(image, turns) for image in args)]
