"""Video files as sequences of frames that are counted, and addressed, by decoding them: what a container says may be wrong."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from ..core.errors import UserError, first_line
from ..core.hub import home
from ..core.imaging.ceilings import refuse_pixels
from ..core.imaging.opencv import cv2
from ..core.imaging.storage import UnreadableFile, write_bytes
from .kept import Shelf
from .transforms import Image

log = logging.getLogger("relume")

VIDEOS = (
    *(".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".mpe", ".m2v", ".vob", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".asf", ".flv", ".3gp", ".ogv", ".mxf", ".y4m"),
)
"""Suffixes of files that are taken for videos."""
HD = 720
"""Height from which on a stream that does not name its colours has those of Rec. 709, as players have it."""

# FFmpeg reads this when OpenCV first uses it: what it has to say about a damaged file, `Video` says in one line. What OpenCV
# itself would print is off for all files (core/imaging/opencv.py).
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


@dataclass(frozen=True)
class Index:
    """What decoding a video from end to end has found.

    Args:
        size: (height, width) of every frame, upright.
        ticks: each frame's time in presentation order, in units of `tick`.
        tick: seconds, as (numerator, denominator).
        rate: frames per second that the container names, as (numerator, denominator).
        keys: numbers of frames at which decoding can begin, each with a checksum of what it must give there; none where
            decoding must begin at the first frame.
        damaged: packets that could not be decoded.
    """

    size: tuple[int, int]
    ticks: tuple[int, ...]
    tick: tuple[int, int]
    rate: tuple[int, int]
    keys: tuple[tuple[int, int], ...] = ()
    damaged: int = 0

    @classmethod
    def remembered(cls, data: bytes) -> Index:
        """What `asdict` and JSON have made of an index. Raises ValueError, TypeError or KeyError if it is none."""
        known = json.loads(data)
        lists = {key: tuple(known[key]) for key in ("size", "ticks", "tick", "rate")}
        return cls(**lists, keys=tuple((int(n), int(c)) for n, c in known["keys"]), damaged=int(known["damaged"]))


class Video:
    """A video file as a sequence of frames in the order in which a player shows them, called ``<file>#<number>``.

    It is decoded once from end to end, by PyAV or, without that, by OpenCV: edit lists, time stamps and orientation are
    honoured, and neither the count in the container nor its index is trusted. What was found is remembered in
    ``$RELUME_HOME/videos`` (``~/.cache/relume/videos``) for as long as the file's size and time stay the same. The file
    is opened for every read, so a `Video` may be shared by processes.

    Raises:
        UnreadableFile: nothing can be decoded, or frames differ in size.
    """

    def __init__(self, file: str) -> None:
        self.file = self.origin = file
        if not os.path.isfile(file):
            raise UnreadableFile(f"{file}: there is no such file")
        self.decoder: Any = decoder()
        self.index = indexed(file, self.decoder)
        if self.index.damaged:
            log.warning("%s: is damaged: %d pieces cannot be decoded and are left out", file, self.index.damaged)
        self.frame_size = self.index.size
        self._shelf: Shelf | None = None

    def __len__(self) -> int:
        return len(self.index.ticks)

    @property
    def rate(self) -> Fraction:
        """Frames per second: what the container names, if it agrees with the frames' times, else their average."""
        first, last = self.index.ticks[0], self.index.ticks[-1]
        named, tick = Fraction(*self.index.rate), Fraction(*self.index.tick)
        if last <= first or abs((len(self) - 1) / named - tick * (last - first)) <= tick:
            return named
        return (len(self) - 1) / (tick * (last - first))

    def time(self, number: int) -> Fraction:
        """When a frame is shown, in seconds after the first."""
        return Fraction(*self.index.tick) * (self.index.ticks[number] - self.index.ticks[0])

    def path(self, number: int) -> str:
        """What a frame is called."""
        return f"{self.file}#{number}"

    def size(self, number: int) -> tuple[int, int]:
        """(height, width) of every frame."""
        return self.frame_size

    def read(self, numbers: Sequence[int]) -> list[Image]:
        """Frames by ascending number, (H, W, 3) RGB, uint8, or uint16 where the file has more than 8 bits.

        Raises:
            UnreadableFile: one of them cannot be decoded.
        """
        wanted = list(numbers)
        if wanted and not 0 <= wanted[-1] < len(self):
            raise UnreadableFile(f"{self.path(wanted[-1])}: this frame cannot be decoded; there are {len(self)}")
        shelf = self._shelf
        found = {n: kept for n in wanted if shelf is not None and (kept := shelf.find(n)) is not None}
        absent = [number for number in wanted if number not in found]
        for number, image in self.frames(absent[0]) if absent else ():
            if number in absent:
                found[number] = image() if shelf is None else shelf.get(number, image)
            if number >= absent[-1]:
                break
        for number in wanted:
            if number not in found:
                raise UnreadableFile(f"{self.path(number)}: this frame cannot be decoded")
        return [found[number] for number in wanted]

    def keep(self, shelf: Shelf) -> None:
        """Keep frames that are `read` there once they are decoded."""
        self._shelf = shelf

    def frames(self, start: int = 0) -> Iterator[tuple[int, Any]]:
        """Number, and a function that gives the image, of each frame from `start` (or from before it) on."""
        return iter(self.decoder.frames(self.file, self.index, start))


# ------------------------------------------------------------------ what was found, remembered
def indexed(file: str, decoder: Any) -> Index:
    """The index of a video, remembered or made now.

    Raises:
        UnreadableFile: the file cannot be decoded as a video.
    """
    status = os.stat(file)
    identity = [os.path.realpath(file), status.st_size, status.st_mtime_ns, decoder.name]
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    remembered = home() / "videos" / f"{name}.json"
    try:
        return Index.remembered(remembered.read_bytes())
    except (OSError, ValueError, TypeError, KeyError):
        pass  # not made yet, or damaged
    try:
        index: Index = decoder.index(file)
    except UserError:
        raise
    except Exception as e:  # each library, and each container, has errors of its own
        raise UnreadableFile(f"{file}: cannot be decoded as a video ({first_line(e)})") from e
    with contextlib.suppress(OSError):  # a machine without a home folder decodes again next time
        write_bytes(remembered, json.dumps(asdict(index)).encode())
    return index


def decoder() -> Any:
    """PyAV if it is installed, else OpenCV."""
    try:
        import av  # noqa: F401
    except ImportError:
        return OpenCV()
    return PyAV()


def nothing(file: str) -> UnreadableFile:
    """What is said of a video without frames."""
    return UnreadableFile(f"{file}: not one frame of this video can be decoded")


class PyAV:
    """Decoding by FFmpeg through PyAV, which says when each frame is shown."""

    name = "av"
    ENTERED = ("mov", "mp4", "matroska", "webm", "avi", "nut")
    """Containers that say of every frame when it is shown, so that they can be entered in the middle."""

    def index(self, file: str) -> Index:
        """Decode everything once.

        Raises:
            UnreadableFile: the video has no frames, or frames of different sizes.
        """
        ticks: list[int | None] = []
        keys: list[tuple[int, int]] = []
        sizes: set[tuple[int, int]] = set()
        damages: list[str] = []
        with self.opened(file) as (container, stream):
            for frame in self.decoded(container, stream, damages):
                sideways = frame.rotation % 180 == 90
                sizes.add((frame.width, frame.height) if sideways else (frame.height, frame.width))
                if frame.key_frame:
                    keys.append((len(ticks), self.checksum(frame)))
                ticks.append(frame.pts)
            tick = stream.time_base or Fraction(1, 25)
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            entered = bool({*container.format.name.split(",")} & {*self.ENTERED})
        if not ticks:
            raise nothing(file)
        if len(sizes) > 1:
            shown = " and ".join(f"{h}x{w}" for h, w in sorted(sizes)[:2])
            raise UnreadableFile(f"{file}: has frames of different sizes ({shown}, height x width)")
        times = [t for t in ticks if t is not None]
        if len(times) < len(ticks) or any(b <= a for a, b in itertools.pairwise(times)):
            # Without times that distinguish frames, they are counted, from the beginning.
            entered, times, tick = False, list(range(len(ticks))), 1 / rate
        return Index(
            size=sizes.pop(),
            ticks=tuple(times),
            tick=(tick.numerator, tick.denominator),
            rate=(rate.numerator, rate.denominator),
            keys=tuple(keys) if entered else (),
            damaged=len(damages),
        )

    def frames(self, file: str, index: Index, start: int) -> Iterator[tuple[int, Any]]:
        """Frames from `start` or before it on. A place to enter is trusted if the frame there is the one seen at first."""
        places = [key for key in index.keys if 0 < key[0] <= start]
        for key, expected in reversed(places[-2:]):
            with self.opened(file) as (container, stream):
                container.seek(index.ticks[key], stream=stream)
                found = self.decoded(container, stream, [])
                # Before a key there may come frames that lean on what was left out.
                first = next(
                    (f for f in itertools.islice(found, 64) if f.pts is None or f.pts >= index.ticks[key]), None
                )
                if first is not None and first.pts == index.ticks[key] and self.checksum(first) == expected:
                    for number, frame in enumerate(itertools.chain([first], found), key):
                        yield number, partial(self.image, frame)
                    return
        with self.opened(file) as (container, stream):
            for number, frame in enumerate(self.decoded(container, stream, [])):
                yield number, partial(self.image, frame)

    @staticmethod
    def checksum(frame: Any) -> int:
        """The checksum of a frame as it was decoded."""
        return zlib.crc32(bytes(frame.planes[0]))

    @staticmethod
    def decoded(container: Any, stream: Any, damages: list[str]) -> Iterator[Any]:
        """All frames, past packets that cannot be decoded, whose errors are added to `damages`."""
        from av.error import FFmpegError

        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as e:  # the container ends in the middle
                damages.append(first_line(e))
                packet = None
            try:
                yield from stream.codec_context.decode(packet) if packet is None else packet.decode()
            except EOFError:
                return
            except FFmpegError as e:
                damages.append(first_line(e))
            if packet is None:
                return

    @staticmethod
    def image(frame: Any) -> Image:
        """A frame as it is to be seen: upright, (H, W, 3) RGB, in the stream's own colours."""
        from av.video.reformatter import Colorspace

        deep = max(component.bits for component in frame.format.components) > 8
        if frame.format.is_rgb:
            pixels = frame.to_ndarray(format="rgb48le" if deep else "rgb24")
        else:
            named = frame.colorspace not in (0, 2)  # RGB, unspecified
            usual = Colorspace.ITU709 if frame.height >= HD else Colorspace.ITU601
            colours = frame.colorspace if named else usual
            made = frame.reformat(format="rgb48le" if deep else "rgb24", src_colorspace=colours)
            pixels = made.to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, (frame.rotation // 90) % 4))

    class opened:  # noqa: N801  (a context manager)
        """A container and its video stream, covers left aside; threads are off, since loading processes are many."""

        def __init__(self, file: str) -> None:
            self.file = file

        def __enter__(self) -> tuple[Any, Any]:
            import av
            from av.error import FFmpegError

            av.logging.set_level(None)
            try:
                self.container = av.open(self.file)
            except (FFmpegError, OSError, ValueError) as e:
                what = "damaged, or of an unknown codec"
                raise UnreadableFile(f"{self.file}: cannot be decoded as a video ({what})") from e
            streams = [s for s in self.container.streams.video if not s.disposition & s.disposition.attached_pic]
            if not streams or streams[0].codec_context is None:
                self.container.close()
                raise nothing(self.file)
            try:
                refuse_pixels(streams[0].height, streams[0].width, str(self.file))
            except UserError:
                self.container.close()
                raise
            streams[0].codec_context.thread_count = 1
            return self.container, streams[0]

        def __exit__(self, *_: object) -> None:
            self.container.close()


class OpenCV:
    """Decoding by OpenCV, whose seeking goes by guesses: frames are counted from the beginning, always."""

    name = "opencv"

    def index(self, file: str) -> Index:
        """Decode everything once.

        Raises:
            UnreadableFile: the video has no frames, or frames of different sizes.
        """
        sizes: set[tuple[int, int]] = set()
        count = 0
        for frame in self.decoded(file):
            count += 1
            sizes.add((int(frame.shape[0]), int(frame.shape[1])))
        if not count:
            raise nothing(file)
        capture = self.opened(file)
        rate = Fraction(capture.get(cv2.CAP_PROP_FPS) or 25).limit_denominator(1001)
        capture.release()
        if len(sizes) > 1:
            raise UnreadableFile(f"{file}: has frames of different sizes")
        tick, named = (rate.denominator, rate.numerator), (rate.numerator, rate.denominator)
        return Index(sizes.pop(), tuple(range(count)), tick, named)

    def frames(self, file: str, index: Index, start: int) -> Iterator[tuple[int, Any]]:
        """All frames."""
        for number, frame in enumerate(self.decoded(file)):
            yield number, partial(np.ascontiguousarray, frame[..., ::-1])

    def decoded(self, file: str) -> Iterator[np.ndarray]:
        """All frames, BGR."""
        capture = self.opened(file)
        while (frame := capture.read()[1]) is not None:
            yield np.asarray(frame)
        capture.release()

    @staticmethod
    def opened(file: str) -> cv2.VideoCapture:
        """FFmpeg where OpenCV has it, else whichever decoder takes the file.

        Raises:
            UnreadableFile: no decoder takes the file.
        """
        backend = cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in cv2.videoio_registry.getBackends() else cv2.CAP_ANY
        capture = cv2.VideoCapture(file, backend)
        if not capture.isOpened():
            raise UnreadableFile(f"{file}: cannot be decoded as a video (damaged, or of an unknown codec)")
        return capture
