"""What pictures and entries of archives would unpack to, read from their headers before anything is decoded."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from typing import IO

from ..errors import printable
from ..files.ceilings import in_force
from .image_header import JPEG_START, PNG_START, image_size
from .storage import UnreadableFile
from .tiff_header import directories, tag

WIDTH, LENGTH = 0x0100, 0x0101
"""Tags of a TIFF directory."""


def refuse_pixels(height: int, width: int, name: str) -> None:
    """Refuse a picture of more pixels than ``data.max_pixels``.

    Raises:
        UnreadableFile: the picture has more pixels.
    """
    most = in_force().max_pixels
    if height * width > most:
        raise UnreadableFile(
            f"{printable(name)}: its header says {height:,} x {width:,} pixels, and data.max_pixels is {most:,}; raise it if "
            "that is right"
        )


def refuse_large(data: bytes, name: str) -> None:
    """`refuse_pixels` of an encoded picture, where its header is understood."""
    size = announced(data)
    if size is not None:
        refuse_pixels(*size, name)


def unpacked(open_entry: Callable[[], IO[bytes]], announced_bytes: int, name: str) -> bytes:
    """An entry of an archive, of which no more than ``data.max_unpacked_bytes`` is read, whatever it announces.

    Raises:
        UnreadableFile: it is larger.
    """
    refuse_entry(announced_bytes, name)
    with open_entry() as file:
        data = file.read(in_force().max_unpacked_bytes + 1)
    refuse_entry(len(data), name)
    return data


def refuse_entry(size: int, name: str) -> None:
    """Refuse an archive's entry of more bytes than ``data.max_unpacked_bytes``.

    Raises:
        UnreadableFile: the entry has more bytes.
    """
    most = in_force().max_unpacked_bytes
    if size > most:
        raise UnreadableFile(
            f"{printable(name)}: unpacks to {size:,} bytes or more, and data.max_unpacked_bytes is {most:,}"
        )


# ------------------------------------------------------------------ headers
def announced(data: bytes) -> tuple[int, int] | None:
    """(height, width) that an encoded picture's header says; None where it is not understood.

    Of PNG, JPEG, BMP, TIFF (its largest directory), WebP, JPEG 2000, Netpbm, PFM, Radiance and OpenEXR; and of GIF, AVIF, Sun
    rasters and PAM, which OpenCV knows by their content, whatever they are called.
    """
    if data.startswith((PNG_START, JPEG_START, b"BM")):
        return image_size(data)
    for reader in (_webp, _jpeg2000, _netpbm, _radiance, _exr, _tiff, _others):
        found = reader(data)
        if found is not None:
            return found
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return height & 0x3FFF, width & 0x3FFF


def _jpeg2000(data: bytes) -> tuple[int, int] | None:
    if data.startswith(b"\xff\x4f\xff\x51") and len(data) >= 24:  # a bare code stream
        right, bottom, left, top = struct.unpack_from(">IIII", data, 8)
        return bottom - top, right - left
    at = data.find(b"ihdr", 0, 4096) if data[4:8] == b"jP  " else -1
    return struct.unpack_from(">II", data, at + 4) if 0 < at <= len(data) - 12 else None


def _others(data: bytes) -> tuple[int, int] | None:
    sizes: list[tuple[int, int]] = []  # (width, height)
    if data.startswith((b"GIF87a", b"GIF89a")) and len(data) >= 10:
        sizes.append(struct.unpack_from("<HH", data, 6))
    if data.startswith(b"\x59\xa6\x6a\x95") and len(data) >= 12:
        sizes.append(struct.unpack_from(">II", data, 4))
    if data.startswith(b"P7"):
        found = [re.search(rb"\n" + word + rb"\s+(\d{1,12})\s", data[:4096]) for word in (b"WIDTH", b"HEIGHT")]
        sizes += [(int(found[0][1]), int(found[1][1]))] if found[0] and found[1] else []
    if data[4:8] == b"ftyp":  # the sizes of all images in it, of which the largest is asked for
        boxes = re.finditer(rb"ispe.{4}(.{8})", data[:1_000_000], re.DOTALL)
        sizes += [struct.unpack(">II", box[1]) for box in boxes]
    width, height = max(sizes, key=math.prod, default=(0, 0))
    return (height, width) if sizes else None


def _netpbm(data: bytes) -> tuple[int, int] | None:
    comment = rb"(?:\s|#[^\n\r]*[\n\r])+"
    found = re.match(rb"P[1-7Ff]" + comment + rb"(\d{1,12})" + comment + rb"(\d{1,12})", data[:4096])
    return (int(found[2]), int(found[1])) if found else None


def _radiance(data: bytes) -> tuple[int, int] | None:
    found = re.search(rb"\n\n[-+][XY] +(\d{1,12}) +[-+][XY] +(\d{1,12})", data[:65536]) if data[:2] == b"#?" else None
    return (int(found[1]), int(found[2])) if found else None


def _exr(data: bytes) -> tuple[int, int] | None:
    mark = b"dataWindow\0box2i\0"
    at = data.find(mark, 0, 65536) if data.startswith(b"\x76\x2f\x31\x01") else -1
    if at < 0 or len(data) < at + len(mark) + 20:
        return None
    left, top, right, bottom = struct.unpack_from("<iiii", data, at + len(mark) + 4)
    return max(bottom - top + 1, 0), max(right - left + 1, 0)


def _tiff(data: bytes) -> tuple[int, int] | None:
    sizes = [(tag(data, LENGTH, at) or 0, tag(data, WIDTH, at) or 0) for at in directories(data)]
    return max(sizes, key=math.prod) if sizes else None
