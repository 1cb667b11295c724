"""How frames are encoded: which codecs each container takes, at which depths, and what a user may ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError, require

Depths = dict[int, str]
"""Pixel format by bits per sample."""


@dataclass(frozen=True)
class Codec:
    """A codec as it is used here.

    Attributes:
        encoder: FFmpeg's name of it.
        formats: how it holds colours, by bits per sample; chroma at half size.
        settings: options of the encoder.
        crf: the constant rate factor, where it has one.
        worst: the largest constant rate factor.
        whole: whether odd sides need chroma at full size.
    """

    encoder: str
    formats: Depths
    settings: dict[str, str] = field(default_factory=dict)
    crf: float | None = None
    worst: int = 51
    whole: bool = False


X265 = {"x265-params": "log-level=none"}
CODECS = {
    "h264": Codec("libx264", {8: "yuv420p", 10: "yuv420p10le"}, crf=16, whole=True),
    "hevc": Codec("libx265", {8: "yuv420p", 10: "yuv420p10le", 12: "yuv420p12le"}, X265, crf=18, whole=True),
    "vp9": Codec("libvpx-vp9", {8: "yuv420p", 10: "yuv420p10le"}, {"b": "0"}, crf=20, worst=63),
    "av1": Codec("libsvtav1", {8: "yuv420p", 10: "yuv420p10le"}, crf=24, worst=63),
    "prores": Codec("prores_ks", {10: "yuv422p10le"}, {"profile": "hq"}),
    "ffv1": Codec("ffv1", {8: "bgr0", 10: "gbrp10le", 12: "gbrp12le"}),
    "mjpeg": Codec("mjpeg", {8: "yuvj420p"}, {"q": "2", "qmin": "2", "qmax": "2"}),
    "mpeg4": Codec("mpeg4", {8: "yuv420p"}, {"q": "2", "qmin": "2", "qmax": "2"}),
}
"""Codecs by the name that a user gives."""
OTHER_NAMES = {
    "h265": "hevc",
    "x264": "h264",
    "x265": "hevc",
    "avc": "h264",
    **{c.encoder: n for n, c in CODECS.items()},
}
CONTAINERS = {
    ".avi": ("mjpeg", "ffv1", "mpeg4"),
    ".webm": ("vp9", "av1"),
    **dict.fromkeys((".mp4", ".m4v"), ("h264", "hevc", "av1", "vp9", "mpeg4")),
    ".mov": ("h264", "hevc", "prores", "mjpeg", "mpeg4"),
    ".mkv": ("h264", "hevc", "av1", "vp9", "ffv1", "prores", "mjpeg", "mpeg4"),
}
"""Codecs of files that can be written, by suffix, the usual one first."""


@dataclass(frozen=True)
class Encoding:
    """What a user asks for; what is None follows from the container and the frames.

    Attributes:
        codec: a name of `CODECS`, or of FFmpeg's encoder.
        crf: constant rate factor: 0 is best.
        pixels: FFmpeg's name of a pixel format.
        bits: bits per sample.
    """

    codec: str | None = None
    crf: float | None = None
    pixels: str | None = None
    bits: int | None = None


USUAL = Encoding()
"""No wish."""


@dataclass(frozen=True)
class Choice:
    """An encoder, how it holds colours, and its settings."""

    name: str
    encoder: str
    pixels: str
    settings: dict[str, str]
    whole: bool


def choose(suffix: str, encoding: Encoding, deep: bool = False) -> Choice:
    """What writes frames into a container.

    Args:
        suffix: suffix of the file.
        encoding: what is asked for.
        deep: whether frames have more than 8 bits, which are kept where the container has a codec for them.

    Raises:
        UserError: PyAV is not installed, or that is not possible.
    """
    av = require("av", f"writing {suffix} files", "pip install 'relume[video]'")
    if suffix not in CONTAINERS:
        raise UserError(f"'{suffix}' files are not written here; {', '.join(CONTAINERS)} are")
    # What this PyAV can write into such files.
    possible = [n for n in CONTAINERS[suffix] if CODECS[n].encoder in av.codecs_available]
    formats = {n: _formats(av, CODECS[n].encoder) for n in possible}
    depths = {n: {b: f for b, f in CODECS[n].formats.items() if f in formats[n]} for n in possible}
    if not possible:
        raise UserError(f"'{suffix}' files: this PyAV ({av.__version__}) has none of {', '.join(CONTAINERS[suffix])}")
    # The codec: the one asked for, or the first that holds the pixels.
    bits = encoding.bits or (10 if deep else 8)
    if encoding.codec is not None:
        name = OTHER_NAMES.get(encoding.codec.lower(), encoding.codec.lower())
        if name not in possible:
            raise UserError(f"--codec: {suffix} files are written with {', '.join(possible)}, not '{encoding.codec}'")
    else:
        takes = [n for n in possible if (encoding.pixels in formats[n] if encoding.pixels else bits in depths[n])]
        name = takes[0] if takes else possible[0]
    # The pixel format, which must have as many bits as were asked for.
    codec = CODECS[name]
    if encoding.pixels is not None:
        if encoding.pixels not in formats[name]:
            raise UserError(f"--pix_fmt: {name} takes {', '.join(formats[name])}, not '{encoding.pixels}'")
        if encoding.bits is not None and encoding.bits != depth_of(encoding.pixels):
            raise UserError(
                f"--depth {encoding.bits}: {encoding.pixels} has {depth_of(encoding.pixels)} bits; leave one out"
            )
    elif encoding.bits is not None and encoding.bits not in depths[name]:
        others = [n for n in possible if encoding.bits in depths[n]]
        hint = f"--codec {' or '.join(others)} does" if others else f"no codec of {suffix} files does"
        raise UserError(f"--depth {encoding.bits}: {name} does not hold as many bits; {hint}")
    pixels = encoding.pixels or depths[name].get(bits) or next(iter(depths[name].values()))
    return Choice(name, codec.encoder, pixels, {**codec.settings, **_rate(name, codec, encoding.crf)}, codec.whole)


def depth_of(pixels: str) -> int:
    """Bits per sample of a pixel format."""
    import av

    return max(component.bits for component in av.VideoFormat(pixels, 16, 16).components)


def _formats(av: Any, encoder: str) -> list[str]:
    return [f.name for f in av.codec.Codec(encoder, "w").video_formats or ()]


def _rate(name: str, codec: Codec, crf: float | None) -> dict[str, str]:
    """The setting of the constant rate factor.

    Raises:
        UserError: there is none, or it is beyond its range.
    """
    if crf is None:
        return {} if codec.crf is None else {"crf": f"{codec.crf:g}"}
    if codec.crf is None:
        others = [n for n, c in CODECS.items() if c.crf is not None]
        raise UserError(f"--crf: {name} has no constant rate factor; {', '.join(others)} have")
    if not 0 <= crf <= codec.worst:
        raise UserError(f"--crf: must be from 0 to {codec.worst} for {name}, not {crf:g}")
    return {"crf": f"{crf:g}"}
