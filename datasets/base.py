"""What datasets of image files have in common: a damaged file is either an error or passed over."""

from __future__ import annotations

import logging
from typing import Any, Literal

from torch.utils.data import Dataset

from ..core.errors import UserError
from ..core.imaging.storage import UnreadableFile

log = logging.getLogger("relume")

Item = dict[str, Any]
"""One sample: tensors ``lq`` and ``gt``, (C, H, W) float32 RGB in [0, 1], and strings ``lq_path``, ``gt_path``."""

OnError = Literal["raise", "skip"]


class ImageDataset(Dataset[Item]):
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
        """The sample `index`; random choices come from the global generators of random, numpy and torch."""
        raise NotImplementedError

    def result_path(self, index: int) -> str | None:
        """The file that results of sample `index` are named after, without reading it; None where the sample says it."""
        return None

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
