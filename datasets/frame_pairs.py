"""Clips in pairs: the same frames degraded and whole, in folders, LMDB databases and video files."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.imaging.naming import natural_order
from .base import ImageDataset, OnError, Phase
from .clips import Clip, FrameList, find_clips, tolerated
from .kept import Shelf
from .sources import MOST_HEADERS, IOBackend, Source, as_backend, first_names, open_source, refuse_small
from .transforms import Color, Image, random_crop, random_flip_rotate, to_tensor, with_channels

Frames = Clip | FrameList


def open_both(
    gt: str, lq: str | None, backend: IOBackend, on_error: OnError
) -> tuple[dict[str, Frames], dict[str, Frames]]:
    """The clips of both folders by name; where errors are skipped, without those that one of them cannot be decoded of.

    Without `lq` both are the same.
    """
    left_out = tolerated(on_error)
    whole = open_clips(gt, backend, left_out, "gt")
    degraded = open_clips(lq, backend, left_out, "lq") if lq else whole
    for name in left_out or ():
        whole.pop(name, None)
        degraded.pop(name, None)
    return whole, degraded


def open_clips(root: str, backend: IOBackend, left_out: list[str] | None = None, part: str = "") -> dict[str, Frames]:
    """Clips by name (the folder inside `root`, or the video file without suffix), in the order of their names.

    Args:
        left_out: list that gets the names of clips that are videos which cannot be decoded; see `find_clips`.
        part: the files of a key that are meant, see `sources.Tar`.

    Raises:
        UserError: there are none.
    """
    if backend.type != "disk":
        source = opened(root, backend, part)
        grouped: dict[str, list[str]] = defaultdict(list)
        for name in source.files.values():
            grouped[os.path.dirname(name)].append(name)
        return {
            clip: FrameList(source, sorted(names, key=natural_order), f"{root}/{clip}")
            for clip, names in sorted(grouped.items())
        }
    root = os.path.expanduser(root)
    files = None if left_out is None else list[str]()
    clips: dict[str, Frames] = {}
    for clip in find_clips(root, files):
        name = os.path.relpath(clip.origin, root) if os.path.isdir(root) else os.path.basename(root)
        name = os.path.basename(root.rstrip("/")) if name == "." else name
        clips[os.path.splitext(name)[0] if os.path.isfile(clip.origin) else name] = clip
    if backend.pool is not None:
        counts = [len(frames) for frames in clips.values()]
        for frames, shelf in zip(clips.values(), Shelf(backend.pool, sum(counts)).divided(counts), strict=True):
            frames.keep(shelf)
    if left_out is not None:
        left_out += [os.path.splitext(os.path.relpath(file, root))[0] for file in files or ()]
    return dict(sorted(clips.items()))


def opened(root: str, backend: IOBackend, part: str) -> Source:
    """The images under `root`; of archives, which may hold both, those that are ``gt`` or ``lq``."""
    return open_source(root, backend, part=part) if backend.type == "tar" else open_source(root, backend)


def refuse_unequal(gt: Mapping[str, Frames], lq: Mapping[str, Frames]) -> None:
    """Check that two sets of clips have the same clips and frames.

    Raises:
        UserError: naming what only one of them has.
    """
    for one, other, where in ((gt, lq, "dataroot_lq"), (lq, gt, "dataroot_gt")):
        if absent := [name for name in one if name not in other]:
            raise UserError(f"{where}: has no clip {first_names(absent, 3)}, which the other folder has")
    for name, clip in gt.items():
        if len(clip) == len(lq[name]):
            continue
        stems = [{os.path.splitext(os.path.basename(c.path(i)))[0] for i in range(len(c))} for c in (clip, lq[name])]
        only = sorted(stems[0] ^ stems[1], key=natural_order)
        named = f": only one has {first_names(only, 3)}" if only else ""
        raise UserError(f"clip {name}: {len(clip)} frames in gt and {len(lq[name])} in lq{named}")


def refuse_sizes(gt: Mapping[str, Frames], lq: Mapping[str, Frames], scale: int) -> None:
    """Check, from headers, that the frames of each clip are of one size, and those of gt `scale` times as large as those of lq.

    Of very many frames, evenly spaced ones are looked at.

    Raises:
        UserError: naming the first clip of which this is not so.
    """
    step = -(-sum(map(len, gt.values())) // MOST_HEADERS)
    for name, clip in gt.items():
        large, small = _size(name, "gt", clip, step), _size(name, "lq", lq[name], step)
        if large and small and large != (small[0] * scale, small[1] * scale):
            what = f"gt is {large[0]}x{large[1]} and lq {small[0]}x{small[1]}"
            raise UserError(f"clip {name}: {what}, which is not scale {scale}")


def _size(name: str, where: str, clip: Frames, step: int) -> tuple[int, int] | None:
    """(height, width) of a clip's frames, where headers tell. Raises UserError if there are several."""
    first = {size: i for i in range(0, len(clip), step)[::-1] if (size := clip.size(i)) is not None}
    if len(first) > 1:
        ordered = sorted(first.items(), key=lambda found: found[1])
        shown = [f"{os.path.basename(clip.path(i))} is {h}x{w}" for (h, w), i in ordered]
        raise UserError(f"clip {name}: frames in {where} have several sizes: {first_names(shown, 3)}")
    return next(iter(first), None)


def refuse_several_sizes(images: Sequence[Image], path: str) -> None:
    """Refuse a clip whose frames differ in size.

    Raises:
        UserError: the frames that were read are not of one size.
    """
    if len({image.shape for image in images}) > 1:
        sizes = sorted({f"{i.shape[0]}x{i.shape[1]}" for i in images})
        raise UserError(f"{path}: frames of one clip have several sizes: {', '.join(sizes)}")


def window_span(num_frame: int, interval_list: Sequence[int]) -> int:
    """Frames of a clip that a window covers at the largest distance between its own.

    Raises:
        UserError: `interval_list` is empty, or has a distance below 1.
    """
    if not interval_list or min(interval_list) < 1:
        raise UserError(f"interval_list: needs distances between frames of at least 1, not {interval_list}")
    return (num_frame - 1) * max(interval_list) + 1


class FramePairs(ImageDataset):
    """What data sets of clips share: reading frames of a pair, one crop and one turn for all of them.

    Args:
        scale: size of gt / size of lq.
        gt_size: side of the training patch in gt; whole frames when None.
        use_hflip, use_rot: flips and turns at random, see `random_flip_rotate`.
        phase: nothing is random but in ``train``.
        on_error: what an unreadable file does, see `ImageDataset`.
        color: channels of the images, see `with_channels`.
    """

    random_reverse = False
    """Whether frames are given backwards half of the time."""

    def __init__(
        self,
        scale: int = 1,
        gt_size: int | None = None,
        use_hflip: bool = False,
        use_rot: bool = False,
        phase: Phase = "train",
        on_error: OnError = "raise",
        color: Color = None,
    ) -> None:
        super().__init__(on_error)
        if gt_size is not None and gt_size % scale:
            raise UserError(f"gt_size: {gt_size} must be a multiple of scale {scale}")
        self.scale, self.gt_size, self.training = scale, gt_size, phase == "train"
        self.use_hflip, self.use_rot, self.color = use_hflip, use_rot, color

    def reversed_at_random(self, numbers: list[int]) -> list[int]:
        """The frames, or in training, where that is asked for, half of the time the frames backwards."""
        return numbers[::-1] if self.training and self.random_reverse and random.random() < 0.5 else numbers  # noqa: S311

    def paired(self, lq: list[Image], gt: list[Image], path: str) -> tuple[Tensor, Tensor]:
        """Frames as (t, 3, h, w) and (T, 3, H, W), or of one channel, in training cut and turned alike.

        Raises:
            UserError: frames are of several sizes, or lq and gt do not differ by `scale`.
        """
        for images in (lq, gt):
            refuse_several_sizes(images, path)
        small, large = lq[0].shape[:2], gt[0].shape[:2]
        if large != (small[0] * self.scale, small[1] * self.scale):
            what = f"{large[0]}x{large[1]} and lq {small[0]}x{small[1]}"
            raise UserError(f"{path}: gt is {what}, which is not scale {self.scale}")
        images = self.augmented([*lq, *gt], self.scale, path)
        return self.stacked(images[: len(lq)]), self.stacked(images[len(lq) :])

    def augmented(self, images: list[Image], scale: int, path: str) -> list[Image]:
        """Frames in training cut and turned alike, the last to `gt_size`, those of 1 / `scale` of its size to the same area."""
        if not self.training:
            return images
        if self.gt_size is not None:
            images = random_crop(images, self.gt_size, scale, path)
        return random_flip_rotate(images, self.use_hflip, self.use_rot)

    def stacked(self, images: Sequence[Image]) -> Tensor:
        """(T, 3, H, W) float32 in [0, 1]; one channel where that is asked for."""
        return torch.stack([to_tensor(with_channels(image, self.color)) for image in images])


class ListedPairs(FramePairs):
    """Pairs of frames found by key in two folders or databases: ``000/00000000``, ``00001/0001/im4``."""

    def __init__(self, dataroot_gt: str, dataroot_lq: str, io_backend: IOBackend | None, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        backend = as_backend(io_backend)
        self.gt = opened(dataroot_gt, backend, "gt")
        self.lq = opened(dataroot_lq, backend, "lq")

    def refuse_missing(self, gt: Iterable[str], lq: Iterable[str] | None = None) -> None:
        """Check that both folders have every frame that is needed of them, which are the same when `lq` is omitted.

        Raises:
            UserError: some are missing; up to three are named.
        """
        of_gt = list(gt)
        of_lq = of_gt if lq is None else list(lq)
        for what, source, every in (("dataroot_gt", self.gt, of_gt), ("dataroot_lq", self.lq, of_lq)):
            if missing := [key for key in every if key not in source.files]:
                raise UserError(
                    f"{what}: {len(missing)} of {len(every)} frames are not in {source.root}: {first_names(missing, 3)}"
                )

    def frames(self, source: Source, keys: Sequence[str]) -> list[Image]:
        """Images by key."""
        return [source.pixels(source.files[key]) for key in keys]

    def require_patch(self, size: int) -> None:
        """Check, from headers, that frames are large enough for training patches of `size`."""
        refuse_small([(self.gt, name) for name in self.gt.files.values()], size)
