"""Clips whose every frame is exactly known: photographs set in motion."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

import torch

from ..core.annotations import Count, Range
from ..core.degradations.draws import Draws
from ..core.degradations.engines import quantise
from ..core.errors import UserError
from ..core.imaging.matlab_resize import imresize
from . import DATASETS
from .base import Item, OnError, Phase
from .moving import random_scene, render
from .moving_photographs import MovingPhotographs, Objects
from .photographs import Span, refuse_bad_ranges


@DATASETS.register()
class MovingClipsDataset(MovingPhotographs):
    """Clips of moving scenes rendered from photographs (see `datasets.moving`), and the same, small and noisy.

    An item has ``lq`` (num_frame, 3, gt_size / scale, gt_size / scale) and ``gt`` (num_frame, 3, gt_size, gt_size), float32
    RGB on the 8-bit grid in [0, 1], ``folder``: the clip's name, and the strings ``lq_path`` and ``gt_path``; with `single`
    one frame of a clip, (3, h, w) and (3, H, W): in training a random one, else each in turn. In training each sample is
    another scene; else the scene is fixed by the index, so that results can be compared.

    Args:
        dataroot_gt: folder(s) of photographs, local or remote.
        source: ``skimage`` for photographs that come with scikit-image instead: nothing to download.
        num_frame: frames of a clip.
        gt_size: side of the frames of ``gt``.
        scale: size of ``gt`` / size of ``lq``.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        shorter_side: photographs are first shrunk until their shorter side has so many pixels, if it is longer.
        renditions: how many scenes each photograph is the background of.
        motion: range of the distances by which camera and objects move from one frame to the next, in pixels of ``gt``.
        noise: range of the standard deviation of normal noise in ``lq``, in steps of 1/255: one for a clip, another field in
            each frame; none when omitted.
        rotation: how much turning and growing there may be: displacement at the rim / displacement of the centre, of each.
        objects: how many objects move before the background.
        single: give frames one at a time, for networks of pictures.
        use_hflip: flip photographs at random, left to right, each by itself.
        use_rot: turn photographs at random, by vertical flip and transposition.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next one.

    Raises:
        UserError: `gt_size` is no multiple of `scale`, or a range is none.
    """

    gt_size: int

    def __init__(
        self,
        dataroot_gt: str | list[str] | None = None,
        source: Literal["skimage"] | None = None,
        num_frame: Count = 7,
        gt_size: Annotated[int, Range(least=2)] = 64,
        scale: Count = 4,
        phase: Phase = "train",
        shorter_side: Count | None = None,
        renditions: Count = 16,
        motion: Span = (0.5, 4.0),
        noise: Span | None = None,
        rotation: Annotated[float, Range(least=0)] = 0.5,
        objects: Objects = 1,
        single: bool = False,
        use_hflip: bool = False,
        use_rot: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(dataroot_gt, source, None, gt_size, phase, shorter_side, renditions, on_error)
        refuse_bad_ranges({"motion": motion, "noise": noise or (0.0, 0.0)})
        if gt_size % scale:
            raise UserError(f"gt_size: {gt_size} must be a multiple of scale {scale}")
        self.gt_size, self.scale, self.num_frame, self.single = gt_size, scale, num_frame, single
        self.motion, self.noise, self.rotation, self.objects = motion, noise or (0.0, 0.0), rotation, objects
        self.hflip, self.rotate = use_hflip, use_rot

    def __len__(self) -> int:
        return len(self.photographs) * (self.num_frame if self.single and not self.training else 1)

    def place(self, index: int) -> tuple[int, int | None]:
        """The clip of a sample, and its frame, where that follows from the index."""
        return divmod(index, self.num_frame) if self.single and not self.training else (index, None)

    def result_path(self, index: int) -> str:
        """The photograph's path with the clip's number, and the frame's where it is a sample of its own."""
        clip, frame = self.place(index)
        path = PurePosixPath(super().result_path(clip))
        return str(path if frame is None else path.with_stem(f"{path.stem}_{frame:08d}"))

    def load(self, index: int) -> Item:
        clip, frame = self.place(index)
        rng = self.generator(clip)
        if self.single and frame is None:
            frame = int(rng.randint(self.num_frame))
        steps = max(self.num_frame - 1, 1)
        span = (self.motion[0] * steps, self.motion[1] * steps)
        layers = random_scene(rng, self.textures(rng, clip), (self.gt_size, self.gt_size), span, self.rotation)
        wanted = range(self.num_frame) if frame is None else [frame]
        gt = torch.stack([quantise(render(layers, (self.gt_size, self.gt_size), n / steps)) for n in wanted])
        draws = Draws(int(rng.randint(2**31)))
        sigma = draws.uniform("sigma", *self.noise) / 255
        fields = (draws.normal(f"frame{n}", (3, *[self.gt_size // self.scale] * 2)) for n in wanted)
        lq = torch.stack(
            [quantise(imresize(image, 1 / self.scale) + sigma * field) for image, field in zip(gt, fields, strict=True)]
        )
        path = self.result_path(index)
        folder = PurePosixPath(super().result_path(clip)).stem
        item: Item = {"folder": folder, "name": PurePosixPath(path).stem, "lq_path": path, "gt_path": path}
        return {**item, "lq": lq, "gt": gt} if frame is None else {**item, "lq": lq[0], "gt": gt[0]}
