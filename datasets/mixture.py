"""Several datasets trained on together, by ratio."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import numpy as np

from ..core.annotations import declared
from ..core.errors import UserError
from . import DATASETS
from .base import DatasetTraits, ImageDataset, Item
from .paired import shares


@DATASETS.register()
class MixedDataset(ImageDataset):
    """Draws from several datasets in a given ratio, spread evenly over each epoch and over ranks.

    Which dataset, sample and random choices a place of the epoch gets depends on (seed, epoch, place) alone, as everywhere (see
    `relume.datasets.loading.sampler`); ranks take different places.

    All patches have the mixture's `gt_size`, so that they can be stacked. A dataset's own ``gt_size`` is the largest patch that
    is cut from it (256 for Vimeo90K, whose frames have 256 rows); where that, or a frame, is smaller than what is asked for,
    the patch is enlarged. Thus a curriculum of ``gt_sizes`` works whatever the sizes of the sources.

    Args:
        datasets: blocks of the datasets.
        mixed_ratio: shares of the draws, ``2:1``, in the order of the datasets; by their sizes when omitted.
        gt_size: side of the patches; when omitted, the datasets' own ones, which must be the same.
        epoch: how many samples make an epoch: as many as ``all`` datasets have together; or as the ``first`` has, and more
            where the share of another one would not suffice to see all of it beside the first (max(v, x v_share / x_share), as
            HybridVFI's original counts).
    """

    def __init__(
        self,
        datasets: list[Annotated[Any, DATASETS]],
        mixed_ratio: str | None = None,
        gt_size: int | None = None,
        epoch: Literal["all", "first"] = "all",
    ) -> None:
        super().__init__()
        if not datasets:
            raise UserError("datasets: a mixture needs at least one dataset")
        self.datasets = datasets
        # How often each data set is drawn, and how long an epoch is.
        lengths = [len(dataset) for dataset in datasets]
        self.ends = np.cumsum(lengths)
        weights = parse_ratio(mixed_ratio, len(datasets)) if mixed_ratio is not None else None
        self.sampling_weights = shares(lengths, weights)
        if epoch == "first":
            given = weights or lengths
            if not given[0]:
                raise UserError(
                    "epoch: the first dataset has no share of the draws, so that it can be no measure of epochs"
                )
            self.epoch_length = max(round(n * given[0] / w) for n, w in zip(lengths, given, strict=True) if w)
        # What the data sets must agree on, for their samples to be stacked.
        sizes = {declared(dataset, "gt_size", DatasetTraits) or None for dataset in datasets}
        if any(declared(dataset, "on_device", DatasetTraits) for dataset in datasets):
            raise UserError("datasets: samples of a mixture are finished one by one; leave out on_device")
        for dataset in datasets:
            declared(dataset, "limit_patches", DatasetTraits)()
        if gt_size is None and len(sizes) > 1:
            raise UserError(
                f"gt_size: the datasets' own ones differ ({', '.join(map(str, sizes))}); give the mixture's"
            )
        self._gt_size: int | None = None
        self.gt_size = gt_size if gt_size is not None else sizes.pop()

    @property
    def gt_size(self) -> int | None:
        """Side of the patches of all datasets."""
        return self._gt_size

    @gt_size.setter
    def gt_size(self, size: int | None) -> None:
        self._gt_size = size
        for dataset in self.datasets:
            if declared(dataset, "gt_size", DatasetTraits) != 0:
                dataset.gt_size = size

    def __len__(self) -> int:
        return int(self.ends[-1])

    def locate(self, index: int) -> tuple[int, int]:
        """Number of the dataset that has the mixture's sample `index`, and the index there."""
        number = int(np.searchsorted(self.ends, index, side="right"))
        return number, index - (int(self.ends[number - 1]) if number else 0)

    def result_path(self, index: int) -> str | None:
        """That of the dataset which the sample comes from."""
        number, inside = self.locate(index)
        path: str | None = declared(self.datasets[number], "result_path", DatasetTraits)(inside)
        return path

    def load(self, index: int) -> Item:
        number, inside = self.locate(index)
        item: Item = self.datasets[number][inside]
        return item

    def require_patch(self, size: int) -> None:
        """Let each dataset check that it can give patches of `size`."""
        for dataset in self.datasets:
            declared(dataset, "require_patch", DatasetTraits)(size)


def parse_ratio(text: str, count: int) -> list[float]:
    """The shares of `count` datasets from ``2:1``.

    Raises:
        UserError: other than that many numbers, or all of them 0.
    """
    parts = text.split(":")
    numbers = [float(p) for p in parts if re.fullmatch(r"\s*\d+(\.\d+)?\s*", p)]
    if len(numbers) != len(parts) or len(parts) != count or sum(numbers) == 0:
        example = ":".join(["2"] + ["1"] * (count - 1))
        raise UserError(f"mixed_ratio: '{text}' should be one number for each of {count} datasets, such as '{example}'")
    return numbers
