"""REDS (Nah et al., CVPR Workshops 2019) for training: ``<clip>/<%08d>.png``, clips of 100 frames."""

from __future__ import annotations

import random
import re
from typing import Literal

from ..core.annotations import Count
from ..core.errors import UserError
from . import DATASETS
from .base import Item, OnError, Phase
from .frame_pairs import ListedPairs, window_span
from .sources import IOBackend, first_names
from .transforms import Color
from .triplets import read_list

VALIDATION = {"REDS4": ("000", "011", "015", "020"), "official": tuple(f"{i:03d}" for i in range(240, 270))}
Partition = Literal["REDS4", "official"]


class Reds(ListedPairs):
    """What both sets share: frames by clip and number, less those of the validation clips.

    Raises:
        UserError: the list is wrong, frames are missing, or a window is longer than a clip.
    """

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lq: str,
        meta_info_file: str | None,
        num_frame: int,
        interval_list: list[int],
        random_reverse: bool,
        val_partition: Partition,
        test_mode: bool,
        io_backend: IOBackend | None,
        dataroot_flow: str | None,
        **settings: object,
    ) -> None:
        super().__init__(dataroot_gt, dataroot_lq, io_backend, **settings)
        if dataroot_flow:
            raise UserError("dataroot_flow: flows that were computed beforehand are not read here; leave it out")
        if val_partition not in VALIDATION:
            raise UserError(f"val_partition: there is no '{val_partition}'; REDS4 and official are there")
        span = window_span(num_frame, interval_list)
        held_out = VALIDATION[val_partition]
        self.lengths = {
            clip: count for clip, count in self._clips(meta_info_file).items() if (clip in held_out) == test_mode
        }
        if not self.lengths:
            which = "is one of" if test_mode else "is other than"
            raise UserError(f"{meta_info_file or dataroot_gt}: no clip {which} the validation clips of {val_partition}")
        for clip, count in self.lengths.items():
            if span > count:
                window = f"{num_frame} frames at a distance of {max(interval_list)} span {span}"
                raise UserError(f"num_frame: {window}, and clip {clip} has {count}")
        self.keys = [(clip, i) for clip, count in self.lengths.items() for i in range(count)]
        self.refuse_missing(self.key(*key) for key in self.keys)
        self.num_frame, self.interval_list, self.random_reverse = num_frame, interval_list, random_reverse

    def _clips(self, meta_info_file: str | None) -> dict[str, int]:
        """How many frames each clip has: by the list, else as there are."""
        counts: dict[str, int] = {}
        if meta_info_file is None:
            if only := sorted(self.lq.files.keys() - self.gt.files.keys()):
                raise UserError(
                    f"dataroot_gt: lacks {first_names(only, 3)}, of {self.lq.root}; without a list both have the same"
                )
            for key in self.gt.files:
                clip = key.rpartition("/")[0]
                counts[clip] = counts.get(clip, 0) + 1
            return counts
        for number, line in read_list(meta_info_file, "000 100 (720,1280,3)"):
            found = re.match(r"(\S+)\s+(\d+)(\s|$)", line)
            if not found:
                raise UserError(
                    f"{meta_info_file}:{number}: expected a line such as '000 100 (720,1280,3)', not '{line}'"
                )
            counts[found[1]] = int(found[2])
        return counts

    @staticmethod
    def key(clip: str, number: int) -> str:
        """``000/00000000``."""
        return f"{clip}/{number:08d}"

    def __len__(self) -> int:
        return len(self.keys)

    def interval(self) -> int:
        """The distance between frames of an item."""
        return random.choice(self.interval_list) if self.training else self.interval_list[0]  # noqa: S311

    def item(self, index: int, numbers: list[int], wanted: list[int]) -> Item:
        """The frames `numbers` of lq and `wanted` of gt."""
        clip, own = self.keys[index]
        lq = self.frames(self.lq, [self.key(clip, n) for n in numbers])
        gt = self.frames(self.gt, [self.key(clip, n) for n in wanted])
        path = self.gt.path(self.gt.files[self.key(clip, wanted[len(wanted) // 2])])
        small, large = self.paired(lq, gt, path)
        key = self.key(clip, own)
        return {"lq": small, "gt": large, "key": key, "gt_path": path, "name": key.replace("/", "_")}


@DATASETS.register()
class REDSDataset(Reds):
    """REDS for networks that restore one frame from its neighbours (EDVR): ``lq`` (t, 3, h, w), ``gt`` (3, H, W), ``key``.

    The frame of the key is in the middle; where its window leaves the clip, another one drawn at random, whose ground truth
    ``gt`` then is.

    Args:
        dataroot_gt: folder or LMDB of sharp clips.
        dataroot_lq: folder or LMDB of degraded clips.
        meta_info_file: list with lines such as ``000 100 (720,1280,3)``: clip and frames; all clips when omitted.
        num_frame: frames of an item, odd.
        gt_size: side of the training patch in gt; whole frames when omitted.
        interval_list: distances between frames, of which one is drawn.
        random_reverse: give the frames backwards, half of the time.
        val_partition: the clips that are left out: ``REDS4`` (000, 011, 015, 020), or ``official`` (240 to 269).
        test_mode: take those clips instead.
        use_hflip: flip at random.
        use_rot: turn at random.
        scale: size of gt / size of lq.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        io_backend: ``{type: disk}``, ``{type: lmdb}`` or ``{type: tar}``.
        dataroot_flow: an option of BasicSR's files; must be empty.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
        color: ``gray`` for one channel, the gray value in [0, 1]; ``y`` for luma in [16/255, 235/255]; RGB when omitted.

    Raises:
        UserError: an even `num_frame`, or what `Reds` raises.
    """

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lq: str,
        meta_info_file: str | None = None,
        num_frame: Count = 5,
        gt_size: Count | None = None,
        interval_list: list[int] = [1],  # noqa: B006  (not changed)
        random_reverse: bool = False,
        val_partition: Partition = "REDS4",
        test_mode: bool = False,
        use_hflip: bool = False,
        use_rot: bool = False,
        scale: int = 4,
        phase: Phase = "train",
        io_backend: IOBackend | None = None,
        dataroot_flow: str | None = None,
        on_error: OnError = "raise",
        color: Color = None,
    ) -> None:
        if num_frame % 2 == 0:
            raise UserError(f"num_frame: must be odd, so that one frame is in the middle, not {num_frame}")
        super().__init__(
            dataroot_gt,
            dataroot_lq,
            meta_info_file,
            num_frame,
            list(interval_list),
            random_reverse,
            val_partition,
            test_mode,
            io_backend,
            dataroot_flow,
            scale=scale,
            gt_size=gt_size,
            use_hflip=use_hflip,
            use_rot=use_rot,
            phase=phase,
            on_error=on_error,
            color=color,
        )

    def load(self, index: int) -> Item:
        clip, center = self.keys[index]
        interval = self.interval()
        reach, last = self.num_frame // 2 * interval, self.lengths[clip] - 1
        if not reach <= center <= last - reach:
            center = random.randint(reach, last - reach) if self.training else min(max(center, reach), last - reach)  # noqa: S311
        numbers = self.reversed_at_random(list(range(center - reach, center + reach + 1, interval)))
        item = self.item(index, numbers, [center])
        return {**item, "gt": item["gt"][0]}


@DATASETS.register()
class REDSRecurrentDataset(Reds):
    """REDS for recurrent networks: ``lq`` (t, 3, h, w), ``gt`` (t, 3, H, W), ``key``.

    The frames begin with the key's, or where they would not fit into the clip, at a random place.

    Args:
        dataroot_gt: folder or LMDB of sharp clips.
        dataroot_lq: folder or LMDB of degraded clips.
        meta_info_file: list with lines such as ``000 100 (720,1280,3)``: clip and frames; all clips when omitted.
        num_frame: frames of an item.
        gt_size: side of the training patch in gt; whole frames when omitted.
        interval_list: distances between frames, of which one is drawn.
        random_reverse: give the frames backwards, half of the time.
        val_partition: the clips that are left out: ``REDS4`` (000, 011, 015, 020), or ``official`` (240 to 269).
        test_mode: take those clips instead.
        use_hflip: flip at random.
        use_rot: turn at random.
        scale: size of gt / size of lq.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        io_backend: ``{type: disk}``, ``{type: lmdb}`` or ``{type: tar}``.
        dataroot_flow: an option of BasicSR's files; must be empty.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
        color: ``gray`` for one channel, the gray value in [0, 1]; ``y`` for luma in [16/255, 235/255]; RGB when omitted.

    Raises:
        UserError: what `Reds` raises.
    """

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lq: str,
        meta_info_file: str | None = None,
        num_frame: Count = 15,
        gt_size: Count | None = None,
        interval_list: list[int] = [1],  # noqa: B006  (not changed)
        random_reverse: bool = False,
        val_partition: Partition = "REDS4",
        test_mode: bool = False,
        use_hflip: bool = False,
        use_rot: bool = False,
        scale: int = 4,
        phase: Phase = "train",
        io_backend: IOBackend | None = None,
        dataroot_flow: str | None = None,
        on_error: OnError = "raise",
        color: Color = None,
    ) -> None:
        super().__init__(
            dataroot_gt,
            dataroot_lq,
            meta_info_file,
            num_frame,
            list(interval_list),
            random_reverse,
            val_partition,
            test_mode,
            io_backend,
            dataroot_flow,
            scale=scale,
            gt_size=gt_size,
            use_hflip=use_hflip,
            use_rot=use_rot,
            phase=phase,
            on_error=on_error,
            color=color,
        )

    def load(self, index: int) -> Item:
        clip, start = self.keys[index]
        interval = self.interval()
        length = self.lengths[clip]
        latest = max(length - self.num_frame * interval, 0)
        if start > latest:
            start = random.randint(0, latest) if self.training else latest  # noqa: S311
        numbers = self.reversed_at_random([start + i * interval for i in range(self.num_frame)])
        return self.item(index, numbers, numbers)
