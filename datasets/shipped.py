"""Images to generate from that come inside the scikit-image wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from ..core.annotations import Count
from ..core.errors import UserError, require
from ..core.imaging.image_io import read_pixels
from . import DATASETS
from .base import Phase
from .generation import StoredImages
from .transforms import Image, resize

FACES = 100
"""How many of the 200 images in lfw_subset.npy are faces, the first ones."""
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")


@DATASETS.register()
class ShippedImagesDataset(StoredImages):
    """Images inside the scikit-image wheel, so that there is nothing to download: ``gt`` (3, R, R) in [-1, 1], ``index``.

    ``faces`` are 100 gray photographs of faces of 25x25 pixels (Labeled Faces in the Wild), ``faces_and_backgrounds`` these and
    100 pieces of the backgrounds, with labels 0 and 1. ``photographs`` are square pieces of five colour photographs,
    `crop` pixels wide, `stride` apart, labelled by photograph.

    Args:
        source: name of one of these sets.
        resolution: R, to which they are resized (bilinear, antialiased).
        crop: side of a piece of a photograph, in pixels; 128 when omitted.
        stride: distance of neighbouring pieces, in pixels; 32 when omitted.
        use_labels: give labels where there are classes.
        use_hflip: flip every other image, left to right, at random; in training only.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.

    Raises:
        UserError: scikit-image is missing, the pieces are larger than the photographs, or `crop` or `stride` is given for
            faces, which are not cut.
    """

    def __init__(
        self,
        source: Literal["faces", "faces_and_backgrounds", "photographs"] = "faces",
        resolution: Count = 32,
        crop: Count | None = None,
        stride: Count | None = None,
        use_labels: bool = True,
        use_hflip: bool = False,
        phase: Phase = "train",
    ) -> None:
        if source == "photographs":
            images, labels = pieces(crop or 128, stride or 32)
        elif crop is None and stride is None:
            images, labels = faces(backgrounds=source != "faces")
        else:
            raise UserError(f"crop and stride cut pieces of photographs; source: {source} has none")
        given = labels if use_labels and max(labels) > 0 else None
        # Resized once, here, and kept: they are few.
        small = np.stack([resize(image, resolution, resolution) for image in images])
        super().__init__(source, small, given, None, None, use_hflip, phase)


def faces(backgrounds: bool) -> tuple[list[Image], list[int]]:
    """Faces, and other things if `backgrounds` is true, each (25, 25, 3) uint8; and 0 for a face, 1 for another thing."""
    gray = np.load(shipped("lfw_subset.npy"), allow_pickle=False)
    images = np.repeat(np.round(gray[: None if backgrounds else FACES] * 255).astype(np.uint8)[..., None], 3, axis=3)
    return list(images), [int(i >= FACES) for i in range(len(images))]


def pieces(crop: int, stride: int) -> tuple[list[Image], list[int]]:
    """Squares cut from the photographs, each (crop, crop, 3) uint8, and the number of the photograph.

    Raises:
        UserError: `crop` is larger than a photograph.
    """
    images: list[Image] = []
    labels: list[int] = []
    for number, name in enumerate(PHOTOGRAPHS):
        photograph = read_pixels(shipped(name))
        height, width = photograph.shape[:2]
        if crop > min(height, width):
            raise UserError(f"crop {crop} is larger than the photograph {name}, which is {height}x{width}")
        places = [(y, x) for y in range(0, height - crop + 1, stride) for x in range(0, width - crop + 1, stride)]
        images += [photograph[y : y + crop, x : x + crop] for y, x in places]
        labels += [number] * len(places)
    return images, labels


def shipped(name: str) -> Path:
    """A file in the scikit-image wheel.

    Raises:
        UserError: the installed release of scikit-image does not have the file.
    """
    skimage = require("skimage", "ShippedImagesDataset", "pip install scikit-image")
    path = Path(skimage.__path__[0]) / "data" / name
    if not path.is_file():
        raise UserError(f"{path}: this release of scikit-image does not have it; pip install 'scikit-image>=0.22'")
    return path
