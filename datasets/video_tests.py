"""Test sets of clips (REDS4, Vid4, UDM10, any): ``<dataroot>/<clip>/<frame>.png``, LMDB databases, or video files."""

from __future__ import annotations

import os

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.annotations import Count, NonNegative
from ..core.errors import UserError
from . import DATASETS
from .base import Item, OnError
from .frame_indices import FramePadding, generate_frame_indices
from .frame_pairs import FramePairs, Frames, open_both, refuse_sizes, refuse_unequal
from .sources import IOBackend, as_backend, first_names
from .transforms import Color, Image
from .triplets import read_list


class TestClips(FramePairs):
    """What these sets share: pairs of clips, and their frames by number.

    Raises:
        UserError: clips or frames are missing in one of the folders, or a listed clip is not there.
    """

    __test__ = False  # no test, whatever its name begins with

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lq: str | None,
        meta_info_file: str | None,
        cache_data: bool,
        scale: int,
        io_backend: IOBackend | None,
        on_error: OnError,
        color: Color,
    ) -> None:
        super().__init__(scale=scale, phase="test", on_error=on_error, color=color)
        backend = as_backend(io_backend)
        self.gt, self.lq = open_both(dataroot_gt, dataroot_lq, backend, on_error)
        if meta_info_file:
            listed = [line.split()[0] for _, line in read_list(meta_info_file, "calendar")]
            for clips, root in ((self.gt, dataroot_gt), (self.lq, dataroot_lq)):
                if absent := [name for name in listed if name not in clips]:
                    raise UserError(f"{meta_info_file}: {root} has no clip {first_names(absent, 3)}")
            self.gt, self.lq = ({name: clips[name] for name in listed} for clips in (self.gt, self.lq))
        refuse_unequal(self.gt, self.lq)
        refuse_sizes(self.gt, self.lq, scale if dataroot_lq else 1)
        self.names = list(self.gt)
        self.cache: dict[str, Image] | None = {} if cache_data else None

    def read(self, clip: Frames, numbers: list[int]) -> list[Image]:
        """Frames by number."""
        if self.cache is None:
            return clip.read(numbers)
        absent = sorted({n for n in numbers if f"{clip.origin}:{n}" not in self.cache})
        for n, image in zip(absent, clip.read(absent) if absent else (), strict=True):
            self.cache[f"{clip.origin}:{n}"] = image
        return [self.cache[f"{clip.origin}:{n}"] for n in numbers]


class Windows(TestClips):
    """One item for every frame: its neighbours and its ground truth."""

    def __init__(self, num_frame: int, padding: FramePadding, *places: object) -> None:
        super().__init__(*places)  # type: ignore[arg-type]
        self.num_frame, self.padding = num_frame, padding
        self.places = [(name, i) for name in self.names for i in range(len(self.gt[name]))]
        for name, clip in self.gt.items():
            try:
                for i in range(len(clip)):
                    generate_frame_indices(i, len(clip), num_frame, padding)
            except UserError as e:
                raise UserError(f"clip {name}: {e}") from e

    def __len__(self) -> int:
        return len(self.places)

    def degraded(self, name: str, numbers: list[int], gt: list[Image]) -> Tensor:
        """Frames of lq, (t, 3, h, w)."""
        return self.paired(self.read(self.lq[name], numbers), gt, self.gt[name].origin)[0]

    def load(self, index: int) -> Item:
        name, i = self.places[index]
        count = len(self.gt[name])
        gt = self.read(self.gt[name], [i])
        lq = self.degraded(name, generate_frame_indices(i, count, self.num_frame, self.padding), gt)
        half = self.num_frame // 2
        path = self.lq[name].path(i)
        frame = os.path.splitext(os.path.basename(path))[0]
        return {
            "lq": lq,
            "gt": self.stacked(gt)[0],
            "folder": name,
            "idx": f"{i}/{count}",
            "border": int(i < half or i >= count - half),
            "lq_path": path,
            "gt_path": self.gt[name].path(i),
            "name": f"{name.replace(os.sep, '_')}_{frame if os.path.isdir(self.lq[name].origin) else i}",
        }


@DATASETS.register()
class VideoTestDataset(Windows):
    """Every frame of some clips with its neighbours: ``lq`` (num_frame, 3, h, w), ``gt`` (3, H, W).

    Besides ``folder``, the clip; ``idx``, ``3/100``; and ``border``, whether the window left the clip.

    Scores are averaged over the frames of a clip, then over clips.

    Args:
        dataroot_gt: folder or LMDB of sharp clips, or of videos.
        dataroot_lq: the same of degraded clips.
        meta_info_file: list of clips, the first word of each line; all when omitted.
        num_frame: frames of an item, odd.
        padding: what stands for frames beyond a clip's ends; see `generate_frame_indices`.
        cache_data: keep frames in memory.
        scale: size of gt / size of lq.
        io_backend: ``{type: disk}``, ``{type: lmdb}`` or ``{type: tar}``.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
        color: ``gray`` for one channel, the gray value in [0, 1]; ``y`` for luma in [16/255, 235/255]; RGB when omitted.

    Raises:
        UserError: an even `num_frame`, a window that a clip is too short for, or what `TestClips` raises.
    """

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lq: str,
        meta_info_file: str | None = None,
        num_frame: Count = 5,
        padding: FramePadding = "reflection_circle",
        cache_data: bool = False,
        scale: int = 4,
        io_backend: IOBackend | None = None,
        on_error: OnError = "raise",
        color: Color = None,
    ) -> None:
        places = (dataroot_gt, dataroot_lq, meta_info_file, cache_data, scale, io_backend, on_error, color)
        super().__init__(num_frame, padding, *places)


@DATASETS.register()
class VideoTestDUFDataset(Windows):
    """As `VideoTestDataset`, with inputs made as DUF makes them (Jo et al., CVPR 2018) where that is asked for.

    Args:
        dataroot_gt: folder or LMDB of sharp clips, or of videos.
        dataroot_lq: the same of degraded clips; not needed with `use_duf_downsampling`.
        meta_info_file: list of clips, the first word of each line; all when omitted.
        num_frame: frames of an item, odd.
        padding: what stands for frames beyond a clip's ends; see `generate_frame_indices`.
        use_duf_downsampling: make lq of gt: a Gaussian of sigma 0.4 scale, then every scale-th pixel.
        cache_data: keep frames in memory.
        scale: size of gt / size of lq.
        io_backend: ``{type: disk}``, ``{type: lmdb}`` or ``{type: tar}``.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
        color: ``gray`` for one channel, the gray value in [0, 1]; ``y`` for luma in [16/255, 235/255]; RGB when omitted.

    Raises:
        UserError: neither `dataroot_lq` nor `use_duf_downsampling`, or what `VideoTestDataset` raises.
    """

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lq: str | None = None,
        meta_info_file: str | None = None,
        num_frame: Count = 7,
        padding: FramePadding = "reflection_circle",
        use_duf_downsampling: bool = False,
        cache_data: bool = False,
        scale: int = 4,
        io_backend: IOBackend | None = None,
        on_error: OnError = "raise",
        color: Color = None,
    ) -> None:
        if not dataroot_lq and not use_duf_downsampling:
            raise UserError("dataroot_lq: is missing (or say use_duf_downsampling: true, which makes inputs of gt)")
        self.made = use_duf_downsampling
        lq = None if use_duf_downsampling else dataroot_lq
        places = (dataroot_gt, lq, meta_info_file, cache_data, scale, io_backend, on_error, color)
        super().__init__(num_frame, padding, *places)

    def degraded(self, name: str, numbers: list[int], gt: list[Image]) -> Tensor:
        if not self.made:
            return super().degraded(name, numbers, gt)
        return duf_downsample(self.stacked(self.read(self.gt[name], numbers)), self.scale)


def duf_downsample(frames: Tensor, scale: int) -> Tensor:
    """(T, C, H, W) -> (T, C, H / scale, W / scale): a 13 x 13 Gaussian of sigma 0.4 scale, then every scale-th pixel.

    Frames are continued by reflection. Sides that are no multiples of `scale` are cut.
    """
    height, width = (side // scale * scale for side in frames.shape[-2:])
    places = np.arange(13) - 6
    line = torch.tensor(np.exp(-(places**2) / (2 * (0.4 * scale) ** 2)), dtype=frames.dtype)
    kernel = torch.outer(line, line)
    kernel = (kernel / kernel.sum())[None, None]
    planes = frames[..., :height, :width].flatten(0, 1)[:, None]
    blurred = F.conv2d(F.pad(planes, (6, 6, 6, 6), mode="reflect"), kernel)
    return blurred[:, 0, ::scale, ::scale].unflatten(0, frames.shape[:2])


@DATASETS.register()
class VideoRecurrentTestDataset(TestClips):
    """Whole clips: ``lq`` (T, 3, h, w), ``gt`` (T, 3, H, W), ``folder``.

    Scores are averaged over the frames of a clip, then over clips. With `max_frames`, longer clips come in parts, so that
    memory is bounded: ``lq`` has the frames around a part's besides, ``left`` before and ``right`` after them, and ``first`` is
    the number of its first frame.

    Args:
        dataroot_gt: folder or LMDB of sharp clips, or of videos.
        dataroot_lq: the same of degraded clips.
        meta_info_file: list of clips, the first word of each line; all when omitted.
        num_frame: an option of BasicSR's files; always all frames.
        padding: an option of BasicSR's files; whole clips need none.
        cache_data: keep frames in memory.
        scale: size of gt / size of lq.
        io_backend: ``{type: disk}``, ``{type: lmdb}`` or ``{type: tar}``.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next sample.
        color: ``gray`` for one channel, the gray value in [0, 1]; ``y`` for luma in [16/255, 235/255]; RGB when omitted.
        max_frames: most frames that are scored at a time; whole clips when omitted.
        context: frames before and after them that the network sees.

    Raises:
        UserError: what `TestClips` raises.
    """

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lq: str,
        meta_info_file: str | None = None,
        num_frame: int = -1,
        padding: FramePadding = "reflection_circle",
        cache_data: bool = False,
        scale: int = 4,
        io_backend: IOBackend | None = None,
        on_error: OnError = "raise",
        color: Color = None,
        max_frames: Count | None = None,
        context: NonNegative = 10,
    ) -> None:
        super().__init__(dataroot_gt, dataroot_lq, meta_info_file, cache_data, scale, io_backend, on_error, color)
        self.context = context
        self.parts = [
            (name, start, min(start + (max_frames or len(clip)), len(clip)))
            for name, clip in self.gt.items()
            for start in range(0, len(clip), max_frames or len(clip))
        ]
        if max_frames is not None:
            numbers = {name: number for number, name in enumerate(self.names)}
            self.sequels = [numbers[name] for name, _, _ in self.parts]

    def __len__(self) -> int:
        return len(self.parts)

    def load(self, index: int) -> Item:
        name, start, end = self.parts[index]
        count = len(self.gt[name])
        around = range(max(start - self.context, 0), min(end + self.context, count))
        lq, gt = self.paired(
            self.read(self.lq[name], list(around)),
            self.read(self.gt[name], list(range(start, end))),
            self.gt[name].origin,
        )
        paths = {"lq_path": self.lq[name].path(start), "gt_path": self.gt[name].path(start)}
        item: Item = {"lq": lq, "gt": gt, "folder": name, "name": name.replace(os.sep, "_"), **paths}
        if len(gt) == count:
            return item
        return {**item, "first": start, "left": start - around.start, "right": around.stop - end}
