"""Pictures for people: tensors as 8-bit images, labelled side by side or in a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from ..errors import UserError
from .image_io import to_integer

Picture = Tensor | np.ndarray

BACKGROUND, INK = 255, 48
SEPARATOR = 4
"""White pixels between panels, and around them."""
STEREO = 6
"""Channels of two views in one image, the left one's first."""
SMALLEST, LARGEST = 192, 1024
"""Heights between which panels are kept, so that captions fit and files stay small."""


def to_uint8(image: Picture) -> np.ndarray:
    """An image as (H, W, C) uint8, or a batch as (B, H, W, C).

    Args:
        image: tensor (C, H, W) or (B, C, H, W), RGB in [0, 1]: clipped and rounded to nearest. Arrays are (H, W, C)
            already; floats are in [0, 1], and uint8 is returned as it is.
    """
    if isinstance(image, Tensor):
        image = image.detach().float().movedim(-3, -1).cpu().numpy()
    elif image.dtype == np.uint16:
        image = image / np.float32(65535)
    return to_integer(image)


def comparison(images: Mapping[str, Picture], largest: int = LARGEST) -> np.ndarray:
    """Images side by side with their labels above, each as high as the highest: (H, W, 3) uint8 RGB.

    Args:
        images: images by label, in order; (C, H, W) or (1, C, H, W) tensors or what else `to_uint8` takes. Of six
            channels, which are two views, both are shown side by side, of two a gray picture each, of other numbers above
            three the first three.
        largest: height in pixels beyond which all are scaled down.
    """
    panels = [_rgb(image) for image in images.values()]
    height = min(max(max((p.shape[0] for p in panels), default=0), SMALLEST), largest)
    return grid(panels, len(panels), labels=list(images), height=height)


def grid(images: Sequence[Picture], columns: int, labels: Sequence[str] = (), height: int | None = None) -> np.ndarray:
    """Images in rows, thinly separated: (H, W, 3) uint8 RGB.

    Args:
        images: images as `comparison` takes them; narrower ones are centred in their column.
        columns: images in a row.
        labels: one for each image, above it; none when empty.
        height: height in pixels to which images are scaled, keeping their shape; the first one's when omitted.

    Raises:
        UserError: no image, or labels that do not match.
    """
    if not images or columns < 1 or (labels and len(labels) != len(images)):
        raise UserError(
            f"a grid needs images, and a label for each or none; got {len(images)} and {len(labels)} labels"
        )
    panels = [_rgb(image) for image in images]
    panels = [_scaled(p, height or panels[0].shape[0]) for p in panels]
    width = max(p.shape[1] for p in panels)
    cells = [_centred(p, width) for p in panels]
    if labels:
        cells = [np.concatenate([_caption(text, width), cell]) for text, cell in zip(labels, cells, strict=True)]
    columns = min(columns, len(cells))
    cells += [np.full_like(cells[0], BACKGROUND)] * (-len(cells) % columns)
    gap = np.full((cells[0].shape[0], SEPARATOR, 3), BACKGROUND, np.uint8)
    rows = []
    for first in range(0, len(cells), columns):
        row = [gap]
        for cell in cells[first : first + columns]:
            row += [cell, gap]
        rows.append(np.concatenate(row, axis=1))
    line = np.full((SEPARATOR, rows[0].shape[1], 3), BACKGROUND, np.uint8)
    return np.concatenate([line, *(part for row in rows for part in (row, line))])


def panels(picture: np.ndarray, count: int) -> list[np.ndarray] | None:
    """The images that a `comparison` of so many was made of, as it shows them; None if the picture is no such one."""
    height, width = picture.shape[:2]
    each, rest = divmod(width - SEPARATOR * (count + 1), count)
    if rest or each < 1:
        return None
    lefts = [SEPARATOR + i * (each + SEPARATOR) for i in range(count)]
    if any((picture[:, left - SEPARATOR : left] != BACKGROUND).any() for left in (*lefts, width)):
        return None
    top = SEPARATOR + caption_height(each)
    return [picture[top : height - SEPARATOR, left : left + each] for left in lefts]


def caption_height(width: int) -> int:
    """Rows of the line of text above a panel of this width."""
    return round(34 * _caption_size(width))


def _caption_size(width: int) -> float:
    return float(np.clip(width / 400, 0.6, 1.1))


def files(image: Picture) -> dict[str, Picture]:
    """What is written of an image, by what is added to its name: itself if it is gray or RGB, of six channels the left and the
    right view (``_L``, ``_R``, as NAFSSR has it), else what a picture shows of its channels, (H, W, C) uint8."""
    channels = image.shape[-3 if isinstance(image, Tensor) else -1]
    if channels == STEREO:
        pixels = to_uint8(image)
        return {"_L": pixels[..., :3], "_R": pixels[..., 3:]}
    return {"": image if channels in (1, 3) else _rgb(image)}


def _rgb(image: Picture) -> np.ndarray:
    """One image, (H, W, 3) uint8."""
    pixels = to_uint8(image)
    if pixels.ndim == 4 and len(pixels) == 1:
        pixels = pixels[0]
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3:
        raise UserError(f"a picture is (C, H, W), not {tuple(image.shape)}")
    if pixels.shape[2] == 2:
        pixels = np.concatenate([pixels[..., :1], pixels[..., 1:]], axis=1)
    elif pixels.shape[2] == STEREO:
        pixels = np.concatenate([pixels[..., :3], pixels[..., 3:]], axis=1)
    elif pixels.shape[2] > 3:
        pixels = pixels[..., :3]
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _scaled(image: np.ndarray, height: int) -> np.ndarray:
    """The image at another height. Whole-number enlargements repeat pixels, so that small results are seen as they are."""
    from .opencv import cv2

    h, w = image.shape[:2]
    if h == height:
        return image
    width = max(round(w * height / h), 1)
    method = cv2.INTER_AREA if height < h else cv2.INTER_NEAREST if height % h == 0 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=method))


def _centred(image: np.ndarray, width: int) -> np.ndarray:
    left = (width - image.shape[1]) // 2
    right = width - image.shape[1] - left
    return np.pad(image, ((0, 0), (left, right), (0, 0)), constant_values=BACKGROUND)


def _caption(text: str, width: int) -> np.ndarray:
    """A line of text, centred, as large as suits panels of this width, smaller if it would not fit."""
    from .opencv import cv2

    size = _caption_size(width)
    bar = caption_height(width)
    fine = 4  # drawn four times as large, for smooth edges
    font, thickness = cv2.FONT_HERSHEY_DUPLEX, max(round(fine * size), 2)
    (w, h), below = cv2.getTextSize(text, font, size * fine * 0.7, thickness)
    fit = min(1.0, 0.94 * width * fine / max(w, 1))
    canvas = np.full((bar * fine, width * fine, 3), BACKGROUND, np.uint8)
    origin = (round(width * fine - w * fit) // 2, round(bar * fine + h * fit - below * fit / 2) // 2)
    cv2.putText(canvas, text, origin, font, size * fine * 0.7 * fit, (INK,) * 3, thickness, cv2.LINE_AA)
    return np.asarray(cv2.resize(canvas, (width, bar), interpolation=cv2.INTER_AREA))
