"""Underwater images made from photographs taken in air."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch

from ..core.annotations import Count
from ..core.errors import UserError, did_you_mean
from ..core.imaging.image_io import to_float
from . import DATASETS
from .base import Item, OnError
from .photographs import PhotographDataset, Span, refuse_bad_ranges, shrink
from .photometric import UNFINISHED, scene_parameters, submerged
from .transforms import random_flip_rotate, to_tensor
from .water import JERLOV, distances, random_water, submerge

CLEAR_TO_GREEN = ["I", "IA", "IB", "II", "III", "1C", "3C", "5C"]


@DATASETS.register()
class SyntheticUnderwaterDataset(PhotographDataset):
    """Photographs, and how they would look under water (see `datasets.water` for the model and its sources).

    An item has ``gt``, the photograph, and ``lq``, the same under water, both (3, H, W) float32 RGB in [0, 1], and the paths.
    In training, water, distances and patch are drawn anew for every sample; else they are fixed by the index, and images whole.

    Args:
        dataroot_gt: folder(s) of photographs, local or remote.
        source: ``skimage`` for photographs that come with scikit-image instead: nothing to download.
        split: part of the photographs of ``source``: ``train`` or ``val``; by phase when omitted.
        gt_size: side of the training patch; whole images when omitted.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        shorter_side: photographs are first shrunk until their shorter side has so many pixels, if it is longer.
        renditions: how many times each photograph occurs, in different water.
        water_types: Jerlov's types to choose from: I, IA, IB, II, III (ocean), 1C, 3C, 5C, 7C, 9C (coast); all but the
            last two, which are brown, when omitted.
        depth: range of the depth below the surface, in metres.
        distance: range of the distance of things, in metres; shortened where the water is too turbid to see so far.
        scattering: range of the scattering coefficient at 550 nm, per metre.
        noise: range of the sensor noise's standard deviation.
        use_hflip: flip photographs at random, left to right.
        use_rot: turn photographs at random, by vertical flip and transposition.
        on_device: whether, in training, the scene is drawn here and the water computed for whole batches where they are
            trained with: a GPU takes a load off the loading processes. The pictures are the same up to rounding.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next one.
    """

    def __init__(
        self,
        dataroot_gt: str | list[str] | None = None,
        source: Literal["skimage"] | None = None,
        split: Literal["train", "val"] | None = None,
        gt_size: Count | None = None,
        phase: Literal["train", "val", "test"] = "train",
        shorter_side: int | None = None,
        renditions: int = 1,
        water_types: list[str] | None = None,
        depth: Span = (2.0, 10.0),
        distance: Span = (0.5, 8.0),
        scattering: Span = (0.05, 0.5),
        noise: Span = (0.0, 0.03),
        use_hflip: bool = False,
        use_rot: bool = False,
        on_device: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(dataroot_gt, source, split, gt_size, phase, shorter_side, renditions, on_error)
        self.water_types = list(water_types or CLEAR_TO_GREEN)
        for name in self.water_types:
            if name not in JERLOV:
                raise UserError(
                    f"water_types: no type '{name}'.{did_you_mean(name, JERLOV)} Known: {', '.join(JERLOV)}."
                )
        refuse_bad_ranges({"depth": depth, "distance": distance, "scattering": scattering, "noise": noise})
        self.ranges = (depth, distance, scattering, noise)
        self.hflip = use_hflip
        self.rotate = use_rot
        self.on_device = on_device and self.training

    def finish(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with ``lq``, where that is left to its device."""
        if not self.on_device:
            return dict(batch)
        return {"lq": submerged(batch), **{k: v for k, v in batch.items() if k not in UNFINISHED}}

    def load(self, index: int) -> Item:
        source, name = self.photographs[index]
        path = source.path(name)
        image = shrink(source.pixels(name), self.shorter_side)
        rng = self.generator(index)
        size = (image.shape[0], image.shape[1])
        window = self.window(size, path, rng)
        top, left, height, width = window
        clean = to_float(image[top : top + height, left : left + width])
        if self.training:
            # Turned before it is submerged: in the water, near is always below.
            clean = random_flip_rotate([clean], self.hflip, self.rotate)[0]
            window = (top, left, *clean.shape[:2])
        scene = random_water(rng, self.water_types, *self.ranges)
        z, side, gt = distances(scene, size, window), min(size), to_tensor(clean)
        paths = {"lq_path": self.result_path(index), "gt_path": path}
        if self.on_device:
            field = rng.standard_normal(clean.shape).astype(np.float32)
            drawn = {"distance": torch.from_numpy(z)[None], "field": to_tensor(field)}
            return {"gt": gt, **drawn, "water": torch.from_numpy(scene_parameters(scene, z, side)), **paths}
        return {"lq": to_tensor(submerge(clean, z, scene, rng, side)), "gt": gt, **paths}
