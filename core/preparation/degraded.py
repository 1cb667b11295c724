"""Pairs made of sharp images: blurred, shrunk, made noisy and compressed by fixed amounts."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from ...datasets.sources import Folder
from ..errors import UserError
from ..imaging.image_io import imwrite, to_float
from ..imaging.matlab_resize import imresize
from ..imaging.opencv import cv2
from ..imaging.storage import join
from . import journal


class Recipe(NamedTuple):
    """What is done to an image, in this order. ``relume degrade`` makes pairs by whole random recipes of option files.

    Args:
        blur: standard deviation of a Gaussian, in pixels of the sharp image; 0 for none.
        scale: the input is so many times smaller, by Matlab's bicubic ``imresize``.
        noise: standard deviation of Gaussian noise, in grey levels of 255; 0 for none.
        jpeg: quality of JPEG compression, 1 to 100; None for none.
        seed: seed of the noise, which is a function of the seed and of the image's name.
    """

    blur: float = 0.0
    scale: int = 1
    noise: float = 0.0
    jpeg: int | None = None
    seed: int = 0

    def problems(self) -> Iterator[str]:
        """What is wrong with these values."""
        if self.scale < 1:
            yield f"--scale: at least 1, not {self.scale}"
        for name, value in (("blur", self.blur), ("noise", self.noise)):
            if not 0 <= value <= 255:
                yield f"--{name}: from 0 to 255, not {value}"
        if self.jpeg is not None and not 1 <= self.jpeg <= 100:
            yield f"--jpeg: from 1 to 100, not {self.jpeg}"
        if self._replace(seed=0) == Recipe():
            yield "nothing would be degraded: give --scale, --blur, --noise or --jpeg"


def degraded(target: np.ndarray, recipe: Recipe, key: str) -> np.ndarray:
    """The input (H / scale, W / scale, 3) uint8 of a sharp image (H, W, 3), both of whose sides the scale divides."""
    image = to_float(target)
    if recipe.blur:
        image = cv2.GaussianBlur(image, (0, 0), recipe.blur, borderType=cv2.BORDER_REFLECT_101)
    if recipe.scale > 1:
        image = imresize(image, 1 / recipe.scale)
    if recipe.noise:
        random = np.random.default_rng([recipe.seed, zlib.crc32(key.encode(errors="surrogateescape"))])
        image = image + random.normal(0, recipe.noise / 255, image.shape)
    made = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if recipe.jpeg is not None:
        _, data = cv2.imencode(".jpg", made[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, recipe.jpeg])
        made = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1]
    return np.ascontiguousarray(made)


def pair(key: str, source: Folder, out: str, recipe: Recipe, goes_on: bool) -> None:
    """Write one image and its input, unless both are there.

    Raises:
        UserError: the image is smaller than the scale, or unreadable.
    """
    targets = [join(out, f"{kind}/{key}.png") for kind in ("gt", "lq")]
    if not journal.missing(targets, goes_on):
        return
    image = source.pixels(source.files[key])
    height, width = (side - side % recipe.scale for side in image.shape[:2])
    if not height or not width:
        raise UserError(f"{source.path(source.files[key])}: is smaller than --scale {recipe.scale}")
    image = image[:height, :width]
    imwrite(targets[0], image, 16 if image.dtype.kind == "f" else 8)
    imwrite(targets[1], degraded(image, recipe, key))


def pairs(folder: str, out: str, recipe: Recipe, workers: int = 1, dry: bool = False) -> int:
    """Write ``gt`` (sides cut to multiples of the scale) and ``lq`` of all images of a folder, as PNG; how many there are.

    Raises:
        UserError: the recipe does nothing or what cannot be, an image is unreadable, or `out` has other pairs.
    """
    for problem in recipe.problems():
        raise UserError(problem)
    source = Folder(folder)
    goes_on = journal.begin(out, "pairs", folder, recipe._asdict(), dry)
    if not dry:
        work = partial(pair, source=source, out=out, recipe=recipe, goes_on=goes_on)
        list(journal.each(work, list(source.files), workers, "Degrading", processes=True))
    return len(source.files)
