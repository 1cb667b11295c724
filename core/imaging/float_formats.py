"""Files of floating-point images, from and to bytes: Radiance .hdr, OpenEXR, .pfm, TIFF with float samples, NumPy's .npy.

Decoders have the signature of `image_io.READERS` and give OpenCV's channel order (BGR); an .npy array holds RGB.

| format | what survives of float32 |
|---|---|
| .exr, .npy, .pfm, .tif | everything; 16-bit halfs in .exr and .npy are read too |
| .hdr | 8 bits and an exponent shared by the three channels: steps of 0.4 to 0.8 % of the brightest channel; nothing negative |
"""

from __future__ import annotations

import io
import math
import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import UserError, first_line, require
from ..files.ceilings import refuse_total
from . import conventions, radiance_format
from .ceilings import refuse_large, refuse_pixels, unpacked
from .storage import UnreadableFile

REC_709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
"""Chromaticities x, y of red, green, blue and white."""
INSTALL_EXR = "pip install 'relume[hdr]'"


# ------------------------------------------------------------------ reading
def decode_hdr(data: bytes, name: str) -> np.ndarray:
    """A Radiance picture as its header means it: (H, W, 3) floats, BGR."""
    header = radiance_format.read_header(data, name)
    refuse_pixels(*header.sizes, name)
    scanned = decode_with_opencv(radiance_format.usual_order(data, header), name)
    return radiance_format.as_meant(scanned, header)


def decode_with_opencv(data: bytes, name: str) -> np.ndarray:
    """.pfm, and other files of floats: (H, W[, C]), BGR."""
    return as_float(decode_tiff(data, name), name)


def decode_tiff(data: bytes, name: str) -> np.ndarray:
    """A TIFF file of samples of any kind, integers among them: (H, W[, C]), BGR."""
    from .opencv import cv2

    return conventions.decode(data, name, cv2.IMREAD_UNCHANGED)


def decode_exr(data: bytes, name: str, opacity: bool = False) -> np.ndarray:
    """An OpenEXR file's first part, of R, G and B; of Y, RY and BY, luminance and chroma; or of Y alone.

    (H, W[, 3]) floats, BGR; with `opacity`, of a file that has it, as one channel more: (H, W, 4), or (H, W, 2) beside Y.

    Raises:
        UnreadableFile: damaged, or it has no such channels.
        UserError: the package OpenEXR is not installed.
    """
    refuse_large(data, name)
    exr = require("OpenEXR", f"{name}: reading .exr", INSTALL_EXR)
    with tempfile.TemporaryDirectory() as folder:  # the library reads paths only; ours may be in a database or remote
        path = os.path.join(folder, "image.exr")
        Path(path).write_bytes(data)
        try:
            with exr.File(path, separate_channels=True) as file:
                planes = {k: np.array(c.pixels) for k, c in file.channels().items()}
                chromaticities = file.header().get("chromaticities")
        except Exception as e:  # the library raises RuntimeError, TypeError, ValueError, its own, ...
            raise UnreadableFile(f"{name}: not a readable OpenEXR file ({str(e).splitlines()[0]})") from e
    wanted = next((names for names in ("BGR", ("Y", "RY", "BY"), "Y") if set(names) <= set(planes)), None)
    colours = {"R", "G", "B", "RY", "BY"} & set(planes)  # which Y alone would leave out
    if wanted is None or (colours and wanted == "Y") or ({"R", "G", "B"} & colours and wanted != "BGR"):
        raise UnreadableFile(f"{name}: has the channels {', '.join(planes) or 'none'}; R, G, B or Y are needed")
    full = max((planes[c].shape for c in wanted), key=math.prod)
    channels = [enlarged(as_float(planes[c], name), full) for c in wanted]
    if len(wanted) == 3 and wanted != "BGR":
        channels = from_luminance(channels, chromaticities)
    if opacity and "A" in planes:
        channels.append(enlarged(as_float(planes["A"], name), full))
    if len(channels) == 1:
        return channels[0]
    image = np.stack(channels, axis=-1)
    return as_float(image, name)


def enlarged(plane: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A channel at the size of the others. Its samples lie at every second row and column, say, from the first one on."""
    for axis, side in enumerate(shape):
        count = plane.shape[axis]
        if count < side:
            at = np.arange(side) / -(-side // count)
            low = np.minimum(at.astype(int), count - 1)
            part = (at - low).reshape(-1, 1) if axis == 0 else at - low
            high = np.minimum(low + 1, count - 1)
            plane = plane.take(low, axis) * (1 - part) + plane.take(high, axis) * part
    return plane.astype(np.float32, copy=False)


def from_luminance(channels: list[np.ndarray], chromaticities: Sequence[float] | None) -> list[np.ndarray]:
    """B, G, R of Y, RY = (R - Y) / Y and BY = (B - Y) / Y ("Technical Introduction to OpenEXR"), Y being the luminance.

    Args:
        channels: Y, RY, BY, of one size.
        chromaticities: x and y of red, green, blue and white; Rec. 709's when None.
    """
    y, ry, by = channels
    red, green, blue = luminance_weights(chromaticities or REC_709)
    r, b = (ry + 1) * y, (by + 1) * y
    return [b, (y - red * r - blue * b) / green, r]


def luminance_weights(chromaticities: Sequence[float]) -> np.ndarray:
    """The weights of R, G and B in the luminance of their sum, which is white's: (3,), summing to 1."""
    xy = np.asarray(chromaticities, np.float64).reshape(4, 2)
    xyz = np.concatenate([xy, 1 - xy.sum(axis=1, keepdims=True)], axis=1) / xy[:, 1:]  # of luminance 1
    result: np.ndarray = np.linalg.solve(xyz[:3].T, xyz[3])
    return result


def decode_npy(data: bytes, name: str) -> np.ndarray:
    """An array (H, W, 3) RGB or (H, W), with any number of axes of length 1 before, as BGR.

    Raises:
        UnreadableFile: as `load_array`, or an array of another shape or type.
    """
    array = load_array(data, name)
    shape = array.shape
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or 0 in shape:
        raise UnreadableFile(f"{name}: has the shape {shape}; (H, W, 3) RGB or (H, W) are expected")
    return as_float(array[..., ::-1] if array.ndim == 3 else array, name)


def load_array(data: bytes, name: str) -> np.ndarray:
    """The array in an .npy file.

    Raises:
        UnreadableFile: damaged, pickled objects (which could run code), or an archive.
    """
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as e:  # numpy evaluates what a header says, and trips over whatever it finds
        raise UnreadableFile(f"{name}: not a readable .npy array of numbers ({first_line(e)})") from e
    if not isinstance(array, np.ndarray):
        raise UnreadableFile(f"{name}: is an archive of arrays (.npz); one array (.npy) is expected")
    return array


def load_arrays(path: str | Path, names: Sequence[str]) -> list[np.ndarray]:
    """Arrays of an archive (.npz), by their names in it.

    Raises:
        UnreadableFile: it is damaged, lacks one, holds Python objects, or unpacks to more than the ceilings allow.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [archive.getinfo(f"{name}.npy") for name in names]
            refuse_total((e.file_size for e in entries), str(path), UnreadableFile)
            return [
                load_array(
                    unpacked(partial(archive.open, e), e.file_size, f"{path}/{e.filename}"), f"{path}/{e.filename}"
                )
                for e in entries
            ]
    except UserError:
        raise
    except Exception as e:  # a password, an unknown compression, what each decompressor says of damage, ...
        raise UnreadableFile(
            f"{path}: cannot be read as an archive with {' and '.join(names)} ({first_line(e)})"
        ) from e


def as_float(image: np.ndarray, name: str) -> np.ndarray:
    """The image as float32.

    Raises:
        UnreadableFile: its samples are integers.
    """
    if image.dtype.kind != "f":
        raise UnreadableFile(f"{name}: holds {image.dtype} samples; floats are expected here")
    return image.astype(np.float32, copy=False)


FLOAT_READERS: dict[str, Callable[[bytes, str], np.ndarray]] = {
    ".hdr": decode_hdr,
    ".pic": decode_hdr,
    ".exr": decode_exr,
    ".pfm": decode_with_opencv,
    ".npy": decode_npy,
}
"""Decoders of formats that hold floats only, by suffix."""


# ------------------------------------------------------------------ writing
def encode_with_opencv(image: np.ndarray, suffix: str) -> bytes:
    """.hdr, .pfm and, compressed without loss, .tif: from (H, W[, 3]) float32 RGB."""
    from .opencv import cv2

    if suffix == ".hdr" and image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    return bytes(cv2.imencode(suffix, np.ascontiguousarray(image))[1])


def encode_exr(image: np.ndarray, suffix: str) -> bytes:
    """An OpenEXR file of float32 samples, ZIP-compressed (without loss)."""
    exr = require("OpenEXR", "writing .exr", INSTALL_EXR)
    image = np.atleast_3d(image)
    names = {1: "Y", 2: "YA", 3: "RGB", 4: "RGBA"}[image.shape[2]]
    planes = {c: np.ascontiguousarray(image[..., i]) for i, c in enumerate(names)}
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"image{suffix}")
        with exr.File(header, planes) as file:
            file.write(path)
        return Path(path).read_bytes()


def encode_npy(image: np.ndarray, suffix: str) -> bytes:
    """NumPy's format."""
    buffer = io.BytesIO()
    np.save(buffer, image, allow_pickle=False)
    return buffer.getvalue()


FLOAT_WRITERS: dict[str, Callable[[np.ndarray, str], bytes]] = {
    ".hdr": encode_with_opencv,
    ".exr": encode_exr,
    ".pfm": encode_with_opencv,
    ".npy": encode_npy,
    ".tif": encode_with_opencv,
    ".tiff": encode_with_opencv,
}
"""Encoders of floats, by suffix."""

FLOAT_CHANNELS = {".exr": (1, 2, 3, 4), ".tif": (1, 3, 4), ".tiff": (1, 3, 4)}
"""Channels that formats hold: gray, RGB, and with opacity; others hold gray and RGB."""

FLOATS_ONLY = FLOAT_WRITERS.keys() - {".tif", ".tiff"}
"""Suffixes of formats that hold nothing but floats; TIFF holds integers as well."""


def encode_floats(path: str | Path, suffix: str, image: np.ndarray) -> bytes:
    """A file's contents from an image (H, W) or (H, W, C), C of 1 or 3, RGB, or one more for opacity, of any floating type.

    Raises:
        UserError: it has another shape, or NaN, infinite or (in .hdr) negative samples.
    """
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    held = FLOAT_CHANNELS.get(suffix, (1, 3))
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in held) or 0 in image.shape:
        raise UserError(f"{path}: this image ({image.shape}) cannot be written as '{suffix}'")
    image = image.astype(np.float32)
    if not np.isfinite(image).all():
        raise UserError(f"{path}: the image has NaN or infinite values, and is not written")
    if suffix == ".hdr" and image.min() < 0:
        raise UserError(f"{path}: .hdr holds no negative radiance (here {image.min():g}); clip it, or write .exr")
    return FLOAT_WRITERS[suffix](image, suffix)
