"""Triplets of frames whose middle one is exactly known: photographs set in motion."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from ..core.annotations import Count, Range
from ..core.errors import UserError
from . import DATASETS
from .base import Item, OnError
from .moving import motion_field, random_scene, render
from .moving_photographs import MovingPhotographs, Objects
from .photographs import Span, refuse_bad_ranges
from .sources import Source

TEXTURES = ("brick.png", "grass.png", "gravel.png", "ihc.png")
"""Further pictures inside the scikit-image wheel, for training only: grey surfaces, and stained tissue."""

BUCKETS: dict[str, Span] = {"small": (1.0, 2.0), "medium": (2.0, 5.0), "large": (5.0, 10.0), "extreme": (10.0, 20.0)}
"""Ranges of motion between the outer frames, in pixels."""


@DATASETS.register()
class SyntheticMotionDataset(MovingPhotographs):
    """Two frames of a moving scene and the one between them, all rendered from photographs (see `datasets.moving`).

    An item has ``img0`` (t = 0), ``img1`` (t = 1) and ``gt`` (t = ``timestep``), (3, gt_size, gt_size) float32 RGB in [0, 1],
    ``timestep`` as a float32 scalar, and the strings ``img0_path`` and ``gt_path``; with `with_flow` also ``flow``, (4,
    gt_size, gt_size) float32: the true displacements, in pixels to the right and down, from ``gt`` to ``img0`` and to
    ``img1``. In training each sample is another scene; else the scene is fixed by the index, so that results can be compared.

    Args:
        dataroot_gt: folder(s) of photographs, local or remote.
        source: ``skimage`` for photographs that come with scikit-image instead: nothing to download.
        split: part of the photographs of ``source``: ``train`` or ``val``; by phase when omitted.
        gt_size: side of the frames.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        shorter_side: photographs are first shrunk until their shorter side has so many pixels, if it is longer.
        renditions: how many scenes each photograph is the background of.
        motion: range of the distances by which camera and objects move between the outer frames, in pixels.
        bucket: a range by name, the same for everybody who reports scores: ``small`` (1 to 2 pixels), ``medium`` (2 to 5),
            ``large`` (5 to 10) or ``extreme`` (10 to 20).
        rotation: how much turning and growing there may be: displacement at the rim / displacement of the centre, of each.
        objects: how many objects move before the background.
        timesteps: times of the frame to be found, one of which each sample has: at random in training, else in turn.
        with_flow: give the true flow too, for losses that compare with it.
        use_hflip: flip photographs at random, left to right, each by itself.
        use_rot: turn photographs at random, by vertical flip and transposition.
        use_reverse_channels: exchange red and blue at random.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next one.
    """

    def __init__(
        self,
        dataroot_gt: str | list[str] | None = None,
        source: Literal["skimage"] | None = None,
        split: Literal["train", "val"] | None = None,
        gt_size: Annotated[int, Range(least=2)] = 128,
        phase: Literal["train", "val", "test"] = "train",
        shorter_side: int | None = None,
        renditions: Count = 16,
        motion: Span | None = None,
        bucket: Literal["small", "medium", "large", "extreme"] | None = None,
        rotation: Annotated[float, Range(least=0)] = 0.5,
        objects: Objects = 1,
        timesteps: list[float] | None = None,
        with_flow: bool = False,
        use_hflip: bool = False,
        use_rot: bool = False,
        use_reverse_channels: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(dataroot_gt, source, split, gt_size, phase, shorter_side, renditions, on_error)
        if source is not None and (split or ("train" if self.training else "val")) == "train":
            textures = Source(self.photographs[0][0].root, TEXTURES)
            single = self.photographs[: len(self) // renditions]
            self.photographs = [*single, *((textures, name) for name in TEXTURES)] * renditions
        if motion is not None and bucket is not None:
            raise UserError("motion and bucket both give the range of motion; keep one")
        if bucket is not None and bucket not in BUCKETS:
            raise UserError(f"bucket: there is no '{bucket}'; {', '.join(BUCKETS)} are there")
        self.motion = motion or (BUCKETS[bucket] if bucket else (BUCKETS["small"][0], BUCKETS["extreme"][1]))
        refuse_bad_ranges({"motion": self.motion})
        self.timesteps = list(timesteps or [0.5])
        if not all(0 < t < 1 for t in self.timesteps):
            raise UserError(f"timesteps: must lie between 0 and 1, the times of the outer frames; got {self.timesteps}")
        self.rotation = rotation
        self.objects = objects
        self.with_flow = with_flow
        self.hflip = use_hflip
        self.rotate = use_rot
        self.reverse_channels = use_reverse_channels

    def load(self, index: int) -> Item:
        rng = self.generator(index)
        textures = self.textures(rng, index)
        assert self.gt_size is not None
        size = (self.gt_size, self.gt_size)
        layers = random_scene(rng, textures, size, self.motion, self.rotation)
        time = self.timesteps[rng.randint(len(self.timesteps)) if self.training else index % len(self.timesteps)]
        frames = [render(layers, size, t) for t in (0.0, 1.0, time)]
        path = PurePosixPath(self.result_path(index))
        first = path.with_stem(f"{path.stem}_0")
        return {
            **dict(zip(("img0", "img1", "gt"), frames, strict=True)),
            **({"flow": motion_field(layers, size, time, (0.0, 1.0))} if self.with_flow else {}),
            "timestep": torch.tensor(time, dtype=torch.float32),
            "img0_path": str(first),
            "gt_path": str(path),
        }

    def augmented(self, textures: list[Tensor]) -> list[Tensor]:
        """Photographs (3, H, W) augmented as in `MovingPhotographs`, after red and blue are exchanged at random."""
        if self.reverse_channels and np.random.rand() < 0.5:
            textures = [texture.flip(0) for texture in textures]
        return super().augmented(textures)
