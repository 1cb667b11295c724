"""Reading linear radiance, and refusing what is none."""

from __future__ import annotations

import numpy as np

from ..core.errors import UserError
from ..core.imaging.float_formats import FLOAT_READERS, decode_tiff, load_array
from ..core.imaging.image_io import Readers, decode_integer_image, to_float
from ..core.imaging.storage import UnreadableFile
from .sources import Folder, Source, first_names

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
        name: name of the file.
        scale: factor of the file's values; 1 when None. 16-bit integers, which span [0, 1] before, need it.

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


class AlignedRadiance(Folder):
    """Radiance in 16-bit PNG or TIFF files ``<id>_gt.png`` (or ``<id>.png``), each divided by a number of its own.

    That number is in ``<id>_alignratio.npy``, in the same folder or another: the layout of the NTIRE HDR challenges (2021,
    2022), whose files keep the whole of 16 bits for every image. The keys are the ids.

    Args:
        root: folder of the images; the folder's other images (``<id>_medium.png``) are left out.
        ratio_root: folder of the numbers, which decide what is read.

    Raises:
        UserError: there are no numbers, or some have no image.
    """

    ENDING = "_alignratio.npy"

    def __init__(self, root: str, ratio_root: str) -> None:
        super().__init__(root, dict.fromkeys((".png", ".tif", ".tiff"), decode_tiff))
        self.ratios = Folder(ratio_root, {".npy": decode_ratio})
        ids = [n.removesuffix(self.ENDING) for n in self.ratios.files.values() if n.endswith(self.ENDING)]
        if not ids:
            raise UserError(f"dataroot_alignratio: there is no <name>{self.ENDING} in {ratio_root}")
        found = {i: self.files.get(f"{i}_gt") or self.files.get(i) for i in ids}
        missing = [i for i, name in found.items() if name is None]
        if missing:
            raise UserError(
                f"{root}: {len(missing)} of {len(ids)} files *{self.ENDING} have no <name>_gt.png or <name>.png: "
                f"{first_names(missing)}"
            )
        self.files = {i: name for i, name in found.items() if name is not None}
        self.ids = {name: i for i, name in self.files.items()}

    def pixels(self, name: str) -> np.ndarray:
        """Radiance, (H, W, 3) float32 RGB.

        Raises:
            UserError: the file has 8-bit samples.
            UnreadableFile: see `read_pixels`.
        """
        pixels = super().pixels(name)
        if pixels.dtype != np.uint16:
            raise UserError(f"{self.path(name)}: holds {pixels.dtype} samples; dataroot_alignratio is for 16-bit files")
        ratio = f"{self.ids[name]}{self.ENDING}"
        return pixels.astype(np.float32) / decode_ratio(self.ratios.read(ratio), self.ratios.path(ratio))


def decode_ratio(data: bytes, name: str) -> np.float32:
    """The positive number in an .npy file.

    Raises:
        UnreadableFile: damaged, or anything else than one positive number.
    """
    ratio = load_array(data, name)
    if ratio.size != 1 or ratio.dtype.kind not in "fiu":
        raise UnreadableFile(f"{name}: one number is expected in it, not {ratio.dtype} of the shape {ratio.shape}")
    value = np.float32(ratio.item())
    if not 0 < value < np.inf:
        raise UnreadableFile(f"{name}: a positive number is expected, not {value:g}")
    return value
