"""Photographs that a dataset makes its samples from, so that an experiment needs no download."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from ..core.errors import UserError, require
from .base import ImageDataset, OnError, Phase
from .pairing import as_roots
from .sources import Folder, Source, refuse_small
from .transforms import Image, resize, too_small

SHIPPED = {
    "train": ("astronaut.png", "motorcycle_left.png", "rocket.jpg"),
    "val": ("chelsea.png", "coffee.png"),
}
"""Colour photographs inside the scikit-image wheel; those of validation are never trained on."""

Split = Literal["train", "val"]
Span = tuple[float, float]
"""Least and largest value."""


class PhotographDataset(ImageDataset):
    """Photographs, each `renditions` times, and what is random about a sample. Subclasses give `load`.

    Args:
        dataroot_gt: folder(s) of photographs, local or remote.
        source: ``skimage`` for photographs that come with scikit-image instead: nothing to download.
        split: part of the photographs of ``source``: ``train`` or ``val``; by phase when omitted.
        gt_size: side of the training patch; whole images when omitted.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        shorter_side: photographs are first shrunk until their shorter side has so many pixels, if it is longer.
        renditions: how many times each photograph occurs.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next one.

    Raises:
        UserError: the options do not fit together.
    """

    def __init__(
        self,
        dataroot_gt: str | list[str] | None,
        source: Literal["skimage"] | None,
        split: Split | None,
        gt_size: int | None,
        phase: Phase,
        shorter_side: int | None,
        renditions: int,
        on_error: OnError,
    ) -> None:
        super().__init__(on_error)
        if (source is None) == (dataroot_gt is None):
            raise UserError("give either dataroot_gt, folders of photographs, or source: skimage")
        if split is not None and source is None:
            raise UserError("split chooses among the photographs of source; your own go into folders of their own")
        self.training = phase == "train"
        if source is not None:
            sources: list[Source] = [shipped_photographs(split or ("train" if self.training else "val"))]
        else:
            sources = [Folder(root) for root in as_roots(dataroot_gt, "dataroot_gt")]
        self.photographs = [(s, name) for s in sources for name in s.files.values()] * renditions
        self.renditions = renditions
        self.gt_size = gt_size
        self.shorter_side = shorter_side

    def __len__(self) -> int:
        return len(self.photographs)

    def generator(self, index: int) -> np.random.RandomState:
        """What a sample is drawn from: anew for every sample in training, else fixed by the index.

        RandomState's numbers are the same in every NumPy, so validation images are too.
        """
        return np.random.RandomState(np.random.randint(2**31) if self.training else index)

    def window(self, size: tuple[int, int], path: str, rng: np.random.RandomState) -> tuple[int, int, int, int]:
        """(top, left, height, width) of a random patch, or of the whole image of `size` (height, width).

        Raises:
            UserError: the image is smaller than the patch.
        """
        height, width = size
        if not self.training or self.gt_size is None:
            return 0, 0, height, width
        if min(height, width) < self.gt_size:
            raise UserError(too_small(path, (height, width), self.gt_size))
        top, left = rng.randint(height - self.gt_size + 1), rng.randint(width - self.gt_size + 1)
        return top, left, self.gt_size, self.gt_size

    def result_path(self, index: int) -> str:
        """What a sample's input is called: the photograph's path, with the rendition's number where there are several."""
        source, name = self.photographs[index]
        path = PurePosixPath(source.path(name))
        rendition = f"_{index // (len(self.photographs) // self.renditions)}" if self.renditions > 1 else ""
        return str(path.with_suffix("")) + rendition + path.suffix

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


def refuse_bad_ranges(ranges: dict[str, Span], positive: bool = False) -> None:
    """Refuse values that are no range [least, largest], not negative or, with `positive`, above 0.

    Raises:
        UserError: an option's value is no such range.
    """
    for name, pair in ranges.items():
        if len(pair) != 2 or not 0 <= pair[0] <= pair[1] or (positive and pair[0] == 0):
            kind = "both positive" if positive else "neither negative"
            raise UserError(f"{name}: a range is [least, largest], {kind}; got {list(pair)}")


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
