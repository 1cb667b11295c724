"""Writing videos: the size and the times of their frames are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, require
from ..files import temporary_name

ENCODERS: dict[str, tuple[tuple[str, str, dict[str, str]], ...]] = {
    ".avi": (("mjpeg", "yuvj420p", {"q": "2", "qmin": "2", "qmax": "2"}),),
    ".webm": (("libvpx-vp9", "yuv420p", {"crf": "20", "b": "0"}),),
    **dict.fromkeys(
        (".mp4", ".m4v", ".mov", ".mkv"),
        (("libx264", "yuv420p", {"crf": "16"}), ("mpeg4", "yuv420p", {"q": "2", "qmin": "2", "qmax": "2"})),
    ),
}
"""By suffix: encoders, the first that PyAV has is used, how it holds colours, and its settings."""
HD = 720
"""Height from which on colours are those of Rec. 709, below of Rec. 601, as players expect."""


PRIMING = Fraction(1, 10)
"""Seconds of audio before the first frame that are kept."""


class VideoWriter:
    """A video file that appears under its name when it is complete.

    Chroma is kept at half size, except in H.264 of an odd height or width, which can only be kept with chroma at full size
    (4:4:4). Use as a context manager: an error in it leaves no file.

    Args:
        path: of the file; its suffix chooses the container.
        rate: frames per second.
        timed: frames come with times of their own, which need not be regular. AVI has no such times.
        sound: a video whose audio the new one has too: as it is, where the container holds it, else encoded anew.
        begins: time in `sound` of the first frame, in seconds.

    Raises:
        UserError: PyAV is not installed, or cannot write such a file.
    """

    def __init__(
        self, path: Path, rate: Fraction, timed: bool = False, sound: str | None = None, begins: Fraction = Fraction(0)
    ) -> None:
        av = require("av", f"writing {path}", "pip install 'relume[video]'")
        self.path, self.rate = path, rate
        self.temporary = temporary_name(path, path.suffix.lower())
        found = [e for e in ENCODERS.get(path.suffix.lower(), ()) if e[0] in av.codecs_available]
        if not found:
            raise UserError(
                f"{path}: cannot write such a video here; {', '.join(ENCODERS)} can be written, or single frames"
            )
        self.encoder = found[0]
        self.timed = timed and path.suffix.lower() != ".avi"
        self.container: Any = None
        self.stream: Any = None
        self.count = 0
        self.sound, self.begins = sound, begins
        self.audio: list[Audio] = []

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Add a frame.

        Args:
            image: (H, W, 3) RGB uint8, of the same size every time.
            time: when it is shown, in seconds, kept to a millisecond where frames are `timed`.
        """
        import av

        if self.stream is None:
            self._open(image.shape[0], image.shape[1])
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        converted = frame.reformat(
            format=self.stream.pix_fmt,
            dst_colorspace=self.stream.codec_context.colorspace,
            dst_color_range=self.stream.codec_context.color_range,
        )
        converted.time_base = self._unit
        converted.pts = round(time / self._unit) if self.timed else self.count
        for audio in self.audio:
            audio.until(self.container, time)
        self.container.mux(self.stream.encode(converted))
        self.count += 1

    @property
    def _unit(self) -> Fraction:
        """What times are counted in, in seconds."""
        return Fraction(1, 1000) if self.timed else 1 / self.rate

    def _open(self, height: int, width: int) -> None:
        import av

        codec, pixels, settings = self.encoder
        if codec == "libx264" and (height % 2 or width % 2):
            pixels = "yuv444p"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.container = av.open(str(self.temporary), "w")
        self.stream = self.container.add_stream(codec, rate=self.rate, options=settings)
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, pixels
        self.stream.codec_context.time_base = self._unit
        self.stream.codec_context.colorspace = 1 if height >= HD else 5
        self.stream.codec_context.color_range = 2 if pixels.startswith("yuvj") else 1
        if self.sound is not None:
            self.audio = Audio.all_of(self.sound, self.container, self.begins)

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if self.container is not None:
                if kind is None:
                    for audio in self.audio:
                        audio.until(self.container, None)
                    self.container.mux(self.stream.encode(None))
                self.container.close()
                if kind is None:
                    os.replace(self.temporary, self.path)
        finally:
            for audio in self.audio:
                audio.close()
            self.temporary.unlink(missing_ok=True)


class Audio:
    """One audio track of a video, on its way into another.

    Args:
        file: the video.
        number: of the track among those of audio.
        container: of the new video.
        begins: time in the file that is 0 in the new one, in seconds.
    """

    def __init__(self, file: str, number: int, container: Any, begins: Fraction) -> None:
        import av

        self.source: Any = av.open(file)
        self.track = self.source.streams.audio[number]
        self.begins = begins
        name = self.track.codec_context.name
        self.encoder: Any = None
        try:
            if name not in container.supported_codecs and self.track.codec_context.codec.canonical_name not in (
                container.supported_codecs
            ):
                raise ValueError
            self.target = container.add_stream_from_template(self.track)
        except ValueError:  # the container does not hold such audio
            self.target = self.encoder = container.add_stream(container.default_audio_codec, rate=self.track.rate)
        self.packets = self._packets()
        self.waiting: Any = next(self.packets, None)

    @classmethod
    def all_of(cls, file: str, container: Any, begins: Fraction) -> list[Audio]:
        """Every audio track of a video."""
        import av

        with av.open(file) as source:
            count = len(source.streams.audio)
        return [cls(file, number, container, begins) for number in range(count)]

    def _packets(self) -> Iterator[tuple[Fraction, Any]]:
        """Time in the new video and contents of what is to be written, in order; nothing before its beginning."""
        if self.encoder is None:
            for packet in self.source.demux(self.track):
                if packet.pts is None or not packet.size:
                    continue
                shift = round(self.begins / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, (packet.pts if packet.dts is None else packet.dts) - shift
                time = packet.pts * packet.time_base
                if time < -PRIMING:  # what is a little early, decoders need to begin
                    continue
                packet.stream = self.target
                yield time, packet
            return
        for frame in self.source.decode(self.track):
            if frame.pts is None:
                continue
            frame.pts -= round(self.begins / frame.time_base)
            if frame.pts >= 0:
                yield frame.pts * frame.time_base, frame

    def until(self, container: Any, time: Fraction | None) -> None:
        """Write what is heard up to a time; all that is left, where None."""
        while self.waiting is not None and (time is None or self.waiting[0] <= time):
            content = self.waiting[1]
            container.mux(content if self.encoder is None else self.encoder.encode(content))
            self.waiting = next(self.packets, None)
        if time is None and self.encoder is not None:
            container.mux(self.encoder.encode(None))

    def close(self) -> None:
        """Close the file."""
        self.source.close()
