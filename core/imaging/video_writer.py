"""Writing videos: the size and the times of their frames are kept, and what another video has besides its pictures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, require
from ..files import temporary_name
from .video_codecs import CONTAINERS, USUAL, Choice, Encoding, choose, depth_of
from .video_light import Light, light_of
from .video_tracks import Track, tracks_of

HD = 720
"""Height from which on colours are those of Rec. 709, below of Rec. 601, as players expect."""
UNNAMED = 2
"""What FFmpeg calls a matrix, primaries or a transfer that a video does not name."""
MATRICES = (1, 4, 5, 6, 7, 9)
"""Matrices (ISO/IEC 23091-2) that colours can be converted with."""
MILLISECOND = Fraction(1, 1000)
SHALLOW = "has 8 bits, and the input more; --depth 10, or frames, keep more"
UNTIMED = 2
"""Frames of a video of which x265 leaves times of decoding unset: those of showing, since none leans on a later frame."""
FINEST = 65535
"""Largest denominator of time units in MPEG-4 Part 2."""


@dataclass(frozen=True)
class Look:
    """How a video's samples are to be understood, by FFmpeg's numbers.

    Attributes:
        matrix: number of the matrix from RGB to luma and chroma.
        full: whether black is 0, and not a sixteenth of the range.
        primaries: number of the primaries of RGB.
        transfer: number of the transfer function from light to RGB.
        aspect: width / height of a pixel; None where it does not say.
        deep: whether they have more than 8 bits.
        light: mastering display and light levels of HDR.
    """

    matrix: int = UNNAMED
    full: bool = False
    primaries: int = UNNAMED
    transfer: int = UNNAMED
    aspect: Fraction | None = None
    deep: bool = False
    light: Light = Light()


def look_of(file: str) -> Look:
    """That of a video file; the usual one where it does not say."""
    import av

    with av.open(file) as container:
        streams = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
        try:
            frame = next(container.decode(streams[0]))
        except (av.error.FFmpegError, StopIteration):  # damaged at its beginning
            return Look()
        context = streams[0].codec_context
        aspect = streams[0].sample_aspect_ratio or context.sample_aspect_ratio
        if aspect and frame.rotation % 180 == 90:
            aspect = 1 / aspect
        return Look(
            int(frame.colorspace),
            int(frame.color_range) == 2,
            int(context.color_primaries),
            int(context.color_trc),
            aspect or None,
            depth_of(frame.format.name) > 8,
            light_of(frame),
        )


class VideoWriter:
    """A video file that appears under its name when it is complete.

    Without a wish, chroma is kept at half size, except in H.264 and H.265 of an odd height or width, which can only be kept
    with chroma at full size (4:4:4), and more than 8 bits are kept as 10 where the container has a codec for them. Use as a
    context manager: an error in it leaves no file.

    Args:
        path: path of the file; its suffix chooses the container.
        rate: frames per second.
        timed: frames come with times of their own, which need not be regular. AVI has no such times.
        alike: a video whose colours are meant in the same way (matrix, range, primaries, transfer, shape of pixels, HDR10's
            display and brightest pixels).
        begins: time in `alike` of the first frame, in seconds; with it, sound, subtitles, chapters and titles of `alike` come
            along: as they are where the container holds them, else encoded anew.
        encoding: what is wished for.
        unit: what times are counted in, in seconds, where frames are `timed`.

    Attributes:
        bits: bits of the integers that frames should be, 8 or 16.
        notes: what was lost, in words.

    Raises:
        UserError: PyAV is not installed, or cannot write such a file.
    """

    def __init__(
        self,
        path: Path,
        rate: Fraction,
        timed: bool = False,
        alike: str | None = None,
        begins: Fraction | None = None,
        encoding: Encoding = USUAL,
        unit: Fraction = MILLISECOND,
    ) -> None:
        require("av", f"writing {path}", "pip install 'relume[video]'")
        self.path, self.rate, self.encoding = path, rate, encoding
        self.suffix = path.suffix.lower()
        self.temporary = temporary_name(path, self.suffix)
        self.look = Look() if alike is None else look_of(alike)
        if self.suffix not in CONTAINERS:
            raise UserError(
                f"{path}: cannot write such a video here; {', '.join(CONTAINERS)} can be written, or single frames"
            )
        # Codec, depth and time stamps, as the format and the input allow.
        self.chosen = choose(self.suffix, encoding, self.look.deep)
        self.bits = 16 if depth_of(self.chosen.pixels) > 8 else 8
        self.timed = timed and self.suffix != ".avi"
        self.unit = unit if self.timed else 1 / rate
        self.alike, self.begins = alike, begins
        self.container: Any = None
        self.stream: Any = None
        self.count = 0
        self.tracks: list[Track] = []
        self.notes: list[str] = []
        # What the result loses, for the user to be told.
        if self.look.deep and self.bits == 8 and encoding == USUAL:
            self.notes.append(SHALLOW)
        if self.look.light != Light() and not self.look.light.settings(self.chosen.name):
            self.notes.append(
                f"{self.chosen.name} does not keep what the input says of the light in it (HDR10); hevc does"
            )
        if timed and not self.timed:
            self.notes.append("AVI has one rate, so the frames' irregular times are lost; .mp4 and .mkv keep them")

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Add a frame.

        Args:
            image: (H, W, 3) RGB uint8 or uint16, of the same size every time.
            time: time at which it is shown, in seconds, kept to `unit` where frames are `timed`.

        Raises:
            UserError: the encoder does not take it.
        """
        import av

        deep = image.dtype == np.uint16
        height, width = image.shape[:2]
        try:
            if self.stream is None:
                self._open(height, width)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb48le" if deep else "rgb24")
            self.container.mux(self.stream.encode(self._converted(frame, time)))
        except (av.error.FFmpegError, ValueError) as e:
            name = "the encoder" if self.stream is None else self.stream.codec_context.name
            what = f"frames of {width} x {height} as {self.stream.pix_fmt if self.stream else 'video'}"
            raise UserError(f"{self.path}: {name} cannot write {what} ({e})") from e
        for track in self.tracks:
            track.until(time)
        self.count += 1

    def fitting(self, image: np.ndarray) -> np.ndarray:
        """Integers (H, W, 3) of as many bits as are written."""
        if image.dtype == np.uint16 and self.bits == 8:
            if self.encoding == USUAL and SHALLOW not in self.notes:
                self.notes.append(SHALLOW)
            return np.rint(image / 257).astype(np.uint8)
        return image

    def _converted(self, frame: Any, time: Fraction) -> Any:
        context = self.stream.codec_context
        converted = frame.reformat(
            format=self.stream.pix_fmt,
            dst_colorspace=context.colorspace or None,
            dst_color_range=context.color_range,
        )
        converted.time_base = self.unit
        converted.pts = round(time / self.unit) if self.timed else self.count
        return converted

    def _open(self, height: int, width: int) -> None:
        import av

        chosen, pixels = self.chosen, self.chosen.pixels
        if chosen.whole and (height % 2 or width % 2) and self.encoding.pixels is None:
            pixels = pixels.replace("420", "444")
        if chosen.name == "mpeg4" and self.unit.denominator > FINEST:
            self.unit = MILLISECOND if self.timed else self.rate.limit_denominator(1001) ** -1
        if chosen.name == "av1":
            os.environ.setdefault("SVT_LOG", "1")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.container = av.open(str(self.temporary), "w")
        settings = {**chosen.settings}
        for option, words in self.look.light.settings(chosen.name).items():
            settings[option] = ":".join(filter(None, (settings.get(option), words)))
        self.stream = self.container.add_stream(chosen.encoder, rate=self.rate, options=settings)
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, pixels
        self.stream.codec_context.time_base = self.unit
        self._mark(chosen, pixels, height)
        if self.alike is not None and self.begins is not None:
            self.tracks, lost = tracks_of(self.alike, self.container, self.begins)
            self.notes += lost

    def _mark(self, chosen: Choice, pixels: str, height: int) -> None:
        """Say in the file how its samples are to be understood."""
        context = self.stream.codec_context
        rgb = pixels.startswith(("gbr", "rgb", "bgr"))
        usual = 1 if height >= HD else 5
        context.colorspace = 0 if rgb else self.look.matrix if self.look.matrix in MATRICES else usual
        context.color_range = 2 if rgb or pixels.startswith("yuvj") or self.look.full else 1
        context.color_primaries, context.color_trc = self.look.primaries, self.look.transfer
        if self.look.aspect is not None:
            context.sample_aspect_ratio = self.look.aspect
        if chosen.name == "hevc" and self.suffix in (".mp4", ".m4v", ".mov"):
            context.codec_tag = "hvc1"  # without which Apple's players refuse it

    def _last_packets(self) -> list[Any]:
        """What the encoder has left."""
        packets: list[Any] = self.stream.encode(None)
        if self.chosen.name == "hevc" and self.count <= UNTIMED:
            for packet in packets:
                packet.dts = packet.pts
        return packets

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if self.container is not None:
                if kind is None:
                    for track in self.tracks:
                        track.until(None)
                    self.container.mux(self._last_packets())
                self.container.close()
                if kind is None:
                    os.replace(self.temporary, self.path)
        finally:
            for track in self.tracks:
                track.close()
            self.temporary.unlink(missing_ok=True)
