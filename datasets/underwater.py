"""Underwater images made from photographs taken in air."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from ..core.errors import UserError, did_you_mean, require
from ..core.image_io import to_float
from . import DATASETS
from .base import ImageDataset, Item, OnError
from .pairing import as_roots
from .sources import Folder, Source, refuse_small
from .transforms import Image, random_flip_rotate, resize, to_tensor, too_small
from .water import JERLOV, Span, distances, random_scene, submerge

SHIPPED = {
    "train": ("astronaut.png", "motorcycle_left.png", "rocket.jpg"),
    "val": ("chelsea.png", "coffee.png"),
}
"""Colour photographs inside the scikit-image wheel; those of validation are never trained on."""

CLEAR_TO_GREEN = ["I", "IA", "IB", "II", "III", "1C", "3C", "5C"]


@DATASETS.register()
class SyntheticUnderwaterDataset(ImageDataset):
    """Photographs, and how they would look under water (see `datasets.water` for the model and its sources).

    An item has ``gt``, the photograph, and ``lq``, the same under water, both (3, H, W) float32 RGB in [0, 1], and the paths.
    In training, water, distances and patch are drawn anew for every sample; else they are fixed by the index, and images whole.

    Args:
        dataroot_gt: folder(s) of photographs, local or remote.
        source: ``skimage`` for photographs that come with scikit-image instead: nothing to download.
        split: with ``source``, which of its photographs: ``train`` or ``val``; by phase when omitted.
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
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next one.
    """

    def __init__(
        self,
        dataroot_gt: str | list[str] | None = None,
        source: Literal["skimage"] | None = None,
        split: Literal["train", "val"] | None = None,
        gt_size: int | None = None,
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
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(on_error)
        if (source is None) == (dataroot_gt is None):
            raise UserError("give either dataroot_gt, folders of photographs, or source: skimage")
        if split is not None and source is None:
            raise UserError("split chooses among the photographs of source; your own go into folders of their own")
        self.water_types = list(water_types or CLEAR_TO_GREEN)
        for name in self.water_types:
            if name not in JERLOV:
                raise UserError(
                    f"water_types: no type '{name}'.{did_you_mean(name, JERLOV)} Known: {', '.join(JERLOV)}."
                )
        for name, pair in {"depth": depth, "distance": distance, "scattering": scattering, "noise": noise}.items():
            if len(pair) != 2 or not 0 <= pair[0] <= pair[1]:
                raise UserError(f"{name}: a range is [least, largest], neither negative; got {list(pair)}")
        self.training = phase == "train"
        if source is not None:
            sources: list[Source] = [shipped_photographs(split or ("train" if self.training else "val"))]
        else:
            sources = [Folder(root) for root in as_roots(dataroot_gt, "dataroot_gt")]
        self.photographs = [(s, name) for s in sources for name in s.files.values()] * renditions
        self.renditions = renditions
        self.gt_size = gt_size
        self.shorter_side = shorter_side
        self.ranges = (depth, distance, scattering, noise)
        self.hflip = use_hflip
        self.rotate = use_rot

    def __len__(self) -> int:
        return len(self.photographs)

    def load(self, index: int) -> Item:
        source, name = self.photographs[index]
        path = source.path(name)
        image = shrink(source.pixels(name), self.shorter_side)
        # RandomState's numbers are the same in every NumPy, so validation images are too.
        rng = np.random.RandomState(np.random.randint(2**31) if self.training else index)
        window = self._window(image, path, rng)
        top, left, height, width = window
        clean = to_float(image[top : top + height, left : left + width])
        if self.training:
            # Turned before it is submerged: in the water, near is always below.
            clean = random_flip_rotate([clean], self.hflip, self.rotate)[0]
            window = (top, left, *clean.shape[:2])
        scene = random_scene(rng, self.water_types, *self.ranges)
        size = (image.shape[0], image.shape[1])
        degraded = submerge(clean, distances(scene, size, window), scene, rng, min(size))
        rendition = f"_{index // (len(self) // self.renditions)}" if self.renditions > 1 else ""
        lq_path = str(PurePosixPath(path).with_suffix("")) + rendition + PurePosixPath(path).suffix
        return {"lq": to_tensor(degraded), "gt": to_tensor(clean), "lq_path": lq_path, "gt_path": path}

    def _window(self, image: Image, path: str, rng: np.random.RandomState) -> tuple[int, int, int, int]:
        """(top, left, height, width) of a random patch, or of the whole image."""
        height, width = image.shape[:2]
        if not self.training or self.gt_size is None:
            return 0, 0, height, width
        if min(height, width) < self.gt_size:
            raise UserError(too_small(path, (height, width), self.gt_size))
        top, left = rng.randint(height - self.gt_size + 1), rng.randint(width - self.gt_size + 1)
        return top, left, self.gt_size, self.gt_size

    def require_patch(self, size: int) -> None:
        """Check, without decoding, that photographs are large enough for training patches of `size`.

        Raises:
            UserError: some are smaller; up to ten are named.
        """
        if self.shorter_side is not None and self.shorter_side < size:
            raise UserError(
                f"gt_size {size} is larger than shorter_side {self.shorter_side}, to which images are shrunk"
            )
        refuse_small(self.photographs, size)


def shipped_photographs(split: str) -> Source:
    """The photographs of one split inside the scikit-image wheel."""
    skimage = require("skimage", "source: skimage", "pip install scikit-image")
    return Source(str(Path(skimage.__path__[0]) / "data"), SHIPPED[split])


def shrink(image: Image, shorter_side: int | None) -> Image:
    """Resize so that the shorter side has `shorter_side` pixels; never enlarge."""
    height, width = image.shape[:2]
    if shorter_side is None or min(height, width) <= shorter_side:
        return image
    factor = shorter_side / min(height, width)
    return resize(image, round(height * factor), round(width * factor))
