"""JPEG files of which a patch is wanted, decoded no further than that.

A decoder reads a sequential JPEG from its top to its bottom, and ends with the last row that the header tells of. It is
therefore told of no more rows than are wanted, and of some below them, from which colours at their lower edge are interpolated.
The pixels are those of the whole picture to the bit, which is tried with the first picture of each process. The columns beside
a patch are decoded all the same: Huffman codes have no place to begin in the middle of a row.
"""

from __future__ import annotations

import io
import logging
import struct
from typing import NamedTuple

import numpy as np

from . import conventions
from .ceilings import refuse_large
from .image_header import JPEG_START, is_truncated, jpeg_segments
from .image_io import read_pixels
from .tiff_header import tag

log = logging.getLogger("relume")
SEQUENTIAL = (0xC0, 0xC1)
"""Markers of frames that are decoded from top to bottom, by Huffman codes."""
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SCAN = 0xDA
MOST_PIXELS = 80_000_000
"""Number of pixels above which Pillow warns of decompression bombs."""
_as_whole: list[bool] = []
"""Whether parts are what the whole picture has there, once it was tried."""


class Frame(NamedTuple):
    """What a sequential JPEG says of itself: where its height stands, its size, and the rows of a block of it."""

    at: int
    height: int
    width: int
    block: int


def frame_of(data: bytes) -> Frame | None:
    """The frame of a picture that can be decoded in part: sequential, 8 bits, gray or three colours in one scan, upright."""
    found = None
    for marker, body in jpeg_segments(data) if data.startswith(JPEG_START) else ():
        if marker in FRAMES:
            if marker not in SEQUENTIAL or len(data) < body + 15:
                return None
            bits, height, width, parts = struct.unpack(">BHHB", data[body : body + 6])
            if bits != 8 or parts not in (1, 3) or not height:
                return None
            rows = 8 if parts == 1 else 8 * max(data[body + 7 + 3 * i] & 15 for i in range(parts))
            found = (Frame(body + 1, height, width, rows), parts)
        if marker == SCAN and (found is None or data[body] != found[1]):
            return None
    exif = conventions.exif_block(data) if found else None
    if found is None or (exif and (tag(exif, conventions.ORIENTATION) or 1) != 1):
        return None
    return found[0] if found[0].height * found[0].width <= MOST_PIXELS else None


class Undecoded:
    """A picture, (H, W, 3) RGB uint8, of which a window can be taken as of an array; what is above and in it is decoded.

    Args:
        data: the file.
        name: name of the file, for messages.
        frame: what `frame_of` gives for the file.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, data: bytes, name: str, frame: Frame) -> None:
        self.data, self.name, self.frame = data, name, frame
        self.shape = (frame.height, frame.width, 3)

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        rows, columns = window
        bottom = rows.indices(self.frame.height)[1]
        part = self._rows(bottom)
        if part is not None and not _as_whole:
            _as_whole.append(np.array_equal(part[:bottom], read_pixels(self.data, self.name)[:bottom]))
            if not _as_whole[0]:
                log.info("JPEG files are decoded whole: Pillow and OpenCV, as installed here, decode them differently")
        if part is None or not _as_whole[0]:
            return read_pixels(self.data, self.name)[rows, columns]
        return part[rows, columns]

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(read_pixels(self.data, self.name), dtype)

    def _rows(self, bottom: int) -> np.ndarray | None:
        """At least the rows above `bottom`, (h, W, 3); None where Pillow does not give them."""
        from PIL import Image

        at, block = self.frame.at, self.frame.block
        height = min(self.frame.height, (-(-bottom // block) + 1) * block)
        told = self.data[:at] + struct.pack(">H", height) + self.data[at + 2 :]
        try:
            with Image.open(io.BytesIO(told), formats=["JPEG"]) as picture:
                found = np.asarray(picture)
        except Exception:  # of what Pillow cannot read, the whole picture says what there is to be said
            return None
        if found.ndim == 2:
            found = np.repeat(found[..., None], 3, axis=2)
        return found if found.shape == (height, self.frame.width, 3) and found.dtype == np.uint8 else None


def undecoded(data: bytes, name: str) -> Undecoded | None:
    """A picture that can be decoded in part; None for one that has to be decoded whole, or cannot be.

    Raises:
        UnreadableFile: it has more pixels than the ceilings allow.
    """
    if (_as_whole and not _as_whole[0]) or (frame := frame_of(data)) is None or is_truncated(data):
        return None
    try:
        from PIL import Image  # noqa: F401
    except ImportError:
        return None
    refuse_large(data, name)
    return Undecoded(data, name, frame)
