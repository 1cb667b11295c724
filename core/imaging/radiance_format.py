"""Radiance pictures (.hdr, .pic): what their header says of exposure, colours and the order of scan lines.

G. Ward, "Radiance File Formats"; the pixels themselves are decoded by OpenCV.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from .storage import UnreadableFile

RESOLUTION = re.compile(rb"([-+][XY]) +(\d+) +([-+][XY]) +(\d+)")


@dataclass(frozen=True)
class Header:
    """What is said before the first pixel.

    Attributes:
        divisor: divisor of the samples B, G, R: the product of all EXPOSUREs, and of COLORCORRs.
        order: the axes as they are scanned, the slow one first, each with its sign: ``-Y``, ``+X`` is from the top.
        sizes: number of pixels along each of those axes.
        pixels: offset of the first pixel.
    """

    divisor: np.ndarray
    order: tuple[str, str]
    sizes: tuple[int, int]
    pixels: int


def read_header(data: bytes, name: str) -> Header:
    """The header of a Radiance picture.

    Raises:
        UnreadableFile: it is none, or says what cannot be understood.
    """
    begin, _, _ = data.partition(b"\n\n")
    end = len(begin) + 2
    line = data[end : data.find(b"\n", end) if b"\n" in data[end:] else len(data)]
    found = RESOLUTION.fullmatch(line.strip())
    if not data.startswith(b"#?") or found is None or found[1][1:] == found[3][1:]:
        raise UnreadableFile(f"{name}: cannot be decoded; the file is truncated, damaged, or not an image")
    divisor = np.ones(3)
    for entry in begin.split(b"\n")[1:]:
        key, equals, value = entry.partition(b"=")
        word = key.strip().upper()
        if word == b"FORMAT" and value.strip() != b"32-bit_rle_rgbe":
            raise UnreadableFile(
                f"{name}: is of the format {value.strip().decode(errors='replace')}; 32-bit_rle_rgbe can be read"
            )
        if equals and word in (b"EXPOSURE", b"COLORCORR"):
            divisor = divisor * factors(value, 1 if word == b"EXPOSURE" else 3, name)
    order = (found[1].decode(), found[3].decode())
    return Header(divisor, order, (int(found[2]), int(found[4])), end + len(line) + 1)


def factors(value: bytes, count: int, name: str) -> np.ndarray:
    """One number, or three of R, G, B in the order B, G, R.

    Raises:
        UnreadableFile: others than positive numbers.
    """
    try:
        numbers = [float(word) for word in value.split()]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(0 < n < math.inf for n in numbers):
        said = value.strip().decode(errors="replace")
        raise UnreadableFile(
            f"{name}: its header has the exposure or colour correction '{said}', not {count} positive number(s)"
        )
    return np.array(numbers[::-1])


def usual_order(data: bytes, header: Header) -> bytes:
    """The file as if its scan lines went from the top, each from the left, which is what decoders know."""
    lines, length = header.sizes
    return b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n" + f"-Y {lines} +X {length}\n".encode() + data[header.pixels :]


def as_meant(scanned: np.ndarray, header: Header) -> np.ndarray:
    """Radiance (H, W, 3) BGR, upright, from what was decoded of `usual_order`."""
    image = scanned
    signs = [axis[0] for axis in header.order]
    if header.order[0][1] == "X":
        image, signs = image.swapaxes(0, 1), signs[::-1]
    if signs[0] == "+":  # Y grows upwards
        image = image[::-1]
    if signs[1] == "-":
        image = image[:, ::-1]
    divided = image if (header.divisor == 1).all() else image / header.divisor
    return np.ascontiguousarray(divided, np.float32)
