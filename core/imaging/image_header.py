"""An image's size from the first bytes of its file, so that thousands of files can be checked before training."""

from __future__ import annotations

import struct
from collections.abc import Iterator

JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA


def image_size(head: bytes) -> tuple[int, int] | None:
    """(height, width) of a PNG, JPEG or BMP file from its beginning; None for other formats and too short a beginning.

    Exif's orientation is not looked at: height and width may be swapped; see `conventions.shown_size`.
    """
    if head.startswith(PNG_START) and len(head) >= 24:
        width, height = struct.unpack(">II", head[16:24])
        return height, width
    if head.startswith(b"BM") and len(head) >= 26:
        width, height = struct.unpack("<ii", head[18:26])
        return abs(height), width
    if head.startswith(JPEG_START):
        for marker, body in jpeg_segments(head):
            if marker in _START_OF_FRAME and len(head) >= body + 5:
                height, width = struct.unpack(">HH", head[body + 1 : body + 5])
                return height, width
    return None


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, offset of its contents) of a JPEG file's segments, up to the first scan; what thumbnails hold is skipped."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding between segments
            at += 1
            continue
        yield marker, at + 4
        if marker == _START_OF_SCAN:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def is_truncated(data: bytes) -> bool:
    """Whether a PNG or JPEG file lacks its end mark. Data after the mark (a phone's video, say) do no harm."""
    if data.startswith(PNG_START):
        return b"IEND" not in data
    if data.startswith(JPEG_START):
        scan = next((body for marker, body in jpeg_segments(data) if marker == _START_OF_SCAN), len(data))
        return data.find(b"\xff\xd9", scan) < 0
    return False
