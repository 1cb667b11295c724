"""Any folders of clips in pairs, without lists: for training, windows of frames; else whole clips."""

from __future__ import annotations

import os
import random
from typing import Any

from ..core.annotations import Count
from ..core.errors import UserError
from . import DATASETS
from .base import Item, OnError, Phase
from .frame_pairs import FramePairs, open_both, refuse_sizes, refuse_unequal, window_span
from .sources import IOBackend, as_backend, refuse_small
from .transforms import Color


@DATASETS.register()
class ClipsDataset(FramePairs):
    """Clips of any names: folders of frames (in the order of their numbers) or video files, in two folders that correspond.

    In training an item is `num_frame` frames at a random place of a clip, ``lq`` (num_frame, 3, h, w) and ``gt``
    (num_frame, 3, H, W); else a whole clip. Besides, ``folder``: the clip's name.

    Args:
        dataroot_gt: folder of sharp clips, or of videos.
        dataroot_lq: the same of degraded clips, under the same names.
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

    Raises:
        UserError: clips or frames are missing in one of the folders, frames of a clip have several sizes, gt and lq do
            not differ by `scale`, or a window is longer than a clip.
    """

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lq: str,
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
    ) -> None:
        super().__init__(scale, gt_size, use_hflip, use_rot, phase, on_error, color)
        backend = as_backend(io_backend)
        self.gt, self.lq = open_both(dataroot_gt, dataroot_lq, backend, on_error)
        refuse_unequal(self.gt, self.lq)
        refuse_sizes(self.gt, self.lq, scale)
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
        lq, gt = self.paired(self.lq[name].read(numbers), self.gt[name].read(numbers), self.gt[name].origin)
        paths = {"lq_path": self.lq[name].path(numbers[0]), "gt_path": self.gt[name].path(numbers[0])}
        return {"lq": lq, "gt": gt, "folder": name, "name": name.replace(os.sep, "_"), **paths}
