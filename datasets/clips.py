"""Triplets cut from long clips: X4K1000FPS, any folder of frames, any video file."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.annotations import Count
from ..core.errors import UserError, expanded
from ..core.imaging.image_io import READERS
from ..core.imaging.naming import natural_order
from ..core.imaging.storage import UnreadableFile, is_hidden, walk
from . import DATASETS
from .base import OnError, Phase
from .kept import Shelf
from .pairing import as_roots
from .sources import Source, refuse_small, with_suffix
from .transforms import Image
from .triplets import FrameDataset, Switches, Triplet, existing
from .videos import VIDEOS, Video

log = logging.getLogger("relume")


def tolerated(on_error: OnError) -> list[str] | None:
    """Where `find_clips` is to put what it passes over; None where it is to pass over nothing."""
    return [] if on_error == "skip" else None


class FrameList:
    """Some images of a source, as a sequence of frames."""

    def __init__(self, source: Source, names: Sequence[str], origin: str) -> None:
        self.source, self.names, self.origin = source, list(names), origin

    def __len__(self) -> int:
        return len(self.names)

    def path(self, number: int) -> str:
        """The file of a frame."""
        return self.source.path(self.names[number])

    def read(self, numbers: Sequence[int]) -> list[Image]:
        """Frames by number, (H, W, 3) RGB at the files' own precision."""
        return [self.source.pixels(self.names[number]) for number in numbers]

    def size(self, number: int) -> tuple[int, int] | None:
        """(height, width) of a frame, where its header tells."""
        return self.source.size(self.names[number])

    def keep(self, shelf: Shelf) -> None:
        """Keep frames there once they are decoded: for those whose source has no other images."""
        self.source.keep(shelf)


class FrameFolder(FrameList):
    """The images of one folder, in the order of their names with numbers compared as numbers, as a sequence of frames."""

    def __init__(self, folder: str, names: Sequence[str]) -> None:
        ordered = sorted(names, key=natural_order)
        super().__init__(Source(folder, ordered), ordered, folder)


Clip = Video | FrameFolder


def find_clips(root: str, left_out: list[str] | None = None) -> list[Clip]:
    """A video file, or all videos and folders with images inside a folder, sorted by path.

    Args:
        left_out: list that gets the names of videos that cannot be decoded, which are then passed over where there are others.

    Raises:
        UserError: there is neither, or a video cannot be decoded.
    """
    root = os.path.expanduser(root)
    if os.path.isfile(root):
        return [Video(root)]
    existing([Path(root)], "Give a video file, or a folder of videos or of frames")
    clips: list[tuple[str, Clip]] = []
    for relative, files in walk(root):
        folder = os.path.join(root, relative).rstrip("/")
        images = with_suffix(folder, [f for f in files if not f.lower().endswith(VIDEOS)], READERS)
        if images:
            clips.append((folder, FrameFolder(folder, images)))
        for path in (os.path.join(folder, f) for f in files if f.lower().endswith(VIDEOS)):
            try:
                clips.append((path, Video(path)))
            except UnreadableFile as e:
                if left_out is None:
                    raise
                log.warning("skipped: %s", e)
                left_out.append(path)
    if not clips and left_out:
        raise UserError(f"none of the {len(left_out)} videos in {root} can be decoded; the last messages say why")
    if not clips:
        raise UserError(f"{root}: has neither images nor videos (looked for {', '.join((*READERS, *VIDEOS))})")
    return [clip for _, clip in sorted(clips, key=lambda pair: pair[0])]


class ClipDataset(FrameDataset):
    """Triplets at random places of clips.

    In training a sample's distance between the outer frames is drawn from the range `stride`, and the middle frame is the one
    exactly half-way (then only even distances are drawn) or, with `any_time`, any frame in between; otherwise the distance is
    the largest possible one, and the frame the middle one.

    Args:
        clips: sequences of frames.
        stride: range of distances between the outer frames, in frames.
        any_time: whether any frame in between is taken, with its timestep, instead of the middle one.
        per_frame: a sample for every frame of a clip that can be the first one; else one per clip, and the place is random.
    """

    def __init__(
        self, clips: Sequence[Clip], stride: tuple[int, int], any_time: bool, per_frame: bool, **settings: Any
    ) -> None:
        super().__init__(**settings)
        least, most = stride if len(stride) == 2 else (0, 0)
        self.any_time = any_time and self.training
        self.strides = [s for s in range(max(2, least), most + 1) if self.any_time or s % 2 == 0]
        if not self.strides:
            kind = "" if self.any_time else "even "
            raise UserError(f"stride: {list(stride)} has no {kind}distance of at least 2 frames between outer frames")
        for clip in clips:
            if len(clip) <= self.strides[0]:
                what = f"a distance of {self.strides[0]} between the outer ones needs {self.strides[0] + 1}"
                raise UserError(f"{clip.origin}: has {len(clip)} frames; {what}")
        self.clips = list(clips)
        above = os.path.commonpath([os.path.dirname(os.path.abspath(clip.origin)) for clip in self.clips])
        self.clip_names = [os.path.relpath(clip.origin, above).replace(os.sep, "_") for clip in self.clips]
        self.per_frame = per_frame
        starts = [len(clip) - self.strides[0] if per_frame else 1 for clip in self.clips]
        self.ends = np.cumsum(starts)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def triplet(self, index: int) -> tuple[Any, Triplet]:
        number = int(np.searchsorted(self.ends, index, side="right"))
        clip, start = self.clips[number], index - (int(self.ends[number - 1]) if number else 0)
        possible = [s for s in self.strides if s < len(clip) - (start if self.per_frame else 0)]
        stride = possible[np.random.randint(len(possible))] if self.training else possible[-1]
        if not self.per_frame:
            start = np.random.randint(len(clip) - stride) if self.training else 0
        middle = np.random.randint(1, stride) if self.any_time else stride // 2
        frames = (start, start + middle, start + stride)
        where = Frames(clip, {str(n): n for n in frames})
        frame = os.path.basename(clip.path(frames[1]))
        frame = str(frames[1]) if isinstance(clip, Video) else os.path.splitext(frame)[0]
        return where, Triplet(tuple(map(str, frames)), middle / stride, f"{self.clip_names[number]}_{frame}")

    def frames(self, where: Any, triplet: Triplet) -> list[Image]:
        images: list[Image] = where.clip.read([int(name) for name in triplet.files])
        return images

    def require_patch(self, size: int) -> None:
        """Check that frames are large enough for training patches of `size`, by each clip's first frame.

        Raises:
            UserError: some are smaller; up to ten are named.
        """
        if not self.enlarge:
            first: list[Any] = [(Frames(clip, {"0": 0}), "0") for clip in self.clips]
            refuse_small(first, min(size, self.patch_limit or size))


class Frames:
    """Some frames of a clip, called by their numbers."""

    def __init__(self, clip: Clip, numbers: dict[str, int]) -> None:
        self.clip = clip
        self.numbers = numbers

    def path(self, name: str) -> str:
        """The frame's path."""
        return self.clip.path(self.numbers[name])

    def size(self, name: str) -> tuple[int, int] | None:
        """(height, width), where known."""
        return self.clip.size(self.numbers[name])


@DATASETS.register()
class VideoDataset(ClipDataset):
    """Triplets from your own videos, or folders of frames (one clip per folder, frames in the order of their names).

    Args:
        dataroot: video file(s) or folder(s), which are searched for both.
        stride: range of distances between the outer frames, in frames; even ones are used.
        any_time: take, in training, any frame in between, with its timestep, instead of the middle one.
        gt_size: side of the training patch; whole frames when omitted.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        use_reverse_channels: exchange red and blue at random.
        use_reverse_time: exchange the outer frames at random.
        use_flip: flip at random, both ways.
        use_rot: rotate at random by multiples of 90 degrees.
        enlarge: cut patches from smaller frames as large as they can be, and enlarge them.
        on_error: what an unreadable frame does: ``raise``, or ``skip`` to the next sample.
    """

    def __init__(
        self,
        dataroot: str | list[str],
        stride: tuple[int, int] = (2, 2),
        any_time: bool = False,
        gt_size: Count | None = None,
        phase: Phase = "train",
        use_reverse_channels: bool = True,
        use_reverse_time: bool = True,
        use_flip: bool = True,
        use_rot: bool = True,
        enlarge: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(
            [clip for root in as_roots(dataroot, "dataroot") for clip in find_clips(root, tolerated(on_error))],
            stride,
            any_time,
            per_frame=True,
            phase=phase,
            gt_size=gt_size,
            switches=Switches(use_reverse_channels, use_reverse_time, use_flip, use_rot),
            enlarge=enlarge,
            on_error=on_error,
        )


@DATASETS.register()
class X4K1000FPSDataset(ClipDataset):
    """X-TRAIN of X4K1000FPS (Sim et al., XVFI, ICCV 2021): 4408 clips of 65 frames of 768x768, ``<scene>/<clip>/0000.png`` ...

    One sample per clip and epoch; place and distance are drawn anew. Clips are downloaded as videos, and have to be decoded to
    frames first: ``relume prepare frames datasets/X4K1000FPS/train datasets/X4K1000FPS/train``.

    Args:
        dataroot: folder of the scenes, or that which holds it as ``train``.
        stride: range of distances between the outer frames; even ones are drawn, so that the middle frame is exact.
        any_time: take, in training, any frame in between, with its timestep, instead of the middle one.
        gt_size: side of the training patch; whole frames when omitted.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        use_reverse_channels: exchange red and blue at random.
        use_reverse_time: exchange the outer frames at random.
        use_flip: flip at random, both ways.
        use_rot: rotate at random by multiples of 90 degrees.
        enlarge: cut patches from smaller frames as large as they can be, and enlarge them.
        on_error: what an unreadable frame does: ``raise``, or ``skip`` to the next sample.
    """

    def __init__(
        self,
        dataroot: str,
        stride: tuple[int, int] = (8, 32),
        any_time: bool = False,
        gt_size: Count | None = None,
        phase: Phase = "train",
        use_reverse_channels: bool = True,
        use_reverse_time: bool = True,
        use_flip: bool = True,
        use_rot: bool = True,
        enlarge: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        # Find the folders of frames; a video beside them was not decoded yet.
        root = expanded(dataroot)
        wanted = "X4K1000FPS has train/<scene>/<clip>/0000.png to 0064.png (https://github.com/JihyongOh/XVFI)"
        root = root / "train" if (root / "train").is_dir() else existing([root], wanted)
        clips: list[Clip] = []
        for scene in sorted(p for p in root.iterdir() if p.is_dir() and not is_hidden(p.name)):
            for entry in sorted(p for p in scene.iterdir() if not is_hidden(p.name)):
                if entry.suffix == ".mp4" and not entry.with_suffix("").is_dir():
                    raise UserError(
                        f"{entry}: is a video; decode all of them first: relume prepare frames {root} {root}"
                    )
                if entry.is_dir():
                    images = [n for n in os.listdir(entry) if n.endswith(".png") and not is_hidden(n)]
                    if not images:
                        raise UserError(f"{entry}: has no frames. {wanted}")
                    clips.append(FrameFolder(str(entry), images))
        if not clips:
            raise UserError(f"{root}: has no clips. {wanted}")
        super().__init__(
            clips,
            stride,
            any_time,
            per_frame=False,
            phase=phase,
            gt_size=gt_size,
            switches=Switches(use_reverse_channels, use_reverse_time, use_flip, use_rot),
            enlarge=enlarge,
            on_error=on_error,
        )
