"""What files of integer samples say about their samples, and OpenCV does not heed.

| said by | format | done here |
|---|---|---|
| Exif orientation | PNG (``eXIf``, W3C PNG third edition), WebP (``EXIF``); OpenCV turns JPEG and TIFF | turned upright |
| maxval | PGM, PPM, plain and raw (pgm(5), ppm(5)) | samples / maxval |
| PhotometricInterpretation 0, white is zero | TIFF 6.0; OpenCV inverts 8-bit samples | 16-bit samples inverted |
| PhotometricInterpretation 5 and above | TIFF of 16 bits: CMYK, Lab | refused |
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import numpy as np

from .ceilings import refuse_large
from .image_header import PNG_START, is_truncated
from .storage import UnreadableFile

ORIENTATION, PHOTOMETRIC = 0x0112, 0x0106
WHITE_IS_ZERO, PALETTE = 0, 3
NETPBM = re.compile(rb"P[2356]\s")
TOKEN = re.compile(rb"\s*(?:#[^\n\r]*[\n\r]\s*)*(\d+)")


def decode(data: bytes, name: str, flags: int) -> np.ndarray:
    """An image (H, W[, C]) as OpenCV orders it, upright, its samples what the file means by them.

    Args:
        data: the file.
        name: of the file, for messages.
        flags: OpenCV's ``IMREAD_*``.

    Returns:
        The file's integers, which span their type, or floats; floats in [0, 1] of a Netpbm file with another maxval than 255
        and 65535.

    Raises:
        UnreadableFile: truncated, damaged, or samples that cannot be understood.
    """
    from .opencv import cv2

    # Some releases of OpenCV return the readable part of a truncated file without saying so.
    cut = is_truncated(data)
    refuse_large(data, name)
    if NETPBM.match(data):
        return decode_netpbm(data, name)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data and not cut else None
    except cv2.error as e:
        raise UnreadableFile(f"{name}: not a readable image ({str(e).splitlines()[0]})") from e
    if image is None:
        what = "empty" if not data else "truncated" if cut else "truncated, damaged, or not an image"
        raise UnreadableFile(f"{name}: cannot be decoded; the file is {what}")
    samples = np.asarray(image)
    if data[:2] in (b"II", b"MM"):
        return positive(samples, tag(data, PHOTOMETRIC), name)
    exif = exif_block(data) if flags == cv2.IMREAD_UNCHANGED else None
    return upright(samples, tag(exif, ORIENTATION) or 1) if exif else samples


# ------------------------------------------------------------------ TIFF's structure, which Exif has too
def tag(data: bytes, number: int) -> int | None:
    """The value of a tag of one short or long in the first directory of a TIFF file; None without."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return None
    big = data[2:4] in (b"\x2b\x00", b"\x00\x2b")
    offset, count, entry = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    try:
        (at,) = struct.unpack_from(order + offset, data, 8 if big else 4)
        (entries,) = struct.unpack_from(order + count, data, at)
        at += struct.calcsize(order + count)
        for _ in range(min(entries, 4096)):
            found, kind, _ = struct.unpack_from(order + entry, data, at)
            at += struct.calcsize(order + entry)
            if found == number:
                value: int = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at)[0]
                return value
            at += struct.calcsize(order + offset)
    except struct.error:  # points beyond the end
        pass
    return None


def positive(samples: np.ndarray, photometric: int | None, name: str) -> np.ndarray:
    """Samples of a TIFF file such that more is brighter.

    Raises:
        UnreadableFile: they are neither gray nor RGB, or floats of which nobody knows which is white.
    """
    if samples.dtype == np.uint8 or photometric is None:
        return samples
    if photometric > PALETTE:
        raise UnreadableFile(
            f"{name}: holds {samples.dtype} samples that are neither gray nor RGB (PhotometricInterpretation {photometric})"
        )
    if photometric != WHITE_IS_ZERO:
        return samples
    if samples.dtype != np.uint16:
        raise UnreadableFile(f"{name}: holds {samples.dtype} samples of which 0 is white, and none is said to be black")
    return np.asarray(np.invert(samples))


# ------------------------------------------------------------------ orientation
def exif_block(data: bytes) -> bytes | None:
    """The Exif block of a PNG or WebP file, without ``Exif\\0\\0`` in front."""
    blocks = (block for kind, block in chunks(data) if kind in (b"eXIf", b"EXIF"))
    found = next(blocks, None)
    return None if found is None else found.removeprefix(b"Exif\0\0")


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG or WebP file: name and contents."""
    png = data.startswith(PNG_START)
    if not png and (data[:4] != b"RIFF" or data[8:12] != b"WEBP"):
        return
    at = 8 if png else 12
    while at + 8 <= len(data):
        if png:
            (size,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        else:
            (size,), kind = struct.unpack_from("<I", data, at + 4), data[at : at + 4]
        yield kind, data[at + 8 : at + 8 + size]
        at += 8 + size + (4 if png else size % 2)  # a checksum follows, or a padding byte


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W[, C]) turned and mirrored as Exif's orientation, 1 to 8, asks for; as it is with any other number."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


# ------------------------------------------------------------------ Netpbm
def decode_netpbm(data: bytes, name: str) -> np.ndarray:
    """A gray or colour picture, plain (P2, P3) or raw (P5, P6): (H, W) or (H, W, 3) BGR.

    Raises:
        UnreadableFile: a header or samples that make no picture.
    """
    kind, at, header = data[1:2], 2, []
    for _ in range(3):
        found = TOKEN.match(data, at)
        if found is None:
            raise UnreadableFile(f"{name}: cannot be decoded; width, height and maxval are not in its header")
        header.append(int(found[1][:9]))
        at = found.end()
    width, height, maxval = header
    channels = 3 if kind in b"36" else 1
    if not (width and height and 0 < maxval < 65536):
        raise UnreadableFile(f"{name}: cannot be decoded; its header says {width}x{height} pixels, maxval {maxval}")
    wanted = width * height * channels
    if kind in b"23":
        try:
            words = re.sub(rb"#[^\n\r]*", b"", data[at:]).split(maxsplit=wanted)[:wanted]
            samples = np.array([int(word) for word in words], np.int64)
        except ValueError as e:
            raise UnreadableFile(f"{name}: cannot be decoded; its samples are not all numbers") from e
    else:
        samples = np.frombuffer(data[at + 1 : at + 1 + wanted * (1 + (maxval > 255))], np.uint8)
        samples = samples if maxval < 256 else samples[: samples.size // 2 * 2].view(">u2")
    if samples.size < wanted:
        raise UnreadableFile(f"{name}: cannot be decoded; the file is truncated")
    if samples.min() < 0 or samples.max() > maxval:
        raise UnreadableFile(
            f"{name}: holds the sample {samples.max()}, and its header says that {maxval} is the largest"
        )
    image = samples.reshape(height, width, 3)[..., ::-1] if channels == 3 else samples.reshape(height, width)
    if maxval in (255, 65535):
        return np.ascontiguousarray(image, np.uint8 if maxval == 255 else np.uint16)
    return np.ascontiguousarray(image.astype(np.float64) / maxval, np.float32)
