"""OpenEXR files of luminance and chroma, byte by byte, since the library's Python side writes none."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np


def attribute(name: str, kind: str, value: bytes) -> bytes:
    return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value


def encode(planes: Mapping[str, tuple[np.ndarray, int]], more: bytes = b"") -> bytes:
    """An uncompressed scan-line file of float32 channels, each with its sampling step in both directions."""
    planes = dict(sorted(planes.items()))
    height, width = next(p.shape for p, step in planes.values() if step == 1)
    listed = b"".join(
        name.encode() + b"\0" + struct.pack("<iB3xii", 2, 0, step, step) for name, (_, step) in planes.items()
    )
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    header = struct.pack("<ii", 20000630, 2)
    header += attribute("channels", "chlist", listed + b"\0") + attribute("compression", "compression", b"\0")
    header += attribute("dataWindow", "box2i", window) + attribute("displayWindow", "box2i", window)
    header += attribute("lineOrder", "lineOrder", b"\0") + attribute("pixelAspectRatio", "float", struct.pack("<f", 1))
    header += attribute("screenWindowCenter", "v2f", bytes(8))
    header += attribute("screenWindowWidth", "float", struct.pack("<f", 1)) + more + b"\0"
    lines = []
    for y in range(height):
        samples = b"".join(plane[y // step].astype("<f4").tobytes() for plane, step in planes.values() if y % step == 0)
        lines.append(struct.pack("<ii", y, len(samples)) + samples)
    at = len(header) + 8 * height
    offsets = b""
    for line in lines:
        offsets += struct.pack("<Q", at)
        at += len(line)
    return header + offsets + b"".join(lines)
