"""Crops, flips, resizing and conversion of images held as (H, W, C) arrays, the same change for all images of a sample."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import UserError, require
from ..core.imaging.image_io import to_float

Color = Literal["y", "gray"] | None
"""Which channels an image is given with: luma, gray, or RGB."""
Image = np.ndarray
"""(H, W, C), integer or float."""


def random_crop(
    images: Sequence[Image], size: int | tuple[int, int], scale: int, path: str, reference: int = -1
) -> list[Image]:
    """One window at a random place: `size` pixels of the reference image, and the same area of the others.

    Args:
        images: images of one view, their sizes in exact proportion.
        size: side, or height and width, in the reference image's pixels, multiples of `scale`.
        scale: size of the reference image / size of the smallest; windows begin at multiples of it.
        path: path of the reference image, for messages.
        reference: index of the reference image; usually the ground truth, which is last.

    Raises:
        UserError: the patch does not fit.
    """
    height, width = images[reference].shape[:2]
    rows, columns = (size, size) if isinstance(size, int) else size
    if height < rows or width < columns:
        raise UserError(too_small(path, (height, width), size))
    top = scale * random.randint(0, (height - rows) // scale)  # noqa: S311
    left = scale * random.randint(0, (width - columns) // scale)  # noqa: S311

    def window(image: Image) -> Image:
        y, x, h, w = (n * image.shape[0] // height for n in (top, left, rows, columns))
        return image[y : y + h, x : x + w]

    return [window(image) for image in images]


def too_small(path: str, size: tuple[int, int], patch: int | tuple[int, int]) -> str:
    """The message for an image smaller than the training patch."""
    wanted = f"gt_size {patch}" if isinstance(patch, int) else f"{patch[0]}x{patch[1]}"
    return (
        f"{path}: is {size[0]}x{size[1]} pixels (height x width), smaller than the patch {wanted}. "
        "Lower gt_size (or gt_sizes), or remove the image"
    )


def pad_to_patch(
    images: Sequence[Image],
    size: int,
    scale: int,
    reference: int = -1,
    mode: Literal["symmetric", "reflect"] = "symmetric",
) -> list[Image]:
    """Reflect images on their right and bottom until a patch of `size` fits; arguments as for `random_crop`.

    The last line is repeated (``symmetric``, OpenCV's BORDER_REFLECT) or not (``reflect``, BORDER_REFLECT_101).
    """
    height, width = images[reference].shape[:2]
    down, right = (scale * max(0, -(-(size - side) // scale)) for side in (height, width))

    def pad(image: Image) -> Image:
        bottom, side = (n * image.shape[0] // height for n in (down, right))
        return np.pad(image, ((0, bottom), (0, side), (0, 0)), mode=mode)

    return [pad(image) for image in images]


def random_flip_rotate(images: Sequence[Image], hflip: bool, rotate: bool, vflip: bool = False) -> list[Image]:
    """BasicSR's augmentation: horizontal flip; vertical flip and transposition (together: rotations); each at 1/2.

    NAFNet's `vflip` is the vertical flip without the transposition.
    """
    changed = list(images)
    if hflip and random.random() < 0.5:  # noqa: S311
        changed = [image[:, ::-1] for image in changed]
    if (rotate or vflip) and random.random() < 0.5:  # noqa: S311
        changed = [image[::-1] for image in changed]
    if rotate and random.random() < 0.5:  # noqa: S311
        changed = [image.transpose(1, 0, 2) for image in changed]
    return changed


def random_symmetry(images: Sequence[Image]) -> list[Image]:
    """Restormer's ``geometric_augs``: one of the eight symmetries of the square, all equally likely."""
    choice = random.randint(0, 7)  # noqa: S311
    turned = [np.rot90(image, choice // 2) for image in images]
    return [image[::-1] for image in turned] if choice % 2 else turned


def resize(image: Image, height: int, width: int) -> Image:
    """Bilinear resizing with antialiasing, as torchvision's ``Resize`` does it to a PIL image.

    8-bit images stay 8-bit and go through PIL itself, so that they equal it exactly; others become float32.
    """
    if image.shape[:2] == (height, width):
        return image
    if image.dtype == np.uint8:
        pil = require("PIL.Image", "resize", "pip install pillow")
        return np.asarray(pil.fromarray(np.ascontiguousarray(image)).resize((width, height), pil.Resampling.BILINEAR))
    planes = to_tensor(image)[None]
    smaller = F.interpolate(planes, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(smaller[0].numpy().transpose(1, 2, 0))


def luma(image: Image) -> Image:
    """(H, W, 3) RGB in [0, 1] to (H, W, 1): Y of ITU-R BT.601 in [16/255, 235/255], as Matlab's rgb2ycbcr gives it."""
    weights = np.array([65.481, 128.553, 24.966], np.float32) / 255
    return (image @ weights + np.float32(16 / 255))[..., None]


GRAY = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R BT.601, full swing: what gray means to OpenCV and PIL."""


def gray(image: Image) -> Image:
    """(H, W, 3) RGB in [0, 1] to (H, W, 1): its luma in [0, 1], which of a gray image is its value exactly."""
    first = image[..., :1]
    return first if (image == first).all() else (image @ GRAY)[..., None]


CHANNELS = {"y": luma, "gray": gray}
"""What is made of RGB where one channel is asked for."""


def with_channels(image: Image, color: Color) -> Image:
    """(H, W, 3 n), n images in RGB, as (H, W, n) float32 of what `color` names; as it is where that is None."""
    if color is None:
        return image
    of = CHANNELS[color]
    return np.concatenate([of(to_float(image[..., c : c + 3])) for c in range(0, image.shape[-1], 3)], axis=-1)


def to_tensor(image: Image) -> Tensor:
    """(C, H, W) float32; integers are scaled to [0, 1] by their type's range."""
    return torch.from_numpy(np.ascontiguousarray(to_float(image).transpose(2, 0, 1)))
