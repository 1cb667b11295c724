"""Picture files as people have them: depth, gray, opacity and format are kept from the input to the result."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import UserError
from ..imaging.conventions import BITS, SAMPLES
from ..imaging.float_formats import FLOAT_CHANNELS, FLOAT_READERS, FLOATS_ONLY, decode_exr, decode_tiff
from ..imaging.image_header import JPEG_START, PNG_START, jpeg_segments
from ..imaging.image_io import LARGEST, READERS, WITH_16_BITS, WITH_ALPHA, decode_integer_image, encoded
from ..imaging.storage import UnreadableFile
from ..imaging.tiff_header import TIFF_START, tag

log = logging.getLogger("relume")

PICTURES = (*READERS, *FLOAT_READERS)
"""Suffixes of files that are taken for pictures."""
PICTURE_DEPTHS = (8, 16, 32)
"""Bits per sample that pictures may have; 32 are floats."""
STARTS = (
    (PNG_START, ".png"),
    (JPEG_START, ".jpg"),
    (b"II", ".tif"),
    (b"MM", ".tif"),
    (b"BM", ".bmp"),
    (b"v/1\x01", ".exr"),
    (b"#?", ".hdr"),
    (b"\x93NUMPY", ".npy"),
    (b"PF", ".pfm"),
    (b"Pf", ".pfm"),
    (b"P2", ".pgm"),
    (b"P5", ".pgm"),
    (b"P3", ".ppm"),
    (b"P6", ".ppm"),
    (b"\0\0\0\x0cjP", ".jp2"),
    (b"\xff\x4f\xff\x51", ".jp2"),
)
"""First bytes of files, and the suffix of their format."""
EXTRA_SAMPLES = 0x0152
UNASSOCIATED = 2


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: (H, W, 3) RGB, uint8, uint16 or float32; gray is repeated.
        alpha: (H, W) of the same type, or None.
        gray: whether the file has one channel of colour.
        suffix: suffix of the format.
        bits: bits per sample, 8, 16, or 32 for floats.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    gray: bool
    suffix: str
    bits: int

    @property
    def holds_opacity(self) -> bool:
        """Whether its format has a place for opacity."""
        if self.bits == 32:
            return (2 if self.gray else 4) in FLOAT_CHANNELS.get(self.suffix, ())
        return self.suffix in WITH_ALPHA


def suffix_of(data: bytes) -> str:
    """The suffix that a picture's first bytes stand for; empty if they are none that is known."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for start, suffix in STARTS if data.startswith(start)), "")


def decode(data: bytes, name: str) -> Picture:
    """A picture from a file's bytes; one with a name that says nothing by what is in it.

    Raises:
        UnreadableFile: damaged, or of a format or kind that is not read here.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in PICTURES:
        suffix = suffix_of(data)
    # The decoder of the format.
    if suffix == ".exr":
        image = decode_exr(data, name, opacity=True)
    elif suffix in FLOAT_READERS:
        image = FLOAT_READERS[suffix](data, name)
    elif suffix in (".tif", ".tiff"):
        image = decode_tiff(data, name)
    else:
        image = decode_integer_image(data, name)
    # Refuse what is no picture.
    if image.dtype.kind == "f":
        image = image.astype(np.float32, copy=False)
    elif image.dtype not in LARGEST:
        raise UnreadableFile(f"{name}: holds {image.dtype} samples; 8- and 16-bit integers and floats can be read")
    with_opacity = image.ndim == 3 and (image.shape[2] == 4 or (suffix == ".exr" and image.shape[2] == 2))
    if image.ndim == 3 and image.shape[2] not in (1, 3) and not with_opacity:
        raise UnreadableFile(f"{name}: has {image.shape[2]} channels; gray, RGB and RGBA pictures can be read")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UnreadableFile(f"{name}: has NaN or infinite values")
    # Opacity, gray and colour apart, in the order RGB.
    alpha = image[..., -1] if with_opacity else opacity_beside_gray(data, name)
    gray = image.ndim == 2 or image.shape[2] < 3 or (alpha is None and is_gray_jpeg(data)) or is_gray_png(data)
    colour = image.reshape(*image.shape[:2], -1)
    pixels = np.repeat(colour[..., :1], 3, axis=2) if gray else np.ascontiguousarray(colour[..., 2::-1])
    if alpha is not None and image.dtype == np.uint8 and tag(data, EXTRA_SAMPLES) == UNASSOCIATED:
        pixels = unmultiplied(pixels, alpha)
    bits = 32 if image.dtype.kind == "f" else image.dtype.itemsize * 8
    return Picture(pixels, None if alpha is None else np.ascontiguousarray(alpha), gray, suffix or ".png", bits)


def opacity_beside_gray(data: bytes, name: str) -> np.ndarray | None:
    """(H, W) uint8, the second sample of a gray TIFF file, which OpenCV leaves out; None where there is none."""
    if data[:2] not in TIFF_START or tag(data, SAMPLES) != 2:
        return None
    if tag(data, BITS) != 8:
        log.warning("%s: its opacity is dropped; that of gray TIFF files is read of 8 bits", name)
        return None
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.getchannel("A")) if picture.mode == "LA" else None


def unmultiplied(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours of an 8-bit TIFF file that holds them as they are: the decoder has multiplied them with the opacity."""
    opacity = np.maximum(alpha, 1)[..., None].astype(np.float32) / 255
    colours: np.ndarray = np.clip(np.rint(pixels / opacity), 0, 255).astype(np.uint8)
    return colours


def is_gray_jpeg(data: bytes) -> bool:
    """Whether a JPEG file has one component."""
    if not data.startswith(JPEG_START):
        return False
    frames = (
        body for marker, body in jpeg_segments(data) if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
    )
    body = next(frames, None)
    return body is not None and len(data) > body + 5 and data[body + 5] == 1


def is_gray_png(data: bytes) -> bool:
    """Whether a PNG file is gray, with opacity or without."""
    return data.startswith(PNG_START) and len(data) > 25 and data[25] in (0, 4)


@dataclass(frozen=True)
class Output:
    """How results are written, where that is not the input's way.

    Args:
        suffix: suffix of the format, with its dot.
        bits: 8, 16, or 32 for floats.
    """

    suffix: str | None = None
    bits: int | None = None

    def suffix_for(self, name: str) -> str:
        """The suffix of the result of a file."""
        return self.suffix or PurePosixPath(name).suffix.lower()

    def of(self, source: Picture, radiance: bool = False) -> Picture:
        """`source` with the format and the depth that its result has.

        Args:
            radiance: whether the result is radiance, which only formats of floats hold.

        Raises:
            UserError: the format has no such depth.
        """
        suffix = self.suffix or source.suffix
        floats = suffix in FLOATS_ONLY
        if radiance and not floats and suffix not in (".tif", ".tiff"):
            raise UserError(f"results are radiance, which {suffix} cannot hold; give --format exr, hdr, npy or tiff")
        bits = 32 if radiance or floats else self.bits or source.bits
        if not self.bits and not radiance and not floats:
            if bits == 32 and suffix not in (".tif", ".tiff"):
                bits = 16
            if bits == 16 and suffix not in WITH_16_BITS:
                bits = 8
        return replace(source, suffix=suffix, bits=bits)


def encode(name: str, image: np.ndarray, like: Picture) -> bytes:
    """A result as the bytes of a file.

    Args:
        name: name of the file, for messages; its suffix chooses the format.
        image: (H, W, 3) RGB float32, integers' white at 1; changed by this.
        like: picture whose depth, gray and opacity the result has.

    Raises:
        UserError: the format cannot hold it.
    """
    if like.gray:
        image = image.mean(axis=2, keepdims=True)
    if like.bits == 32:
        if like.suffix == ".hdr":
            np.maximum(image, 0, out=image)
        if like.alpha is not None and like.holds_opacity:
            image = np.dstack([image, float_alpha(like.alpha, (image.shape[0], image.shape[1]))])
        return encoded(name, image, 32)
    whole = integers(image, like.bits)
    if like.alpha is not None and like.holds_opacity:
        colours = np.repeat(whole, 3, axis=2) if whole.shape[2] == 1 else whole
        alpha = scaled_alpha(like.alpha, (whole.shape[0], whole.shape[1]), whole.dtype)
        whole = np.dstack([colours, alpha])
    return encoded(name, whole)


def integers(image: np.ndarray, bits: int) -> np.ndarray:
    """`image`, floats with white at 1, rounded to integers of so many bits; in place as far as possible."""
    largest = np.float32(2**bits - 1)
    np.nan_to_num(image, copy=False, nan=0.0)
    np.clip(image, 0, 1, out=image)
    np.multiply(image, largest, out=image)
    np.rint(image, out=image)
    whole: np.ndarray = image.astype(np.uint8 if bits == 8 else np.uint16)
    return whole


def scaled_alpha(alpha: np.ndarray, size: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Opacity, unchanged where size and type are the same; enlarged by cubic interpolation."""
    if alpha.shape == size and alpha.dtype == dtype:
        return alpha
    planes = alpha.astype(np.float32)[..., None] / np.float32(LARGEST.get(alpha.dtype, 1.0))
    return integers(resized(planes, size), dtype.itemsize * 8)[..., 0]


def float_alpha(alpha: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Opacity as floats: those of a file of floats as they are where the size is the same, else enlarged, in [0, 1]."""
    planes: np.ndarray = alpha.astype(np.float32) / np.float32(LARGEST.get(alpha.dtype, 1.0))
    return planes if alpha.shape == size else np.clip(resized(planes[..., None], size)[..., 0], 0, 1)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, C) float32 at another (height, width): cubic, averaging where it shrinks."""
    if image.shape[:2] == size:
        return image
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    made = F.interpolate(planes, size=size, mode="bicubic", align_corners=False, antialias=True)
    result: np.ndarray = made[0].permute(1, 2, 0).contiguous().numpy()
    return result
