"""What files of integer samples say about their samples, and OpenCV does not heed.

| said by | format | done here |
|---|---|---|
| Exif orientation | PNG (``eXIf``, W3C PNG third edition), WebP (``EXIF``); OpenCV turns JPEG and TIFF | turned upright |
| maxval | PGM, PPM, plain and raw, PAM (pgm(5), ppm(5), pam(5)) | samples / maxval |
| precision | JPEG 2000 (SIZ, ISO/IEC 15444-1), TIFF of 10, 12 and 14 bits | samples / (2^bits - 1) |
| a second page, frame or image | TIFF, animated PNG and WebP | the first is read, and a line says so |
| PhotometricInterpretation 0, white is zero | TIFF 6.0; OpenCV inverts 8-bit samples | 16-bit samples inverted |
| PhotometricInterpretation 5 and above | TIFF of 16 bits: CMYK, Lab | refused |
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator

import numpy as np

from .ceilings import refuse_large
from .image_header import JPEG_START, PNG_START, image_size, is_truncated, jpeg_segments
from .storage import UnreadableFile
from .tiff_header import TIFF_START, directories, tag

ORIENTATION, PHOTOMETRIC, BITS, SAMPLES, KIND = 0x0112, 0x0106, 0x0102, 0x0115, 0x00FE
WHITE_IS_ZERO, PALETTE, CMYK = 0, 3, 5
TURNED = (5, 6, 7, 8)
"""Orientations at which height and width are exchanged."""
APP1 = 0xE1
JPEG_2000 = (b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51")
NETPBM = re.compile(rb"P[23567]\s")
PAM = re.compile(rb"^(WIDTH|HEIGHT|MAXVAL|DEPTH)[ \t]+(\d{1,9})\s*$", re.MULTILINE)
TOKEN = re.compile(rb"\s*(?:#[^\n\r]*[\n\r]\s*)*(\d+)")


def decode(data: bytes, name: str, flags: int) -> np.ndarray:
    """An image (H, W[, C]) as OpenCV orders it, upright, its samples what the file means by them.

    Args:
        data: the file.
        name: name of the file, for messages.
        flags: OpenCV's ``IMREAD_*``.

    Returns:
        The file's integers, which span their type, or floats; floats in [0, 1] where the file says another
        sample for white than its type's largest.

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
        what += f", or of a kind that is not read: {kind}" if (kind := tiff_kind(data)) else ""
        raise UnreadableFile(f"{name}: cannot be decoded; the file is {what}")
    samples = np.asarray(image)
    if data[:2] in TIFF_START:
        photometric = tag(data, PHOTOMETRIC)
        if photometric == CMYK and samples.shape[2:] == (4,):  # OpenCV gives opaque BGRA
            samples = samples[..., :3]
        samples = positive(samples, photometric, name)
    if (most := white(data, name)) is not None:
        samples = samples // 2 ** (16 - most.bit_length()) if data[:2] in TIFF_START else samples
        return np.asarray(samples / np.float64(most), np.float32)
    if data[:2] in TIFF_START:
        return samples
    turned = data.startswith(JPEG_START)  # by OpenCV
    exif = exif_block(data) if flags == cv2.IMREAD_UNCHANGED and not turned else None
    return upright(samples, tag(exif, ORIENTATION) or 1) if exif else samples


def white(data: bytes, name: str) -> int | None:
    """The sample that is white, where the file says another one than its type's largest; None elsewhere.

    Raises:
        UnreadableFile: JPEG 2000 of signed samples, or of more than 16 bits.
    """
    if data[:2] in TIFF_START:
        bits = tag(data, BITS)
        return 2**bits - 1 if bits in (10, 12, 14) else None
    size = data.find(b"\xff\x4f\xff\x51", 0, 1 << 16) if data.startswith(JPEG_2000) else -1
    if size < 0 or len(data) <= size + 42:
        return None
    bits, signed = data[size + 42] % 128 + 1, data[size + 42] >= 128
    if signed or bits > 16:
        kind = "signed samples" if signed else "samples"
        raise UnreadableFile(f"{name}: holds {kind} of {bits} bits; unsigned ones of up to 16 can be read")
    return None if bits in (8, 16) else 2**bits - 1


def tiff_kind(data: bytes) -> str:
    """What a TIFF file says of its samples; empty for other files."""
    bits = tag(data, BITS)
    if bits is None:
        return ""
    return f"{tag(data, SAMPLES) or 1} samples of {bits} bits, PhotometricInterpretation {tag(data, PHOTOMETRIC)}"


def pictures(data: bytes) -> bool:
    """Whether a file holds more than the one picture that is read: pages of a TIFF, frames of an animated PNG or WebP."""
    if data[:2] in TIFF_START:
        second = next(itertools.islice(directories(data), 1, None), None)
        return second is not None and not (tag(data, KIND, second) or 0) & 5  # neither thumbnail nor mask
    if b"acTL" not in data and b"ANIM" not in data:
        return False  # most files: a search takes a tenth of the time that going through the chunks takes
    return any(kind in (b"acTL", b"ANIM") for kind, _ in itertools.islice(chunks(data), 16))


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
def shown_size(head: bytes) -> tuple[int, int] | None:
    """(height, width) of a PNG, JPEG or BMP file as `decode` gives it, from its beginning; None where that does not say it."""
    size = image_size(head)
    exif = exif_block(head) if size else None
    return size[::-1] if size and exif and (tag(exif, ORIENTATION) or 1) in TURNED else size


def exif_block(data: bytes) -> bytes | None:
    """The Exif block of a PNG, WebP or JPEG file, without ``Exif\\0\\0`` in front."""
    there = b"eXIf" in data or b"EXIF" in data
    blocks = (block for kind, block in chunks(data) if kind in (b"eXIf", b"EXIF")) if there else iter(())
    if data.startswith(JPEG_START):
        of_app1 = (data[at : at + 65533] for marker, at in jpeg_segments(data) if marker == APP1)
        blocks = (block for block in of_app1 if block.startswith(b"Exif\0\0"))
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
    if orientation in TURNED:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


# ------------------------------------------------------------------ Netpbm
def netpbm_header(data: bytes, name: str) -> tuple[int, int, int, int, int]:
    """Width, height, maxval and channels of a Netpbm file, and where its header ends (before one byte of white space).

    Raises:
        UnreadableFile: they are not there.
    """
    lacking = UnreadableFile(f"{name}: cannot be decoded; width, height and maxval are not in its header")
    at, header = 2, []
    if data[1:2] == b"7":
        end = re.search(rb"^ENDHDR(?=\n)", data[:65536], re.MULTILINE)
        said = dict(PAM.findall(data[: end.start()])) if end else {}
        if end is None or len(said) < 4:
            raise lacking
        width, height, maxval, depth = (int(said[key]) for key in (b"WIDTH", b"HEIGHT", b"MAXVAL", b"DEPTH"))
        return width, height, maxval, depth, end.end()
    for _ in range(3):
        found = TOKEN.match(data, at)
        if found is None:
            raise lacking
        header.append(int(found[1][:9]))
        at = found.end()
    return header[0], header[1], header[2], 3 if data[1:2] in b"36" else 1, at


def decode_netpbm(data: bytes, name: str) -> np.ndarray:
    """A gray or colour picture, plain (P2, P3), raw (P5, P6) or PAM (P7): (H, W) or (H, W, 3 or 4) BGR.

    Raises:
        UnreadableFile: a header or samples that make no picture.
    """
    kind = data[1:2]
    width, height, maxval, channels, at = netpbm_header(data, name)
    if not 1 <= channels <= 4:
        raise UnreadableFile(f"{name}: has {channels} channels; gray, RGB and RGBA images can be read")
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
    image = samples.reshape(height, width, channels)
    # Gray, gray and alpha, RGB, RGBA, in OpenCV's order.
    image = image[..., {1: [0], 2: [0, 0, 0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]]
    image = image[..., 0] if channels == 1 else image
    if maxval in (255, 65535):
        return np.ascontiguousarray(image, np.uint8 if maxval == 255 else np.uint16)
    return np.ascontiguousarray(image.astype(np.float64) / maxval, np.float32)
