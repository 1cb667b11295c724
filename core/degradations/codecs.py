"""Real codecs: an 8-bit image, or a clip of them, compressed and read back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from ..errors import UserError, require
from ..imaging.opencv import cv2

Codec = Literal["jpeg", "webp", "avif", "h264", "h265", "mpeg4"]
VIDEO = {"h264": "libx264", "h265": "libx265", "mpeg4": "mpeg4"}
"""Encoders of FFmpeg by codec."""
RATE = 25
LARGEST_CRF = 51
LARGEST_Q = 31
"""Quantiser of MPEG-4 Part 2."""
SMALLEST_FRAME = 32
"""Side in pixels below which x265 refuses a frame."""


def recompress(pixels: np.ndarray, codec: Codec, quality: float) -> np.ndarray:
    """An image as a codec leaves it.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        codec: codec of photographs (OpenCV's), or of video (FFmpeg's, through PyAV), whose first frame this is.
        quality: quality from 1 to 100, rounded; for video the constant rate factor is 51 (1 - quality / 100), MPEG-4's
            quantiser 1 + 30 (1 - quality / 100).

    Raises:
        UserError: the codec is not installed, or the quality beyond its range.
    """
    if codec in VIDEO:
        return recompress_clip([pixels], codec, quality)[0]
    _refuse(codec, quality)
    flags = {"jpeg": cv2.IMWRITE_JPEG_QUALITY, "webp": cv2.IMWRITE_WEBP_QUALITY, "avif": cv2.IMWRITE_AVIF_QUALITY}
    suffix = ".jpg" if codec == "jpeg" else f".{codec}"
    settings = [flags[codec], round(quality)]
    if codec == "avif":
        settings += [cv2.IMWRITE_AVIF_SPEED, 9]
    try:
        encoded = cv2.imencode(suffix, np.ascontiguousarray(pixels[..., ::-1]), settings)[1]
    except cv2.error as e:
        raise UserError(f"codec {codec}: this OpenCV ({cv2.__version__}) cannot write it") from e
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))[..., ::-1]


def recompress_clip(frames: Sequence[np.ndarray], codec: Codec, quality: float) -> list[np.ndarray]:
    """A clip as a codec leaves it: codecs of video predict frames from each other, those of photographs take each by itself.

    Chroma is kept at half size (4:2:0); sides are continued to even ones meanwhile.

    Args:
        frames: (H, W, 3) uint8 RGB, of one size.
        codec, quality: codec and quality, as `recompress` takes them.

    Raises:
        UserError: the installed PyAV cannot write `codec`, or gives another number of frames back.
    """
    _refuse(codec, quality)
    if codec not in VIDEO:
        return [recompress(frame, codec, quality) for frame in frames]
    av: Any = require("av", f"codec {codec}", "pip install 'relume[video]'")
    height, width = frames[0].shape[:2]
    down, right = (max(SMALLEST_FRAME - side, side % 2) for side in (height, width))
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="matroska") as container:
            stream = container.add_stream(VIDEO[codec], rate=RATE, options=_settings(codec, quality))
            stream.width, stream.height, stream.pix_fmt = width + right, height + down, "yuv420p"
            for number, pixels in enumerate(frames):
                padded = np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="edge")
                frame = av.VideoFrame.from_ndarray(padded, format="rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, RATE)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (av.error.FFmpegError, ValueError) as e:
        raise UserError(f"codec {codec}: this PyAV ({av.__version__}) cannot write it ({e})") from e
    file.seek(0)
    with av.open(file) as container:
        decoded = [np.asarray(f.to_ndarray(format="rgb24"))[:height, :width] for f in container.decode(video=0)]
    if len(decoded) != len(frames):
        raise UserError(f"codec {codec}: made {len(decoded)} frames of {len(frames)}")
    return decoded


def _refuse(codec: str, quality: float) -> None:
    """Raise UserError for a quality that there is not."""
    if not 1 <= quality <= 100:
        raise UserError(f"{codec} quality {quality:g}: from 1 to 100 is possible")


def _settings(codec: str, quality: float) -> dict[str, str]:
    """Settings of the encoder; one thread, so that results do not depend on how many there are."""
    if codec == "mpeg4":
        q = str(1 + round((LARGEST_Q - 1) * (1 - quality / 100)))
        return {"qmin": q, "qmax": q, "threads": "1"}
    crf = round(LARGEST_CRF * (1 - quality / 100))
    options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
    if codec == "h265":
        options["x265-params"] = f"log-level=none:pools=none:frame-threads=1:crf={crf}"
    return options
