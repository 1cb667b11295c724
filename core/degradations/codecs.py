"""Real codecs: an 8-bit image compressed and read back."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np

from ..errors import UserError, require
from ..imaging.opencv import cv2

Codec = Literal["jpeg", "webp", "avif", "h264", "h265"]
VIDEO = {"h264": "libx264", "h265": "libx265"}
"""Encoders of FFmpeg by codec."""
LARGEST_CRF = 51
SMALLEST_FRAME = 32
"""Side in pixels below which x265 refuses a frame."""


def recompress(pixels: np.ndarray, codec: Codec, quality: float) -> np.ndarray:
    """An image as a codec leaves it.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        codec: of photographs (OpenCV's), or of video (FFmpeg's, through PyAV), whose first frame this is.
        quality: from 1 to 100, rounded; for video the constant rate factor is 51 (1 - quality / 100).

    Raises:
        UserError: the codec is not installed, or the quality beyond its range.
    """
    if not 1 <= quality <= 100:
        raise UserError(f"{codec} quality {quality:g}: from 1 to 100 is possible")
    if codec in VIDEO:
        return _video(pixels, codec, quality)
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


def _video(pixels: np.ndarray, codec: str, quality: float) -> np.ndarray:
    """The first frame of a video of one, with 4:2:0 chroma; sides are continued to even ones meanwhile."""
    av: Any = require("av", f"codec {codec}", "pip install 'relume[video]'")
    height, width = pixels.shape[:2]
    down, right = (max(SMALLEST_FRAME - side, side % 2) for side in (height, width))
    frame = av.VideoFrame.from_ndarray(np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="edge"), format="rgb24")
    crf = round(LARGEST_CRF * (1 - quality / 100))
    options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
    if codec == "h265":
        options["x265-params"] = f"log-level=none:pools=none:frame-threads=1:crf={crf}"
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="matroska") as container:
            stream = container.add_stream(VIDEO[codec], rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
            for part in (frame.reformat(format="yuv420p"), None):
                for packet in stream.encode(part):
                    container.mux(packet)
    except (av.error.FFmpegError, ValueError) as e:
        raise UserError(f"codec {codec}: this PyAV ({av.__version__}) cannot write it ({e})") from e
    file.seek(0)
    with av.open(file) as container:
        decoded = next(container.decode(video=0)).to_ndarray(format="rgb24")
    return np.asarray(decoded)[:height, :width]
