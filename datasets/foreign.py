"""Data sets of forks of BasicSR, whose constructor takes its whole block as one dict."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from ..core.annotations import plain


def own_block(block: Mapping[str, Any]) -> dict[str, Any]:
    """A data set's block as a plain dict that it may change, with ``~`` in the places of its files resolved."""
    values: dict[str, Any] = copy.deepcopy(plain(block))
    for key, value in values.items():
        if key.startswith("dataroot") and isinstance(value, str) and value.startswith("~"):
            values[key] = str(Path(value).expanduser())
    return values


class ForeignDataset(Dataset[dict[str, Any]]):
    """A fork's data set with what Relume asks of one: patches of another size, and items without nulls.

    Args:
        inner: the fork's; its other attributes are this one's.
        block: what it was made from, and may still be reading.
    """

    def __init__(self, inner: Any, block: dict[str, Any]) -> None:
        self.inner = inner
        self.block = block

    @property
    def gt_size(self) -> int:
        """Side of the training patch; 0 where there is none that could be changed."""
        return getattr(self.inner, "gt_size", None) or self.block.get("gt_size") or 0

    @gt_size.setter
    def gt_size(self, size: int) -> None:
        self.block["gt_size"] = size
        if hasattr(self.inner, "gt_size"):
            self.inner.gt_size = size

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "inner" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {k: v for k, v in self.inner[index].items() if v is not None}
