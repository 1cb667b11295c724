"""Videos whose frames say their own number, in ways that containers and decoders get wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

BITS, SIDE = 8, 16


def numbered(number: int, height: int = 32) -> np.ndarray:
    """A picture of 128 x 32 whose black and white columns are the bits of a number, (H, W, 3) uint8."""
    bits = [(number >> bit) & 1 for bit in range(BITS)]
    row = np.repeat(np.array(bits, np.uint8) * 255, SIDE)
    return np.repeat(np.repeat(row[None], height, 0)[..., None], 3, 2)


def number_of(image: np.ndarray) -> int:
    """The number that a picture says, of integers or floats of any range."""
    level = image.astype(np.float64).mean(axis=(0, 2)).reshape(BITS, SIDE).mean(1)
    white = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(image.dtype, 1)
    return sum(1 << bit for bit in range(BITS) if level[bit] > white / 2)


def encode(
    path: Path,
    count: int,
    codec: str,
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    rate: Fraction = Fraction(25),
    options: dict[str, str] | None = None,
) -> Path:
    """`count` numbered frames, at `times` in milliseconds or else one after the other."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = BITS * SIDE, 32, pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(i), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def program_stream(path: Path, count: int) -> Path:
    """What OpenCV writes as MPEG-1: a program stream has neither index nor count."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"PIM1"), 25, (BITS * SIDE, 32))
    for i in range(count):
        writer.write(numbered(i))
    writer.release()
    return path


def boxes(data: bytes, start: int, end: int) -> dict[bytes, tuple[int, int]]:
    """Beginning and end of each box in a part of an MP4 file, by kind."""
    found = {}
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        found[kind] = (start, start + size)
        start += size
    return found


def inside(data: bytes, *kinds: bytes) -> tuple[int, int]:
    """Beginning and end of the box that one gets to by these kinds."""
    start, end = 0, len(data)
    for kind in kinds:
        start, end = boxes(data, start, end)[kind]
        start += 8
    return start - 8, end


def shown_from(path: Path, first: int, count: int, rate: int = 25) -> Path:
    """Change an MP4's edit list so that only some of its frames are shown (ISO/IEC 14496-12, 8.6.6)."""
    data = bytearray(path.read_bytes())
    scale = struct.unpack(">I", data[inside(data, b"moov", b"mvhd")[0] + 20 :][:4])[0]
    media = inside(data, b"moov", b"trak", b"mdia", b"mdhd")[0]
    ticks = struct.unpack(">I", data[media + 20 : media + 24])[0]
    at = inside(data, b"moov", b"trak", b"edts", b"elst")[0]
    begins = struct.unpack(">i", data[at + 20 : at + 24])[0]
    data[at + 16 : at + 24] = struct.pack(">Ii", count * scale // rate, begins + first * ticks // rate)
    path.write_bytes(data)
    return path


def lying(path: Path, count: int) -> Path:
    """Have an AVI's headers say another number of frames (avih's dwTotalFrames, strh's dwLength)."""
    data = bytearray(path.read_bytes())
    for chunk, offset in ((b"avih", 16), (b"strh", 32)):
        at = data.index(chunk) + 8 + offset
        data[at : at + 4] = struct.pack("<I", count)
    path.write_bytes(data)
    return path


def turned(path: Path) -> Path:
    """Say in an MP4's track header that it is to be turned by a quarter, clockwise."""
    data = bytearray(path.read_bytes())
    at = inside(data, b"moov", b"trak", b"tkhd")[0] + 48
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
