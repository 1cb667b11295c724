"""What every metric does first: take an image as it comes, and give it as RGB in [0, 255].

Images are

- numpy arrays, (H, W), (H, W, C), or (C, H, W) with ``input_order: CHW``. Three channels are taken to be BGR, as OpenCV
  reads them and BasicSR passes them, unless ``color_order: rgb`` says otherwise. A fourth channel is alpha, and left out. Six
  channels are two views of three, as stereo networks make them;
- torch tensors, (C, H, W) or (1, C, H, W), taken to be RGB unless ``color_order: bgr`` says otherwise.

Values are

- uint8, spanning [0, 255], or uint16, spanning [0, 65535];
- floats, spanning [0, 1], and free to overshoot; or [0, 255], as BasicSR's scripts pass them. The reference decides: if it
  (the image itself, for a metric without reference) nowhere exceeds 2, the range is 1, otherwise it is 255. Since a
  black image looks the same in both, give ``data_range`` where floats do not span [0, 1]. Of an image with NaN or infinite
  values every metric is NaN;
- anything of the kinds above, spanning [0, ``data_range``], when that is given.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError

log = logging.getLogger("relume")

AnyImage = np.ndarray | Tensor
ColorOrder = Literal["bgr", "rgb"]
InputOrder = Literal["HWC", "CHW"]

INTEGER_RANGE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}
OVERSHOOT = 2.0
"""Floats that stay below this are in [0, 1]."""


F = TypeVar("F", bound=Callable[..., float])
_told_of_alpha: set[str] = set()


class NotFinite(UserError):
    """An image has NaN or infinite values: the score is NaN."""


def nan_without_score(function: F) -> F:
    """Decorator: a metric's score of images that are not finite is NaN."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> float:
        try:
            return function(*args, **kwargs)
        except NotFinite:
            return math.nan

    return cast(F, guarded)


def prepared(
    owner: str,
    *images: AnyImage,
    crop_border: int = 0,
    data_range: float | None = None,
    color_order: ColorOrder | None = None,
    input_order: InputOrder = "HWC",
    clip: bool = False,
) -> list[np.ndarray]:
    """The images, the reference last, as contiguous float64 arrays (H, W, C), RGB, in [0, 255].

    Args:
        owner: the metric, for messages.
        crop_border: pixels cut off on every side.
        clip: cut values off at the ends of the range.

    Raises:
        NotFinite: an image has NaN or infinite values, which no definition of a metric speaks of.
        UserError: shapes or types that differ or cannot be handled, or a border that leaves nothing.
    """
    arrays = [_channels_last(owner, image, color_order, input_order) for image in images]
    reference = arrays[-1]
    for array in arrays[:-1]:
        if array.shape != reference.shape:
            raise UserError(f"{owner}: images of different sizes, {array.shape} and {reference.shape} (H, W, C).")
        if array.dtype != reference.dtype and not (array.dtype.kind == reference.dtype.kind == "f"):
            raise UserError(f"{owner}: images of different types, {array.dtype} and {reference.dtype}.")
    if not all(np.isfinite(array).all() for array in arrays if array.dtype.kind == "f"):
        raise NotFinite(f"{owner}: an image has NaN or infinite values.")
    factor = 255.0 / (data_range or _span(owner, reference))
    result = []
    for array in arrays:
        scaled = _cropped(owner, array, crop_border).astype(np.float64)
        if factor != 1.0:
            scaled = scaled * factor
        result.append(np.clip(scaled, 0.0, 255.0) if clip else scaled)
    return result


def for_network(
    owner: str,
    img: AnyImage,
    img2: AnyImage,
    smallest: int,
    crop_border: int,
    data_range: float | None,
    color_order: ColorOrder | None,
    input_order: InputOrder,
) -> tuple[list[Tensor], torch.device]:
    """Both images as a network takes them, (1, 3, H, W), in [0, 255], float64, clipped; and the device that it is to run on.

    Raises:
        UserError: as `prepared`; also for images that are not RGB, or have less than `smallest` pixels a side.
    """
    pair = prepared(
        *(owner, img, img2),
        crop_border=crop_border,
        data_range=data_range,
        color_order=color_order,
        input_order=input_order,
        clip=True,
    )
    height, width, channels = pair[0].shape
    if channels != 3 or min(height, width) < smallest:
        raise UserError(f"{owner}: needs 3 channels and {smallest} pixels a side, got {channels} of {height}x{width}.")
    device = img.device if isinstance(img, Tensor) else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return [torch.from_numpy(p).permute(2, 0, 1)[None] for p in pair], device


def _channels_last(owner: str, image: AnyImage, color_order: ColorOrder | None, input_order: InputOrder) -> np.ndarray:
    """(H, W, C), RGB if it has three channels, values as they are."""
    if isinstance(image, Tensor):
        tensor = image.detach()
        tensor = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        array, channels_first, order = tensor.cpu().numpy(), True, color_order or "rgb"
    else:
        array, channels_first, order = np.asarray(image), input_order == "CHW", color_order or "bgr"
    if array.ndim == 4 and channels_first:
        if len(array) != 1:
            raise UserError(f"{owner}: scores one image at a time, got a batch of {len(array)}.")
        array = array[0]
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise UserError(f"{owner}: an image has 2 or 3 dimensions, none of them empty; got shape {array.shape}.")
    if array.ndim == 2:
        array = array[..., None]
    elif channels_first:
        array = np.moveaxis(array, 0, 2)
    if array.shape[2] == 4:
        if owner not in _told_of_alpha:
            _told_of_alpha.add(owner)
            log.warning("%s: the fourth channel (alpha, transparency) is left out", owner)
        array = array[..., :3]
    if order == "bgr" and array.shape[2] in (3, STEREO):
        return np.concatenate([array[..., i : i + 3][..., ::-1] for i in range(0, array.shape[2], 3)], axis=2)
    return array


def _span(owner: str, reference: np.ndarray) -> float:
    """The full scale of an image's values."""
    if reference.dtype in INTEGER_RANGE:
        return INTEGER_RANGE[reference.dtype]
    if reference.dtype.kind != "f":
        raise UserError(f"{owner}: images are uint8, uint16 or floats; got {reference.dtype} (or give data_range).")
    largest = float(reference.max())
    if largest > 256.0:
        raise UserError(f"{owner}: floats are in [0, 1] or [0, 255], and here reach {largest:g}; give data_range.")
    return 255.0 if largest > OVERSHOOT else 1.0


def _cropped(owner: str, image: np.ndarray, border: int) -> np.ndarray:
    if border < 0 or 2 * border >= min(image.shape[:2]):
        raise UserError(f"{owner}: crop_border {border} does not fit an image of {image.shape[0]}x{image.shape[1]}.")
    return image[border : image.shape[0] - border, border : image.shape[1] - border]


STEREO = 6
"""Channels of two views in one image: RGB of the left one, then of the right one."""


def views(image: np.ndarray) -> list[np.ndarray]:
    """The two views of a prepared image of six channels, each (H, W, 3) RGB; the image itself of any other number."""
    return [image[..., :3], image[..., 3:]] if image.shape[2] == STEREO else [image]


def has_colours(image: np.ndarray) -> bool:
    """Whether an image (H, W, C) is RGB and not gray.

    Raises:
        UserError: the image is neither, so that its brightness is not defined.
    """
    if image.shape[2] not in (1, 3):
        raise UserError(
            f"the brightness of an image is that of gray or of RGB; this one has {image.shape[2]} channels."
        )
    return bool(image.shape[2] == 3)


LUMA = (65.481, 128.553, 24.966)
"""ITU-R BT.601 studio-swing luma of R, G, B in [0, 1], as Matlab's rgb2ycbcr has it; 16 is added."""


def luma(rgb: np.ndarray) -> np.ndarray:
    """Y of YCbCr, (H, W, 1) in [16, 235], of an image in [0, 255]; of a gray image, itself.

    Rounded to float32 where BasicSR rounds, so that scores agree with its own to the last digits that it prints.

    Raises:
        UserError: the image is neither gray nor RGB.
    """
    if not has_colours(rgb):
        return rgb
    y = (rgb.astype(np.float32) / np.float32(255)) @ np.array(LUMA) + 16.0
    result: np.ndarray = ((y / 255).astype(np.float32) * np.float32(255)).astype(np.float64)[..., None]
    return result
