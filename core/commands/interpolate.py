"""Make a video, or a folder of frames, denser: any rational number of times, or to a rate.

``relume interpolate clip.mp4 -opt options/vfi/phase2.yml --weights net_g_best.pth --times 8 --video slow.mp4``

``--times 5/2`` gives five frames for two; ``--to_fps 60`` gives the frames at 0, 1/60, 2/60, ... seconds. ``--frames`` writes
numbered PNG files, with 16 bits where the input has more than 8, and ``--video`` an 8-bit video; either or both. The video
plays as fast as the original, frame by frame where its rate varies, unless ``--fps`` says otherwise: with the original's rate
it is slow motion. Times between two frames are asked of the network; ``--recursive`` reaches them by halving instead, which
networks that were trained on middle frames only need. Frames of a folder are in the order of the numbers in their names.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...datasets.clips import Clip, find_clips
from ...datasets.transforms import to_tensor
from ...datasets.videos import Video
from ..errors import UserError, expanded
from ..imaging.image_io import imwrite, to_integer
from ..imaging.video_writer import VideoWriter
from ..inference.halving import DEEPEST
from ..load import load_model
from ..models.interpolation import InterpolationModel
from ..runtime.distributed import named_device
from ._arguments import add_model, named

RUNS = True


def build(file: str | None, weights: str | None, device: torch.device) -> InterpolationModel:
    """The interpolation model of an option file, of weights, or of both.

    Raises:
        UserError: no weights, or a model of another task.
    """
    model = load_model(*named(file, weights), device=device)
    if not isinstance(model, InterpolationModel):
        kind = type(model).__name__
        raise UserError(f"{file or weights}: {kind} does not interpolate frames; InterpolationModel does")
    return model


def only_clip(path: str) -> Clip:
    """The one video or folder of frames at a path.

    Raises:
        UserError: there are several, or fewer than two frames.
    """
    clips = find_clips(path)
    if len(clips) > 1:
        some = ", ".join(c.origin for c in clips[:3])
        raise UserError(f"{path}: holds {len(clips)} videos or folders of frames ({some}, ...); give one of them")
    if len(clips[0]) < 2:
        raise UserError(f"{path}: has one frame only; there is nothing between")
    return clips[0]


class Moment(NamedTuple):
    """A frame to make.

    Attributes:
        before: number of the input's frame at or before it.
        part: how far from there to the next one, at least 0 and below 1.
        time: when it is shown, in seconds after the first.
    """

    before: int
    part: Fraction
    time: Fraction


def times_of(clip: Clip, rate: Fraction | None) -> list[Fraction]:
    """When each frame of the input is shown, in seconds: a video's own times, unless a rate is given."""
    if isinstance(clip, Video) and rate is None:
        return [clip.time(i) for i in range(len(clip))]
    return [i / (rate or FOLDER_RATE) for i in range(len(clip))]


def denser_by(times: list[Fraction], factor: Fraction) -> list[Moment]:
    """`factor` times as many frames, evenly between those there are."""
    moments = []
    for j in range(int((len(times) - 1) * factor) + 1):
        place = j / factor
        before = int(place)
        part = place - before
        after = times[before + 1] if part else times[before]
        moments.append(Moment(before, part, times[before] + part * (after - times[before])))
    return moments


def at_rate(times: list[Fraction], rate: Fraction) -> list[Moment]:
    """The frames at 0, 1 / rate, 2 / rate, ... seconds, up to the last of the input."""
    moments = []
    before = 0
    for j in range(int(times[-1] * rate) + 1):
        time = j / rate
        while before + 1 < len(times) and times[before + 1] <= time:
            before += 1
        part = Fraction(0)
        if time > times[before]:
            part = (time - times[before]) / (times[before + 1] - times[before])
        moments.append(Moment(before, part, time))
    return moments


def frames_of(clip: Clip) -> Iterator[np.ndarray]:
    """The frames in order, (H, W, 3) RGB, uint8 or uint16.

    Raises:
        UserError: frames of different sizes, or one that cannot be decoded.
    """
    shape: tuple[int, ...] | None = None
    images: Iterable[np.ndarray]
    if isinstance(clip, Video):
        images = (image() for _, image in clip.frames())
    else:
        images = (clip.read([number])[0] for number in range(len(clip)))
    for number, image in enumerate(images):
        shape = shape or image.shape
        if image.shape != shape:
            sizes = [f"{s[0]}x{s[1]}" for s in (image.shape, shape)]
            raise UserError(f"{clip.path(number)}: is {sizes[0]} (height x width), but {clip.path(0)} is {sizes[1]}")
        yield image


@torch.no_grad()
def made(
    model: Any, frames: Iterator[np.ndarray], moments: Iterable[Moment], device: torch.device
) -> Iterator[tuple[Moment, np.ndarray]]:
    """The frame of each moment, (H, W, 3) integers of the input's depth. Those of the input stay as they are.

    Args:
        model: interpolates.
        frames: of the input.
        moments: in the order of time.
    """
    number = -1
    before: np.ndarray | None = None
    after = next(frames, None)
    inner: dict[float, Tensor] = {}
    for moment in moments:
        while number < moment.before:
            number, before, after = number + 1, after, next(frames, None)
            inner = {}
        assert before is not None
        if not moment.part:
            yield moment, before
            continue
        if not inner:
            assert after is not None
            inner.update({t: to_tensor(f)[None].to(device) for t, f in ((0.0, before), (1.0, after))})
        image = model.at(float(moment.part), inner)[0]
        yield moment, to_integer(image, 16 if before.dtype == np.uint16 else 8)


@torch.no_grad()
def knows_time(model: Any, device: torch.device) -> bool:
    """Whether the network makes something else when it is asked for another time."""
    img0, img1 = torch.rand(2, 1, 3, 64, 64, device=device)
    return not torch.equal(model.between(img0, img1, 0.25), model.between(img0, img1, 0.5))


def frame_file(folder: Path, number: int) -> Path:
    """Where a frame goes."""
    return folder / f"{number:06d}.png"


def refuse_mixtures(folder: Path, source: str, count: int) -> None:
    """Refuse a folder in which the new frames would stand among others.

    Raises:
        UserError: it is the input's, or has more numbered frames than there will be.
    """
    if folder.resolve() == expanded(source).resolve():
        raise UserError(f"--frames: {folder} is the input; give another folder")
    if frame_file(folder, count).exists():
        raise UserError(
            f"--frames: {folder} has frames of an earlier, longer run ({frame_file(folder, count).name}, ...), which these "
            f"{count} would be mixed with; remove them, or give another folder"
        )


FOLDER_RATE = Fraction(25)
"""Frames per second of a folder's frames, if nothing says otherwise."""


def rational(text: str | None, option: str) -> Fraction | None:
    """A positive number, ``2``, ``5/2``, ``23.976`` or ``24000/1001``; None for None.

    Raises:
        UserError: it is none, or is absurd.
    """
    if text is None:
        return None
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if not 0 < value <= 100_000 or value.denominator > 10**9:
        raise UserError(f"{option}: must be above 0, a number such as 2, 5/2 or 24000/1001, not {text}")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("input", help="video file, or folder of frames")
    add_model(parser)
    dense = parser.add_mutually_exclusive_group()
    dense.add_argument("--times", help="how many times as many frames, 2 when omitted; 5/2 is possible")
    dense.add_argument("--to_fps", metavar="RATE", help="make the frames of this rate, 60 or 60000/1001")
    parser.add_argument("--from_fps", metavar="RATE", help="rate of the input, if not what the video says")
    parser.add_argument("--recursive", action="store_true", help="reach times by halving")
    parser.add_argument("--tta", choices=("none", "hflip", "rot180", "dihedral"), default="none")
    parser.add_argument("--flow_scale", type=float, default=1.0, help="0.5 for 2K, 0.25 for 4K")
    parser.add_argument("--frames", type=Path, metavar="FOLDER", help="write numbered PNG files")
    parser.add_argument("--video", type=Path, metavar="FILE", help="write a video")
    parser.add_argument("--fps", help="at which the video plays; as fast as the input when omitted")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def plan(a: argparse.Namespace, clip: Clip) -> tuple[list[Moment], Fraction]:
    """What to make of the input, and how many frames per second that is.

    Raises:
        UserError: a rate for a folder whose own is not known, or fewer frames than there are.
    """
    given, wanted = rational(a.from_fps, "--from_fps"), rational(a.to_fps, "--to_fps")
    factor = rational(a.times, "--times") or Fraction(2)
    times = times_of(clip, given)
    own = given or (clip.rate if isinstance(clip, Video) else FOLDER_RATE)
    if wanted is None:
        if factor < 1:
            raise UserError(f"--times: must be at least 1, not {factor}; frames are added, none is left out")
        return denser_by(times, factor), own * factor
    if not isinstance(clip, Video) and given is None:
        raise UserError("--to_fps: a folder of frames does not say its rate; give --from_fps")
    return at_rate(times, wanted), wanted


def run(a: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    if a.frames is None and a.video is None:
        raise UserError("where to? Give --frames FOLDER, --video FILE, or both")
    if not 0 < a.flow_scale <= 1:
        raise UserError(f"--flow_scale: must be above 0 and at most 1, not {a.flow_scale:g}")
    device = named_device(a.device)
    rational(a.fps, "--fps")
    clip = only_clip(a.input)
    moments, rate = plan(a, clip)
    if a.frames is not None:
        refuse_mixtures(a.frames, a.input, len(moments))
    model = build(a.opt, a.weights, device)
    model.tta, model.flow_scale, model.recursive = a.tta, a.flow_scale, a.recursive
    parts = {m.part for m in moments} - {Fraction(0), Fraction(1, 2)}
    if parts and not a.recursive and not knows_time(model, device):
        raise UserError(f"{a.opt or a.weights}: this network only finds the middle of two frames; give --recursive")
    refuse_unreachable(parts if a.recursive else set())
    count = write(a, made(model, frames_of(clip), moments, device), moments, rate)
    targets = " and ".join(str(t) for t in (a.frames, a.video) if t is not None)
    print(f"{len(clip)} frames became {count}: {targets}")


def refuse_unreachable(parts: set[Fraction]) -> None:
    """Refuse times that halving does not reach.

    Raises:
        UserError: there is one.
    """
    for part in parts:
        if part.denominator & (part.denominator - 1) or part.denominator > 2**DEEPEST:
            raise UserError(
                f"--recursive: halving reaches 1/2, 1/4, 3/4, ... of the way between two frames, not {part}"
            )


def write(
    a: argparse.Namespace, images: Iterator[tuple[Moment, np.ndarray]], moments: list[Moment], rate: Fraction
) -> int:
    """Write the frames where the command line says; how many. What is left out is said."""
    plays = rational(a.fps, "--fps")
    regular = plays is not None or all(abs(m.time - i / rate) <= Fraction(1, 500) for i, m in enumerate(moments))
    notes: set[str] = set()
    count = 0
    with contextlib.ExitStack() as stack:
        video = None
        if a.video is not None:
            video = stack.enter_context(VideoWriter(a.video, plays or rate, timed=not regular))
            if not regular and not video.timed:
                notes.add(
                    f"{a.video}: AVI has one rate, so the frames' irregular times are lost; .mp4 and .mkv keep them"
                )
        for count, (moment, image) in enumerate(images, 1):
            if a.frames is not None:
                imwrite(frame_file(a.frames, count - 1), image)
            if video is not None:
                if image.dtype == np.uint16:
                    notes.add(f"{a.video}: has 8 bits, and the input more; --frames keeps 16")
                    image = np.rint(image / 257).astype(np.uint8)
                video.write(image, moment.time)
    for note in sorted(notes):
        print(note)
    return count
