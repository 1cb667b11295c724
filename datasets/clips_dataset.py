"""Any folders of clips in pairs, without lists: for training, windows of frames; else whole clips."""

from __future__ import annotations

import os
import random
from typing import Annotated, Any

import numpy as np
from torch import Tensor

from ..core.annotations import Count
from ..core.degradations import DEGRADATIONS
from ..core.degradations.draws import Draws
from ..core.degradations.engines import EngineName
from ..core.degradations.second_order import SecondOrder
from ..core.errors import UserError
from ..core.imaging.image_io import to_float
from . import DATASETS
from .base import Item, OnError, Phase
from .clip_degradations import ClipDegradation
from .clips import FrameList
from .frame_pairs import FramePairs, open_both, refuse_several_sizes, refuse_sizes, refuse_unequal, window_span
from .source import ArchivePlace
from .sources import IOBackend, as_backend, refuse_small
from .transforms import Color, Image, to_tensor


@DATASETS.register()
class ClipsDataset(FramePairs):
    """Clips of any names: folders of frames (in the order of their numbers) or video files, in two folders that correspond.

    In training an item is `num_frame` frames at a random place of a clip, ``lq`` (num_frame, 3, h, w) and ``gt``
    (num_frame, 3, H, W); else a whole clip. Besides, ``folder``: the clip's name.

    Without `dataroot_lq` clips are degraded here, all frames of an item in the same way (see `clip_degradations`): in training
    anew every time, else as the index says. Then there is ``seed`` besides, the seed of what is drawn.

    Args:
        dataroot_gt: folder of sharp clips, or of videos.
        dataroot_lq: the same of degraded clips, under the same names; degraded here when omitted.
        num_frame: frames of a training item.
        gt_size: side of the training patch in gt; whole frames when omitted.
        interval_list: distances between frames, of which one is drawn.
        random_reverse: give the frames backwards, half of the time.
        use_hflip: flip at random.
        use_rot: turn at random.
        scale: size of gt / size of lq.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        io_backend: ``{type: disk}``, ``{type: lmdb}`` or ``{type: tar}``.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
        color: ``gray`` for one channel, the gray value in [0, 1]; ``y`` for luma in [16/255, 235/255]; RGB when omitted.
        degradation: Real-ESRGAN's chain, where there is no `dataroot_lq`; ``{}`` has its public values.
        degradations: list of operations, instead of that chain; ``{type: compress, codec: [h264, h265, mpeg4]}`` compresses
            the clip.
        engine: what degrades: ``opencv`` with real codecs, or ``tensor``.

    Raises:
        UserError: clips or frames are missing in one of the folders, frames of a clip have several sizes, gt and lq do
            not differ by `scale`, a window is longer than a clip, or it is not said how lq comes about.
    """

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lq: str | None = None,
        num_frame: Count = 7,
        gt_size: Count | None = None,
        interval_list: list[int] = [1],  # noqa: B006  (not changed)
        random_reverse: bool = False,
        use_hflip: bool = False,
        use_rot: bool = False,
        scale: int = 4,
        phase: Phase = "train",
        io_backend: IOBackend | None = None,
        on_error: OnError = "raise",
        color: Color = None,
        degradation: SecondOrder | None = None,
        degradations: list[Annotated[Any, DEGRADATIONS]] | None = None,
        engine: EngineName = "opencv",
    ) -> None:
        super().__init__(scale, gt_size, use_hflip, use_rot, phase, on_error, color)
        given = degradation is not None or degradations is not None
        if given == (dataroot_lq is not None):
            raise UserError(
                "dataroot_lq: degraded clips are given, so leave degradation and degradations out"
                if given
                else "dataroot_lq: give a folder of degraded clips, or degradation: {}, or degradations, to degrade gt here"
            )
        self.degrade = ClipDegradation(degradation, degradations, engine, scale) if given else None
        backend = as_backend(io_backend)
        self.gt, self.lq = open_both(dataroot_gt, dataroot_lq, backend, on_error)
        refuse_unequal(self.gt, self.lq)
        refuse_sizes(self.gt, self.lq, scale if dataroot_lq is not None else 1)
        self.num_frame, self.intervals, self.random_reverse = num_frame, list(interval_list), random_reverse
        span = window_span(num_frame, interval_list)
        for name, clip in self.gt.items() if self.training else ():
            if len(clip) < span:
                raise UserError(f"num_frame: a window spans {span} frames, and clip {name} has {len(clip)}")
        self.names = list(self.gt)
        # In an epoch every frame is seen about once.
        counts = {name: max(1, len(clip) // num_frame) for name, clip in self.gt.items()}
        self.items = [n for n in self.names for _ in range(counts[n] if self.training else 1)]

    def __len__(self) -> int:
        return len(self.items)

    def stored_at(self, index: int) -> ArchivePlace | None:
        """The place of the clip's first frame."""
        clip = self.gt[self.items[index]]
        return clip.source.place(clip.names[0]) if isinstance(clip, FrameList) else None

    def require_patch(self, size: int) -> None:
        """Check, from headers, that clips are large enough for training patches of `size`."""
        first: list[Any] = [(clip, 0) for clip in self.gt.values()]
        refuse_small(first, size)

    def load(self, index: int) -> Item:
        name = self.items[index]
        count = len(self.gt[name])
        numbers = list(range(count))
        if self.training:
            interval = random.choice(self.intervals)  # noqa: S311
            start = random.randint(0, count - 1 - (self.num_frame - 1) * interval)  # noqa: S311
            numbers = self.reversed_at_random([start + i * interval for i in range(self.num_frame)])
        paths = {"lq_path": self.lq[name].path(numbers[0]), "gt_path": self.gt[name].path(numbers[0])}
        about: Item = {"folder": name, "name": name.replace(os.sep, "_"), **paths}
        gt = self.gt[name].read(numbers)
        if self.degrade is None:
            small, large = self.paired(self.lq[name].read(numbers), gt, self.gt[name].origin)
            return {**about, "lq": small, "gt": large}
        seed = int(np.random.randint(2**63 - 1, dtype=np.int64)) if self.training else index
        return {**about, **self._degraded(gt, Draws(seed), self.gt[name].origin), "seed": seed}

    def _degraded(self, images: list[Image], draws: Draws, path: str) -> dict[str, Tensor]:
        """``lq`` and ``gt`` of frames, cut and turned in training; outside it cut to a multiple of the scale."""
        assert self.degrade is not None
        refuse_several_sizes(images, path)
        height, width = (side - side % self.scale for side in images[0].shape[:2])
        if not height or not width:
            raise UserError(f"{path}: frames are smaller than scale {self.scale}")
        whole = self.augmented([to_float(image[:height, :width]) for image in images], 1, path)
        small = self.degrade([to_tensor(image) for image in whole], draws)
        return {"lq": self.stacked([frame.permute(1, 2, 0).numpy() for frame in small]), "gt": self.stacked(whole)}
