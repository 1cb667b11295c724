"""What every dataset may say of itself, and what those of image files share: a damaged one is an error or passed over."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ..core.errors import UserError
from ..core.imaging.storage import UnreadableFile
from ..core.imaging.transfer import Transfer
from .source import ArchivePlace

log = logging.getLogger("relume")

Item = dict[str, Any]
"""One sample: tensors ``lq`` and ``gt``, (C, H, W) float32 RGB in [0, 1], and strings ``lq_path``, ``gt_path``."""

OnError = Literal["raise", "skip"]
Phase = Literal["train", "val", "test"]
"""What a dataset is for; nothing is random but in ``train``."""
Rounding = Literal["8bit", "output", "none"]
"""What is rounded to 8 bits before metrics: output and ground truth; the output alone (a ground truth that was made smaller
keeps its fractions); nothing."""


class DatasetTraits:
    """What Relume asks of a dataset besides items and a length, and what holds for one that says nothing.

    A registered ``torch.utils.data.Dataset`` may have any of these; `core.annotations.declared` reads them.
    """

    gt_size: int | None = 0
    """Side in pixels of the ground truth's training patch, which ``gt_sizes`` and mixtures set anew; None for whole images, 0
    for a dataset that cuts no patches, or none of another size."""
    sampling_weights: np.ndarray | None = None
    """Share of the draws that each sample has, (N,); all the same when None."""
    epoch_length: int | None = None
    """Draws that make an epoch; as many as there are samples when None."""
    mean: Sequence[float] | None = None
    """What was subtracted from each channel of ``lq`` and ``gt``, and is added to outputs before they are scored or saved."""
    std: Sequence[float] | None = None
    """What each channel was divided by, and outputs are multiplied by before they are scored or saved."""
    transfer: Transfer | None = None
    """What decodes ``gt`` and outputs to linear radiance; None for images of ordinary range."""
    score_rounding: Rounding | None = None
    """What published figures of this set round before metrics; None leaves it to the options."""
    published_as: str | None = None
    """Name of this set in `relume.core.metrics.published`."""
    convention: str = ""
    """What published figures of this set do, in words."""
    partial: str = ""
    """How much of a published set is here, in words, where that is not all of it."""
    sequels: Sequence[int] | None = None
    """Number of the longer sample that each is a part of, (N,), in sets of parts: an evaluation takes the parts of one in
    order and on one rank. None where samples know nothing of each other."""
    reference: Any = None
    """Dataset of real images that metrics of whole sets compare results with (see `Pictures`)."""
    labels: Tensor | None = None
    """Class of every image, (N,) int64; None without classes."""
    num_classes: int = 0
    """How many classes there are; 0 without."""
    resolution: int | str | None = None
    """Size to which all images are brought, part of what distinguishes cached statistics; None as they are."""

    on_device: bool = False
    """Whether `finish` has something to do."""

    def require_patch(self, size: int) -> None:
        """Called before training with the largest patch size; raises `UserError` if samples are too small for it."""

    def limit_patches(self) -> None:
        """Called by a mixture: from now on cut patches of `gt_size` as it is at most, and enlarge them where it grows."""

    def finish(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What is left to do for a training batch on the device where it has been put; nothing here."""
        return dict(batch)

    def stored_at(self, index: int) -> ArchivePlace | None:
        """Where sample `index` lies in an archive, for ``shuffle_buffer``; None for one that is in none."""
        return None

    def result_path(self, index: int) -> str | None:
        """The file that results of sample `index` are named after, without reading it; None where the sample says it."""
        return None


@runtime_checkable
class Pictures(Protocol):
    """A dataset that can fill a memory bank or be the reference of a metric of whole sets."""

    id: str
    """Text that distinguishes these images from others; part of the names of cache files."""

    def image(self, index: int, flip: bool = False) -> Tensor:
        """Image `index`, (3, R, R) in [-1, 1], as it is or mirrored; nothing is random."""
        ...

    def __len__(self) -> int: ...


class LoaderTraits:
    """What an evaluation asks of what it iterates over, and what holds for a plain iterable of batches."""

    dataset: Any = None
    """What the batches come from."""
    images: int | None = None
    """How many images all ranks together evaluate; unknown when None."""
    names: Mapping[int, str] = MappingProxyType({})
    """What images' results are filed under, by number in the dataset, where that is known beforehand."""
    reference: Any = None
    """`DatasetTraits.reference` of the dataset."""


class ImageDataset(DatasetTraits, Dataset[Item]):
    """A map from index to `Item`. Subclasses give `load` and ``__len__``.

    Args:
        on_error: what an unreadable file does: ``raise`` a `UserError`, or ``skip`` to the next readable sample.
    """

    def __init__(self, on_error: OnError = "raise") -> None:
        if on_error not in ("raise", "skip"):
            raise UserError(f"on_error: '{on_error}' is not possible; 'raise' and 'skip' are")
        self.on_error = on_error
        self._told: set[str] = set()

    def __len__(self) -> int:
        raise NotImplementedError

    def load(self, index: int) -> Item:
        """The sample `index`; random choices come from the global generators of random, numpy and torch.

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError

    def readable(self, index: int) -> tuple[int, Item]:
        """The first readable sample from `index` on (around the end, if need be), and its index.

        Raises:
            UserError: the sample cannot be read and ``on_error`` is ``raise``, or none of them can.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        for candidate in range(index, index + len(self)):
            actual = candidate % len(self)
            try:
                return actual, self.load(actual)
            except UnreadableFile as e:
                if self.on_error == "raise":
                    raise UserError(f"{e}. (on_error: skip passes over such files)") from e
                if str(e) not in self._told:
                    self._told.add(str(e))
                    log.warning("skipped: %s", e)
        raise UserError(f"none of the {len(self)} samples can be read; the last messages say why")

    def __getitem__(self, index: int) -> Item:
        return self.readable(index)[1]
