"""Make a video, or a folder of frames, two to sixteen times as dense.

``relume interpolate clip.mp4 -opt options/vfi/phase2.yml --weights net_g_best.pth --times 8 --video slow.mp4``

``--frames`` writes numbered PNG files, ``--video`` a video; either or both. The video plays as fast as the original unless
``--fps`` says otherwise: with the original's rate it is slow motion. Times between two frames are asked of the network;
``--recursive`` reaches them by halving instead, which networks that were trained on middle frames only need.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ...datasets.clips import Clip, Video, find_clips
from ...datasets.transforms import to_tensor
from ..errors import UserError
from ..imaging.image_io import imwrite
from ..imaging.visual import to_uint8
from ..load import load_model
from ..models.interpolation import InterpolationModel
from ..runtime.distributed import named_device
from ._arguments import add_model, named


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


def frames_of(clip: Clip, device: torch.device) -> Iterator[Tensor]:
    """The frames in order, (1, 3, H, W) in [0, 1].

    Raises:
        UserError: frames of different sizes, or one that cannot be decoded.
    """
    size: tuple[int, ...] | None = None
    for first in range(0, len(clip), 16):  # a video is opened anew for each portion
        numbers = range(first, min(first + 16, len(clip)))
        for number, image in zip(numbers, clip.read(numbers), strict=True):
            size = size or image.shape
            if image.shape != size:
                sizes = [f"{s[0]}x{s[1]}" for s in (image.shape, size)]
                raise UserError(
                    f"{clip.path(number)}: is {sizes[0]} (height x width), but {clip.path(0)} is {sizes[1]}"
                )
            yield to_tensor(image)[None].to(device)


@torch.no_grad()
def denser(model: Any, frames: Iterator[Tensor], times: int) -> Iterator[np.ndarray]:
    """All frames, with ``times - 1`` new ones between neighbours, (H, W, 3) uint8."""
    before: Tensor | None = None
    for frame in frames:
        if before is not None:
            for image in model.sequence(before, frame, times):
                yield to_uint8(image[0])
        yield to_uint8(frame[0])
        before = frame


@torch.no_grad()
def knows_time(model: Any, device: torch.device) -> bool:
    """Whether the network makes something else when it is asked for another time."""
    img0, img1 = torch.rand(2, 1, 3, 64, 64, device=device)
    return not torch.equal(model.between(img0, img1, 0.25), model.between(img0, img1, 0.5))


class Output:
    """Where frames go.

    Args:
        folder: of numbered PNG files.
        video: file, MPEG-4 unless its suffix says otherwise.
        rate: frames per second of the video.
    """

    def __init__(self, folder: Path | None, video: Path | None, rate: float) -> None:
        self.folder, self.video, self.rate = folder, video, rate
        self.count = 0
        self._writer: cv2.VideoWriter | None = None

    def write(self, image: np.ndarray) -> None:
        """Add a frame, (H, W, 3) RGB uint8.

        Raises:
            UserError: the video cannot be written.
        """
        if self.folder is not None:
            imwrite(self.folder / f"{self.count:06d}.png", image)
        if self.video is not None:
            if self._writer is None:
                self.video.parent.mkdir(parents=True, exist_ok=True)
                code = {".avi": "MJPG", ".webm": "VP80"}.get(self.video.suffix.lower(), "mp4v")
                size = (image.shape[1], image.shape[0])
                self._writer = cv2.VideoWriter(str(self.video), cv2.VideoWriter.fourcc(*code), self.rate, size)
                if not self._writer.isOpened():
                    raise UserError(
                        f"{self.video}: OpenCV cannot write such a video here; try .mp4 or .avi, or --frames"
                    )
            self._writer.write(np.ascontiguousarray(image[..., ::-1]))
        self.count += 1

    def close(self) -> None:
        """Finish the video."""
        if self._writer is not None:
            self._writer.release()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    parser.add_argument("input", help="video file, or folder of frames")
    add_model(parser)
    parser.add_argument("--times", type=int, choices=(2, 4, 8, 16), default=2, help="how many times as many frames")
    parser.add_argument("--recursive", action="store_true", help="reach times by halving")
    parser.add_argument("--tta", choices=("none", "hflip", "rot180", "dihedral"), default="none")
    parser.add_argument("--flow_scale", type=float, default=1.0, help="0.5 for 2K, 0.25 for 4K")
    parser.add_argument("--frames", type=Path, metavar="FOLDER", help="write numbered PNG files")
    parser.add_argument("--video", type=Path, metavar="FILE", help="write a video")
    parser.add_argument("--fps", type=float, help="of the video; the input's times --times when omitted")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def run(a: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    if a.frames is None and a.video is None:
        raise UserError("where to? Give --frames FOLDER, --video FILE, or both")
    if a.fps is not None and a.fps <= 0:
        raise UserError(f"--fps: must be above 0, not {a.fps:g}")
    if not 0 < a.flow_scale <= 1:
        raise UserError(f"--flow_scale: must be above 0 and at most 1, not {a.flow_scale:g}")
    device = named_device(a.device)
    clip = only_clip(a.input)
    model = build(a.opt, a.weights, device)
    model.tta, model.flow_scale, model.recursive = a.tta, a.flow_scale, a.recursive
    if a.times > 2 and not a.recursive and not knows_time(model, device):
        raise UserError(f"{a.opt or a.weights}: this network only finds the middle of two frames; give --recursive")
    rate = a.fps or (clip.rate if isinstance(clip, Video) else 25.0) * a.times
    output = Output(a.frames, a.video, rate)
    try:
        for image in denser(model, frames_of(clip, device), a.times):
            output.write(image)
    finally:
        output.close()
    targets = " and ".join(str(t) for t in (a.frames, a.video) if t is not None)
    print(f"{len(clip)} frames became {output.count}: {targets}")
