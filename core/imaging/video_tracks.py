"""What a video has besides its pictures, on its way into another: sound, subtitles, fonts, chapters, what they are called."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

PRIMING = Fraction(1, 10)
"""Seconds of audio before the first frame that are kept."""
OF_CONTAINERS = ("major_brand", "minor_version", "compatible_brands", "encoder", "ENCODER", "DURATION", "vendor_id")
"""Entries that say how a file was made, and not what is in it."""
BITMAPS = ("hdmv_pgs_subtitle", "pgssub", "dvd_subtitle", "dvdsub", "dvb_subtitle", "dvbsub", "xsub")
"""Subtitles that are pictures, which cannot become text."""


class Track:
    """A track that is copied as it is.

    Args:
        file: the video.
        number: index of the track among all of the file's.
        container: container of the new video.
        begins: time in the file that is 0 in the new one, in seconds.
    """

    early = PRIMING
    """Seconds before the beginning from which on contents are kept: what is a little early, decoders need to begin."""

    def __init__(self, file: str, number: int, container: Any, begins: Fraction) -> None:
        import av

        self.source: Any = av.open(file)
        self.container, self.begins = container, begins
        # In AVI, whose times begin at 0, what is early would move every frame but the first.
        self.steady = container.format.name == "avi"
        self.track: Any = self.source.streams[number]
        try:
            self.target = self.added()
        except ValueError:
            self.source.close()
            raise
        self.target.metadata.update(said_by(self.track))
        with contextlib.suppress(AttributeError, ValueError):  # PyAV before 15
            self.target.disposition = self.track.disposition
        self.contents = self.timed()
        self.waiting: Any = None
        self.begun = False

    def added(self) -> Any:
        """The track of the new video.

        Raises:
            ValueError: its container holds no such track.
        """
        names = (self.track.codec_context.name, self.track.codec_context.codec.canonical_name)
        if not self.container.supported_codecs.intersection(names):
            raise ValueError(self.track.codec_context.name)
        return self.container.add_stream_from_template(self.track)

    def timed(self) -> Iterator[tuple[Fraction, Any]]:
        """Time in the new video and contents of what is to be written, in order; nothing before its beginning."""
        for packet in self.source.demux(self.track):
            if packet.pts is None or not packet.size:
                continue
            shift = round(self.begins / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, (packet.pts if packet.dts is None else packet.dts) - shift
            time = packet.pts * packet.time_base
            if time < -self.early or (time < 0 and self.steady):
                continue
            packet.stream = self.target
            yield time, packet

    def packets(self, content: Any) -> Any:
        """What is written of contents."""
        return content

    def until(self, time: Fraction | None) -> None:
        """Write what begins up to a time; all that is left, where None."""
        if not self.begun:
            self.begun, self.waiting = True, next(self.contents, None)
        while self.waiting is not None and (time is None or self.waiting[0] <= time):
            self.container.mux(self.packets(self.waiting[1]))
            self.waiting = next(self.contents, None)

    def close(self) -> None:
        """Close the file."""
        self.source.close()


class Sound(Track):
    """Audio that is encoded anew, as the container usually has it."""

    def added(self) -> Any:
        return self.container.add_stream(self.container.default_audio_codec, rate=self.track.rate)

    def timed(self) -> Iterator[tuple[Fraction, Any]]:
        for frame in self.source.decode(self.track):
            if frame.pts is None:
                continue
            frame.pts -= round(self.begins / frame.time_base)
            if frame.pts >= 0:
                yield frame.pts * frame.time_base, frame

    def packets(self, content: Any) -> Any:
        return self.target.encode(content)

    def until(self, time: Fraction | None) -> None:
        super().until(time)
        if time is None:
            self.container.mux(self.target.encode(None))


TEXTS = {".mp4": "mov_text", ".m4v": "mov_text", ".mov": "mov_text", ".mkv": "subrip", ".webm": "webvtt"}
"""Format of the subtitles that a container has, by its suffix."""


class Text(Track):
    """Subtitles that are text, written as the container has them. They are few, and read at once."""

    early = Fraction(0)

    def added(self) -> Any:
        """The track of the new video, with the subtitles as its container holds them.

        Raises:
            ValueError: its container holds no such track.
        """
        suffix = "." + str(self.container.name).rpartition(".")[2].lower()
        context = self.track.codec_context
        if context.name in BITMAPS or suffix not in TEXTS or not hasattr(context, "decode2"):
            raise ValueError(context.name)
        self.lines = []
        for packet in self.source.demux(self.track):
            if packet.pts is not None and packet.size and (shown := context.decode2(packet)) is not None:
                self.lines.append((packet.pts * packet.time_base, (packet.duration or 0) * packet.time_base, shown))
        if context.subtitle_header is None and self.lines:
            raise ValueError(context.name)
        target = self.container.add_stream(TEXTS[suffix])
        target.codec_context.subtitle_header = context.subtitle_header or b""
        target.codec_context.time_base = Fraction(1, 1000)
        return target

    def timed(self) -> Iterator[tuple[Fraction, Any]]:
        for time, lasts, shown in self.lines:
            if time + lasts > self.begins:
                yield max(time - self.begins, Fraction(0)), (time - self.begins, lasts, shown)

    def packets(self, content: Any) -> Any:
        time, lasts, shown = content
        packet = self.target.codec_context.encode_subtitle(shown)
        packet.stream, packet.time_base = self.target, Fraction(1, 1000)
        packet.pts = packet.dts = max(0, round(time * 1000))
        packet.duration = round((time + lasts) * 1000) - packet.pts
        return packet


KINDS: dict[str, tuple[type[Track], ...]] = {"audio": (Track, Sound), "subtitle": (Track, Text)}
"""Ways to keep each kind of track, the best first."""


def said_by(holder: Any) -> dict[str, str]:
    """What a container or a track says of what is in it: title, language."""
    return {k: v for k, v in holder.metadata.items() if k not in OF_CONTAINERS and not k.startswith("_")}


def tracks_of(file: str, container: Any, begins: Fraction) -> tuple[list[Track], list[str]]:
    """Every track of a video but its pictures, in a new container that says of itself what the video does; and what is lost.

    Args:
        file, container, begins: see `Track`.
    """
    import av

    tracks: list[Track] = []
    lost: list[str] = []
    # What belongs to the whole file: its metadata, chapters and fonts.
    with av.open(file) as source:
        container.metadata.update(said_by(source))
        chapters: list[Any] = source.chapters() if hasattr(source, "chapters") else []
        if chapters:
            container.set_chapters([moved(chapter, begins) for chapter in chapters])
        kinds = [(stream.index, stream.type, stream.codec_context) for stream in source.streams]
        fonts = [stream for stream in source.streams if stream.type == "attachment"]
        if str(container.name).lower().endswith(".mkv"):
            for font in fonts:
                container.add_stream_from_template(font)
    # Each track is copied, or else encoded again, or else left out and named.
    for number, kind, context in kinds:
        for way in KINDS.get(kind, ()) if context is not None else ():
            try:
                tracks.append(way(file, number, container, begins))
            except (ValueError, av.error.FFmpegError):
                continue
            break
        else:
            if kind in KINDS:
                name = "unknown" if context is None else context.name
                lost.append(f"{kind} track {number} ({name}) does not fit into it and is left out; .mkv holds it")
    return tracks, lost


def moved(chapter: dict[str, Any], begins: Fraction) -> dict[str, Any]:
    """A chapter whose times count from `begins`."""
    shift = round(begins / chapter["time_base"])
    return {**chapter, "start": max(0, chapter["start"] - shift), "end": max(0, chapter["end"] - shift)}
