"""Reading and writing images: RGB, channels last, at the file's own precision or as float in [0, 1]."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import UserError
from . import conventions
from .float_formats import FLOAT_WRITERS, FLOATS_ONLY, encode_floats
from .image_header import JPEG_START
from .storage import UnreadableFile, read_bytes, write_bytes

log = logging.getLogger("relume")

LARGEST = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}
"""What integer samples are divided by to give [0, 1]."""


# ------------------------------------------------------------------ reading
def decode_integer_image(data: bytes, name: str) -> np.ndarray:
    """8- and 16-bit images of any format OpenCV knows, as OpenCV orders them (BGR, BGRA or gray); see `conventions.decode`.

    Raises:
        UnreadableFile: the samples are no integers of 8 or 16 bits.
    """
    from .opencv import cv2

    # JPEG has no alpha and is turned upright by OpenCV; the rest keeps whatever channels it has.
    jpeg = data.startswith(JPEG_START)
    image = conventions.decode(data, name, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH if jpeg else cv2.IMREAD_UNCHANGED)
    if image.dtype not in LARGEST and not conventions.NETPBM.match(data) and conventions.white(data, name) is None:
        raise UnreadableFile(f"{name}: holds {image.dtype} samples; 8- and 16-bit integer images can be read")
    return image


Readers = Mapping[str, Callable[[bytes, str], Any]]

JPEGS = (".jpg", ".jpeg", ".jfif", ".jpe")
READERS: dict[str, Callable[[bytes, str], np.ndarray]] = dict.fromkeys(
    (".png", *JPEGS, ".bmp", ".dib", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pnm", ".jp2"), decode_integer_image
)
"""Decoders by suffix, from a file's bytes and its name (for messages) to an array in OpenCV's channel order. A folder's
other files are not taken for images."""

_told_of_alpha: set[str] = set()
_told_of_pages: set[str] = set()


def _tell(told: set[str], owner: str, what: str) -> None:
    """A line in the log about the files of a folder, or of another owner, once."""
    if owner not in told:
        told.add(owner)
        log.warning("%s: %s", owner, what)


def read_pixels(
    source: str | Path | bytes, name: str | None = None, owner: str | None = None, readers: Readers = READERS
) -> np.ndarray:
    """Decode an image at the file's own precision.

    Args:
        source: path, fsspec URL, or the file's bytes.
        name: the file's name for messages and for the choice of the decoder, where `source` is bytes.
        owner: what the message about a dropped alpha channel names, once; the file's folder when omitted.
        readers: decoders by suffix; a name with another suffix is decoded by its contents.

    Returns:
        (H, W, 3) RGB, uint8 or uint16 (or what the suffix's reader gives; floats in [0, 1] of Netpbm files of
        another depth). Gray is repeated; alpha, and pictures after a file's first, are left out with a
        warning.

    Raises:
        UnreadableFile: missing, truncated, damaged; the message names the file.
    """
    data = source if isinstance(source, bytes) else read_bytes(source)
    name = name or ("<bytes>" if isinstance(source, bytes) else str(source))
    owner = owner or name.rpartition("/")[0] or name
    decode: Callable[[bytes, str], np.ndarray] = readers.get(PurePosixPath(name).suffix.lower(), decode_integer_image)
    image = decode(data, name)
    if conventions.pictures(data):
        _tell(
            _told_of_pages, owner, "has files of several pictures (pages, or an animation), of which the first is read"
        )
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    if image.shape[2] == 4:
        _tell(_told_of_alpha, owner, "has images with an alpha channel (transparency), which is dropped")
    if image.shape[2] not in (3, 4):
        raise UnreadableFile(f"{name}: has {image.shape[2]} channels; gray, RGB and RGBA images can be read")
    return image[..., 2::-1]


def to_float(pixels: np.ndarray) -> np.ndarray:
    """float32 samples; integers are scaled to [0, 1] by their type's largest value, floats kept."""
    scaled = pixels.astype(np.float32)
    if pixels.dtype in LARGEST:
        scaled /= np.float32(LARGEST[pixels.dtype])
    return scaled


def imread(source: str | Path | bytes, name: str | None = None, owner: str | None = None) -> np.ndarray:
    """Read an image as (H, W, 3) RGB, float32, in [0, 1]; arguments and errors of `read_pixels`."""
    return to_float(read_pixels(source, name, owner))


# ------------------------------------------------------------------ writing
def channels_last(image: Tensor | np.ndarray) -> np.ndarray:
    """A (C, H, W) tensor as an (H, W, C) float32 array; arrays as they are."""
    if not isinstance(image, Tensor):
        return np.asarray(image)
    array: np.ndarray = image.detach().float().cpu().permute(1, 2, 0).numpy()
    return array


def to_integer(image: Tensor | np.ndarray, bit_depth: int = 8) -> np.ndarray:
    """(H, W, C) integers from a (C, H, W) tensor or an (H, W[, C]) array.

    Floats are taken to span [0, 1], clipped and rounded to nearest (NaN becomes 0); integer arrays are returned as they are.

    Raises:
        UserError: `bit_depth` is neither 8 nor 16.
    """
    array = channels_last(image)
    if array.dtype in LARGEST:
        return array
    if bit_depth not in (8, 16):
        raise UserError(f"bit depth {bit_depth} is not possible; 8 and 16 are")
    largest = 2**bit_depth - 1
    scaled = np.nan_to_num(np.clip(array.astype(np.float32), 0.0, 1.0), nan=0.0) * largest
    result: np.ndarray = scaled.round().astype(np.uint8 if bit_depth == 8 else np.uint16)
    return result


WITH_ALPHA = (".png", ".tif", ".tiff", ".webp", ".bmp", ".dib", ".jp2")
"""Suffixes of formats that hold a fourth channel, opacity."""
WITH_16_BITS = (".png", ".tif", ".tiff", ".jp2", ".ppm", ".pgm", ".pnm")
"""Suffixes of formats that hold 16 bits per sample."""
_ENCODERS = {".jfif": ".jpg", ".ppm": ".pnm", ".pgm": ".pnm"}
"""Suffixes under which OpenCV writes less than the format holds, and those to ask it for."""


def imwrite(path: str | Path, image: Tensor | np.ndarray, bit_depth: int = 8) -> None:
    """Write an image in the format of the path's suffix, whole or not at all; folders are made.

    Args:
        path: local path or fsspec URL.
        image: (C, H, W) tensor or (H, W[, C]) array, RGB, gray, or RGB and opacity, C of 1, 3 or 4, floats in [0, 1] or
            8/16-bit integers; or any finite
            floats, written as they are, where the suffix is .hdr, .exr, .pfm or .npy, or TIFF at a depth of 32.
        bit_depth: 8 or 16 (PNG and TIFF) bits per sample for floats, or 32 to write them as floats.

    Raises:
        UserError: the format cannot hold the image.
    """
    write_bytes(path, encoded(path, image, bit_depth))


def encoded(path: str | Path, image: Tensor | np.ndarray, bit_depth: int = 8) -> bytes:
    """The bytes that `imwrite` writes, from the same arguments, in the same shapes.

    Raises:
        UserError: the format cannot hold such an image.
    """
    from .opencv import cv2

    suffix = PurePosixPath(str(path)).suffix.lower()
    if bit_depth == 32 and suffix not in FLOAT_WRITERS:
        raise UserError(
            f"{path}: {suffix or 'a file without suffix'} cannot hold floats; {', '.join(FLOAT_WRITERS)} can"
        )
    if bit_depth == 32 or suffix in FLOATS_ONLY:
        return encode_floats(path, suffix, channels_last(image))
    pixels = to_integer(image, bit_depth)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if channels == 4 and suffix not in WITH_ALPHA:
        raise UserError(f"{path}: '{suffix}' cannot hold an alpha channel; {', '.join(WITH_ALPHA)} can")
    if channels in (3, 4):
        pixels = pixels[..., [2, 1, 0, 3][:channels]]
    if pixels.dtype == np.uint16 and suffix not in WITH_16_BITS:
        raise UserError(
            f"{path}: {suffix or 'a file without suffix'} cannot hold 16 bits per sample; .png and .tiff can"
        )
    try:
        # Of JPEG 2000, some releases of OpenCV keep a quarter of the bytes unless they are told to lose nothing.
        settings = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000] if suffix == ".jp2" else []
        written, data = cv2.imencode(_ENCODERS.get(suffix, suffix), np.ascontiguousarray(pixels), settings)
    except cv2.error as e:
        raise UserError(f"{path}: this image ({pixels.shape}) cannot be written as '{suffix}'") from e
    if not written:  # JPEG 2000 of fewer than 32 pixels a side
        raise UserError(f"{path}: this image ({pixels.shape}) cannot be written as '{suffix}'")
    return bytes(data)
