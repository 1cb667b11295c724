"""Images between OpenCV and torch, as BasicSR has them: BGR arrays (H, W, C) outside, RGB tensors (C, H, W) inside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...imaging.opencv import cv2


def img2tensor(imgs: Any, bgr2rgb: bool = True, float32: bool = True) -> Any:
    """Arrays (H, W, C) as tensors (C, H, W), not scaled; a list gives a list."""
    if isinstance(imgs, (list, tuple)):
        return [img2tensor(img, bgr2rgb, float32) for img in imgs]
    image = np.asarray(imgs)
    image = image[..., None] if image.ndim == 2 else image
    if bgr2rgb and image.shape[2] == 3:
        image = image[..., ::-1]
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return tensor.float() if float32 else tensor


def tensor2img(
    tensor: Any, rgb2bgr: bool = True, out_type: type = np.uint8, min_max: tuple[float, float] = (0, 1)
) -> Any:
    """Tensors (C, H, W), (H, W) or (1, C, H, W) as arrays: `min_max` becomes [0, 255] of uint8, or [0, 1] of floats.

    (B, C, H, W) becomes one picture of them all; a list gives a list.
    """
    if isinstance(tensor, (list, tuple)):
        found = [tensor2img(t, rgb2bgr, out_type, min_max) for t in tensor]
        return found[0] if len(found) == 1 else found
    low, high = min_max
    values = (tensor.detach().float().cpu().clamp(low, high) - low) / (high - low)
    if values.dim() == 4 and len(values) > 1:
        from torchvision.utils import make_grid

        values = make_grid(values, nrow=int(math.sqrt(len(values))), normalize=False)
    values = values.squeeze(0) if values.dim() == 4 else values
    image = values.numpy()
    if image.ndim == 3:
        image = image.transpose(1, 2, 0)
        image = image[..., 0] if image.shape[2] == 1 else image[..., ::-1] if rgb2bgr and image.shape[2] == 3 else image
    if out_type is np.uint8:
        image = (image * 255.0).round()
    return np.ascontiguousarray(image.astype(out_type))


def imfrombytes(content: bytes, flag: str = "color", float32: bool = False) -> np.ndarray:
    """The picture in an encoded file: BGR, or gray with the flag ``grayscale``; as it is with ``unchanged``.

    Raises:
        ValueError: OpenCV cannot read the picture.
    """
    flags = {"color": cv2.IMREAD_COLOR, "grayscale": cv2.IMREAD_GRAYSCALE, "unchanged": cv2.IMREAD_UNCHANGED}
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags[flag])
    if image is None:
        raise ValueError("this is no picture that OpenCV reads")
    return image.astype(np.float32) / 255.0 if float32 else np.asarray(image)


def imwrite(img: np.ndarray, file_path: str, params: Sequence[int] | None = None, auto_mkdir: bool = True) -> bool:
    """Write a BGR picture.

    Raises:
        OSError: the file cannot be written.
    """
    if auto_mkdir:
        Path(file_path).absolute().parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(file_path), img, list(params or ())):
        raise OSError(f"{file_path}: cannot be written")
    return True


def crop_border(imgs: Any, crop_border: int) -> Any:
    """Arrays without so many pixels on each side; a list gives a list."""
    if crop_border == 0:
        return imgs
    if isinstance(imgs, (list, tuple)):
        return [img[crop_border:-crop_border, crop_border:-crop_border, ...] for img in imgs]
    return imgs[crop_border:-crop_border, crop_border:-crop_border, ...]


def imfrombytesDP(content: bytes, flag: str = "color", float32: bool = False) -> np.ndarray:  # noqa: N802
    """As `imfrombytes` of a picture in 16 bits, one of two views."""
    image = imfrombytes(content, flag if flag == "grayscale" else "unchanged")
    return image.astype(np.float32) / 65535.0 if float32 else image


def padding(img_lq: np.ndarray, img_gt: np.ndarray, gt_size: int) -> tuple[np.ndarray, np.ndarray]:
    """A pair (H, W, C) mirrored at the right and bottom to at least `gt_size`, as data sets of Restormer and NAFNet do it."""
    lq, gt = _padded([img_lq, img_gt], gt_size)
    return lq, gt


def padding_DP(  # noqa: N802
    img_lqL: np.ndarray, img_lqR: np.ndarray, img_gt: np.ndarray, gt_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `padding`, of two views and a ground truth."""
    left, right, gt = _padded([img_lqL, img_lqR, img_gt], gt_size)
    return left, right, gt


def _padded(images: list[np.ndarray], gt_size: int) -> list[np.ndarray]:
    height, width = images[0].shape[:2]
    down, right = max(0, gt_size - height), max(0, gt_size - width)
    if not (down or right):
        return images

    def padded(image: np.ndarray) -> np.ndarray:
        made = np.asarray(cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REFLECT))
        return made[..., None] if made.ndim == 2 else made

    return [padded(image) for image in images]
