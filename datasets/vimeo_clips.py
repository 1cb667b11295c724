"""Vimeo-90K's septuplets for video restoration: ``00001/0001/im1.png`` ... ``im7.png``, in two folders or databases.

Lists have lines such as ``00001/0001 7 (256,448,3)``. The set of the same name for interpolation is in `interpolation_sets`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..core.annotations import Count
from ..core.errors import UserError
from . import DATASETS
from .base import Item, OnError, Phase
from .frame_pairs import ListedPairs
from .sources import IOBackend
from .transforms import Color
from .triplets import read_list

FRAMES = range(1, 8)
CENTRE = 4


class VimeoClips(ListedPairs):
    """What these sets share: the listed clips, and their frames by number."""

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lq: str,
        meta_info_file: str,
        needed: Sequence[int],
        wanted: Sequence[int],
        io_backend: IOBackend | None,
        **settings: object,
    ) -> None:
        super().__init__(dataroot_gt, dataroot_lq, io_backend, **settings)
        self.clips = [line.split()[0] for _, line in read_list(meta_info_file, "00001/0001 7 (256,448,3)")]
        self.refuse_missing(*([f"{c}/im{n}" for c in self.clips for n in numbers] for numbers in (wanted, needed)))

    def __len__(self) -> int:
        return len(self.clips)

    def item(self, index: int, needed: Sequence[int], wanted: Sequence[int]) -> Item:
        """The frames `needed` of lq and `wanted` of gt."""
        clip = self.clips[index]
        lq = self.frames(self.lq, [f"{clip}/im{n}" for n in needed])
        gt = self.frames(self.gt, [f"{clip}/im{n}" for n in wanted])
        path = self.gt.path(self.gt.files[f"{clip}/im{CENTRE}"])
        small, large = self.paired(lq, gt, path)
        return {"lq": small, "gt": large, "key": clip, "gt_path": path, "name": f"{clip.replace('/', '_')}_im{CENTRE}"}


def neighbours(num_frame: int) -> list[int]:
    """The numbers of the frames around the middle one.

    >>> neighbours(5)
    [2, 3, 4, 5, 6]

    Raises:
        UserError: `num_frame` is even, or not from 1 to 7.
    """
    if num_frame % 2 == 0 or not 1 <= num_frame <= 7:
        raise UserError(f"num_frame: must be odd and at most 7, as clips have 7 frames, not {num_frame}")
    first = (9 - num_frame) // 2
    return list(range(first, first + num_frame))


@DATASETS.register()
class Vimeo90KNeighboursDataset(VimeoClips):
    """BasicSR's ``Vimeo90KDataset``: ``lq`` (num_frame, 3, h, w) around the middle frame, ``gt`` (3, H, W) of that.

    ``Vimeo90KDataset`` with `dataroot_gt` or `dataroot_lq` is this one.

    Args:
        dataroot_gt: folder or LMDB of sharp clips.
        dataroot_lq: folder or LMDB of degraded clips.
        meta_info_file: list with lines such as ``00001/0001 7 (256,448,3)``.
        num_frame: frames of an item, odd, at most 7.
        gt_size: side of the training patch in gt; whole frames when omitted.
        random_reverse: give the frames backwards, half of the time.
        use_hflip: flip at random.
        use_rot: turn at random.
        scale: size of gt / size of lq.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        io_backend: ``{type: disk}``, ``{type: lmdb}`` or ``{type: tar}``.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
        color: ``gray`` for one channel, the gray value in [0, 1]; ``y`` for luma in [16/255, 235/255]; RGB when omitted.

    Raises:
        UserError: an even `num_frame`, or listed frames that are missing.
    """

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lq: str,
        meta_info_file: str,
        num_frame: Count = 7,
        gt_size: int | None = None,
        random_reverse: bool = False,
        use_hflip: bool = False,
        use_rot: bool = False,
        scale: int = 4,
        phase: Phase = "train",
        io_backend: IOBackend | None = None,
        on_error: OnError = "raise",
        color: Color = None,
    ) -> None:
        self.numbers, self.random_reverse = neighbours(num_frame), random_reverse
        super().__init__(
            dataroot_gt,
            dataroot_lq,
            meta_info_file,
            self.numbers,
            [CENTRE],
            io_backend,
            scale=scale,
            gt_size=gt_size,
            use_hflip=use_hflip,
            use_rot=use_rot,
            phase=phase,
            on_error=on_error,
            color=color,
        )

    def load(self, index: int) -> Item:
        item = self.item(index, self.reversed_at_random(self.numbers), [CENTRE])
        return {**item, "gt": item["gt"][0]}


@DATASETS.register()
class Vimeo90KRecurrentDataset(VimeoClips):
    """Vimeo-90K for recurrent networks: ``lq`` (7, 3, h, w), ``gt`` (7, 3, H, W).

    Args:
        dataroot_gt: folder or LMDB of sharp clips.
        dataroot_lq: folder or LMDB of degraded clips.
        meta_info_file: list with lines such as ``00001/0001 7 (256,448,3)``.
        num_frame: an option of BasicSR's files; always all 7.
        gt_size: side of the training patch in gt; whole frames when omitted.
        random_reverse: give the frames backwards, half of the time.
        flip_sequence: append the frames backwards, which makes 14.
        use_hflip: flip at random.
        use_rot: turn at random.
        scale: size of gt / size of lq.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        io_backend: ``{type: disk}``, ``{type: lmdb}`` or ``{type: tar}``.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
        color: ``gray`` for one channel, the gray value in [0, 1]; ``y`` for luma in [16/255, 235/255]; RGB when omitted.

    Raises:
        UserError: listed frames are missing.
    """

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lq: str,
        meta_info_file: str,
        num_frame: int = -1,
        gt_size: int | None = None,
        random_reverse: bool = False,
        flip_sequence: bool = False,
        use_hflip: bool = False,
        use_rot: bool = False,
        scale: int = 4,
        phase: Phase = "train",
        io_backend: IOBackend | None = None,
        on_error: OnError = "raise",
        color: Color = None,
    ) -> None:
        if num_frame not in (-1, 7):
            raise UserError(f"num_frame: clips are given whole, with 7 frames (-1 says the same), not {num_frame}")
        self.random_reverse, self.flip_sequence = random_reverse, flip_sequence
        super().__init__(
            dataroot_gt,
            dataroot_lq,
            meta_info_file,
            FRAMES,
            FRAMES,
            io_backend,
            scale=scale,
            gt_size=gt_size,
            use_hflip=use_hflip,
            use_rot=use_rot,
            phase=phase,
            on_error=on_error,
            color=color,
        )

    def load(self, index: int) -> Item:
        numbers = self.reversed_at_random(list(FRAMES))
        item = self.item(index, numbers, numbers)
        if self.flip_sequence:
            item.update({k: torch.cat([item[k], item[k].flip(0)]) for k in ("lq", "gt")})
        return item


@DATASETS.register()
class VideoTestVimeo90KDataset(VimeoClips):
    """Vimeo-90K-T: ``lq`` of `num_frame` frames around the middle one, ``gt`` (3, H, W) of that, ``folder`` vimeo90k.

    Args:
        dataroot_gt: folder or LMDB of sharp clips.
        dataroot_lq: folder or LMDB of degraded clips.
        meta_info_file: list with lines such as ``00001/0266 7 (256,448,3)``.
        num_frame: frames of an item, odd, at most 7.
        cache_data: an option of BasicSR's files; must be false.
        scale: size of gt / size of lq.
        io_backend: ``{type: disk}``, ``{type: lmdb}`` or ``{type: tar}``.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
        color: ``gray`` for one channel, the gray value in [0, 1]; ``y`` for luma in [16/255, 235/255]; RGB when omitted.

    Raises:
        UserError: an even `num_frame`, `cache_data`, or listed frames that are missing.
    """

    convention = "centre frame only, Y, no crop"

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lq: str,
        meta_info_file: str,
        num_frame: Count = 7,
        cache_data: bool = False,
        scale: int = 4,
        io_backend: IOBackend | None = None,
        on_error: OnError = "raise",
        color: Color = None,
    ) -> None:
        if cache_data:
            raise UserError("cache_data: this set is too large to keep in memory; make it false")
        self.numbers = neighbours(num_frame)
        super().__init__(
            dataroot_gt,
            dataroot_lq,
            meta_info_file,
            self.numbers,
            [CENTRE],
            io_backend,
            scale=scale,
            phase="test",
            on_error=on_error,
            color=color,
        )

    def load(self, index: int) -> Item:
        item = self.item(index, self.numbers, [CENTRE])
        lq_path = self.lq.path(self.lq.files[f"{self.clips[index]}/im{CENTRE}"])
        more = {
            "gt": item["gt"][0],
            "folder": "vimeo90k",
            "idx": f"{index}/{len(self)}",
            "border": 0,
            "lq_path": lq_path,
        }
        return {**item, **more}
