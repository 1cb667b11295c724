"""Reading linear radiance, and refusing what is none."""

from __future__ import annotations

import numpy as np

from ..core.errors import UserError
from ..core.float_formats import FLOAT_READERS, decode_tiff
from ..core.image_io import Readers, decode_integer_image, to_float
from ..core.storage import UnreadableFile
from .sources import Source

RADIANCE_READERS: Readers = {
    **FLOAT_READERS,
    **dict.fromkeys((".tif", ".tiff"), decode_tiff),
    ".png": decode_integer_image,
}
"""Decoders of the formats in which radiance is kept, by suffix: floats, or 16-bit integers."""


def read_floats(source: Source, name: str, scale: float | None = None) -> np.ndarray:
    """An image of floats, (H, W, 3) float32 RGB, finite.

    Args:
        source: opened with `RADIANCE_READERS`.
        name: of the file.
        scale: multiplies the file's values; 1 when None. 16-bit integers, which span [0, 1] before, need it.

    Raises:
        UnreadableFile: damaged; or NaN or infinite values.
        UserError: an 8-bit file, which cannot hold radiance, or integers without a scale.
    """
    pixels = source.pixels(name)
    path = source.path(name)
    if pixels.dtype == np.uint8:
        raise UserError(
            f"{path}: is an 8-bit picture, not HDR radiance; ground truths are .hdr, .exr, .pfm, .npy, float TIFF, or "
            "16-bit PNG and TIFF with gt_scale"
        )
    if pixels.dtype.kind != "f" and scale is None:
        raise UserError(
            f"{path}: holds {pixels.dtype} samples; say with gt_scale which radiance their largest value is"
        )
    image = to_float(pixels)
    if scale is not None:
        image = image * np.float32(scale)
    if not np.isfinite(float(image.min()) + float(image.max())):  # NaN is the least and the most
        raise UnreadableFile(f"{path}: has NaN or infinite values")
    return image


def read_radiance(source: Source, name: str, scale: float | None = None) -> np.ndarray:
    """Linear radiance, (H, W, 3) float32 RGB, finite and not negative. Arguments as of `read_floats`.

    Raises:
        UnreadableFile: as `read_floats`, and for negative values.
    """
    radiance = read_floats(source, name, scale)
    if radiance.min() < 0:
        raise UnreadableFile(
            f"{source.path(name)}: has negative radiance (down to {radiance.min():g}); radiance is linear light, 0 or more"
        )
    return radiance
