"""Make more frames of a video, or of a folder of frames: any rational number of times, or at a rate.

``relume interpolate clip.mp4 -opt options/vfi/phase2.yml --weights net_g_best.pth --times 8 --video slow.mp4``

``--times 5/2`` gives five frames for two; ``--to_fps 60`` gives the frames at 0, 1/60, 2/60, ... seconds. ``--frames`` writes
numbered PNG files, with 16 bits where the input has more than 8, and ``--video`` a video, with 10 then; either or both. It
plays as fast as the original, frame by frame where its rate varies, unless ``--fps`` says otherwise: with the original's rate
it is slow motion. Times between two frames are asked of the network; ``--recursive`` reaches them by halving instead, which
networks that were trained on middle frames only need. Frames of a folder are in the order of the numbers in their names.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...datasets.clips import Clip, find_clips
from ...datasets.videos import Video
from ..errors import UserError, expanded
from ..imaging.image_io import imwrite
from ..imaging.video_codecs import USUAL, Encoding, choose
from ..imaging.video_writer import VideoWriter
from ..inference.halving import MOST_HALVINGS
from ..load import load_model
from ..models.interpolation import InterpolationModel
from ..runtime import devices
from ..runtime.distributed import named_device
from ..use.clips import played_alike
from ..use.interpolated import (
    FOLDER_RATE,
    Between,
    Moment,
    at_rate,
    by_factor,
    frames_of,
    placed,
    times_of,
    without_repeats,
)
from ..use.overlapped import Behind, ahead
from ._arguments import add_encoding, add_model, named

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
    parser.add_argument("--fps", help="frame rate of the video; it plays as fast as the input when omitted")
    parser.add_argument(
        "--drop_duplicates", action="store_true", help="leave out frames that repeat the one before first"
    )
    parser.add_argument("--across_cuts", action="store_true", help="make frames between two scenes, too")
    parser.add_argument("--depth", type=int, choices=(8, 10, 12), help="bits of the video; the input's when omitted")
    add_encoding(parser)
    parser.add_argument("--device", default=devices.chosen().type)


class Plan:
    """What to make of the input.

    Attributes:
        moments: moments of the frames to make, among those that are kept.
        rate: how many frames per second that is.
        kept: numbers of the input's frames that are not dropped.

    Raises:
        UserError: a rate for a folder whose own is not known, or fewer frames than there are.
    """

    def __init__(self, a: argparse.Namespace, clip: Clip) -> None:
        given, wanted = rational(a.from_fps, "--from_fps"), rational(a.to_fps, "--to_fps")
        factor = rational(a.times, "--times") or Fraction(2)
        times = times_of(clip, given)
        own = given or (clip.rate if isinstance(clip, Video) else FOLDER_RATE)
        if wanted is None and factor < 1:
            raise UserError(f"--times: must be at least 1, not {factor}; frames are added, none is left out")
        if wanted is not None and not isinstance(clip, Video) and given is None:
            raise UserError("--to_fps: a folder of frames does not say its rate; give --from_fps")
        self.rate = wanted or own * factor
        self.kept = without_repeats(clip) if a.drop_duplicates else list(range(len(clip)))
        shown = by_factor(times, factor) if wanted is None else at_rate(times, wanted)
        self.moments = placed(shown, [times[n] for n in self.kept])
        self.dropped = len(clip) - len(self.kept)

    def frames(self, clip: Clip) -> Iterator[np.ndarray]:
        """The frames that are kept."""
        kept = set(self.kept)
        return (frame for number, frame in enumerate(frames_of(clip)) if number in kept)


def run(a: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: no output is named, ``--flow_scale`` is out of range, or the network finds middles only.
    """
    # Refuse what cannot be done before anything is read.
    if a.frames is None and a.video is None:
        raise UserError("where to? Give --frames FOLDER, --video FILE, or both")
    if not 0 < a.flow_scale <= 1:
        raise UserError(f"--flow_scale: must be above 0 and at most 1, not {a.flow_scale:g}")
    device = named_device(a.device)
    rational(a.fps, "--fps")
    encoding = wished(a)
    clip = only_clip(a.input)
    plan = Plan(a, clip)
    moments = plan.moments
    if a.frames is not None:
        refuse_mixtures(a.frames, a.input, len(moments))
    # The network, which may not know moments other than the middle.
    model = build(a.opt, a.weights, device)
    model.tta, model.flow_scale, model.recursive = a.tta, a.flow_scale, a.recursive
    parts = {m.part for m in moments} - {Fraction(0), Fraction(1, 2)}
    if parts and not a.recursive and not knows_time(model, device):
        raise UserError(f"{a.opt or a.weights}: this network only finds the middle of two frames; give --recursive")
    refuse_unreachable(parts if a.recursive else set())
    # Frames are read ahead, interpolated and written as they come.
    between = Between(model, device, a.across_cuts)
    with contextlib.closing(ahead(plan.frames(clip))) as frames:
        count = write(a, between(frames, moments), clip, plan, encoding)
    targets = " and ".join(str(t) for t in (a.frames, a.video) if t is not None)
    if plan.dropped:
        print(f"{plan.dropped} frames that repeat the one before were left out first")
    if between.cuts:
        print(
            f"{between.cuts} scene cuts, between which the frame before stands; --across_cuts makes frames there, too"
        )
    print(f"{len(clip)} frames became {count}: {targets}")


def wished(a: argparse.Namespace) -> Encoding:
    """How the video is to be written.

    Raises:
        UserError: it cannot be, or there is none.
    """
    encoding = Encoding(a.codec, a.crf, a.pix_fmt, a.depth)
    if encoding == USUAL:
        return encoding
    if a.video is None:
        raise UserError("--codec, --crf, --pix_fmt and --depth are of a video; give --video FILE")
    choose(a.video.suffix.lower(), encoding)
    return encoding


def refuse_unreachable(parts: set[Fraction]) -> None:
    """Refuse times that halving does not reach.

    Raises:
        UserError: there is one.
    """
    for part in parts:
        if part.denominator & (part.denominator - 1) or part.denominator > 2**MOST_HALVINGS:
            raise UserError(
                f"--recursive: halving reaches 1/2, 1/4, 3/4, ... of the way between two frames, not {part}"
            )


def opened(a: argparse.Namespace, clip: Clip, plan: Plan, encoding: Encoding) -> VideoWriter:
    """The video: with the input's sound where it plays as fast."""
    plays = rational(a.fps, "--fps")
    rate = plays or plan.rate
    if not isinstance(clip, Video):
        return VideoWriter(a.video, rate, encoding=encoding)
    about = played_alike(clip, [moment.time for moment in plan.moments], rate)
    if plays is not None:
        about["timed"] = False
    if plays is not None or a.from_fps is not None:
        about["begins"] = None
    return VideoWriter(a.video, rate, encoding=encoding, **about)


def write(
    a: argparse.Namespace, images: Iterator[tuple[Moment, np.ndarray]], clip: Clip, plan: Plan, encoding: Encoding
) -> int:
    """Write the frames where the command line says; how many. What is left out is said."""
    with contextlib.ExitStack() as stack:
        video = None if a.video is None else stack.enter_context(opened(a, clip, plan, encoding))

        def store(entry: tuple[int, Moment, np.ndarray]) -> None:
            number, moment, image = entry
            if a.frames is not None:
                imwrite(frame_file(a.frames, number), image)
            if video is not None:
                video.write(video.fitting(image), moment.time)

        behind = stack.enter_context(Behind(store))
        count = 0
        for count, (moment, image) in enumerate(images, 1):
            behind.put((count - 1, moment, image))
    for note in sorted(set(video.notes if video is not None else ())):
        print(f"{a.video}: {note}")
    return count
