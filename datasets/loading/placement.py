"""Batches from the host's memory to the device that trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .worker import from_bytes

Batch = dict[str, Any]


class InBytes(NamedTuple):
    """An image that becomes float32 in [0, 1] on the device."""

    levels: Tensor


class Placement:
    """Moves a batch's tensors to a device; images (4-D) into the channels-last layout where asked.

    Args:
        finish: what the data set has left to do there.
    """

    def __init__(
        self, device: torch.device, channels_last: bool, finish: Callable[[Batch], Batch] | None = None
    ) -> None:
        self.device = device
        self.channels_last = channels_last
        self.finish = finish or dict

    def __call__(self, batch: Batch) -> Batch:
        placed = {k: self._place(v) if isinstance(v, (Tensor, InBytes)) else v for k, v in batch.items()}
        with torch.no_grad():
            finished = self.finish(placed)
        new = {k: v for k, v in finished.items() if v is not placed.get(k)}
        return {**finished, **{k: self._place(v) if isinstance(v, Tensor) else v for k, v in new.items()}}

    def _place(self, tensor: Tensor | InBytes) -> Tensor:
        if isinstance(tensor, InBytes):
            return from_bytes(self._place(tensor.levels))
        layout = torch.channels_last if self.channels_last and tensor.dim() == 4 else torch.preserve_format
        return tensor.to(self.device, non_blocking=True, memory_format=layout)


class CudaPrefetcher:
    """``prefetch_mode: cuda``: the next batch travels to the GPU on a stream of its own while the current one is used.

    Args:
        load: function that gives the next batch in pinned host memory, which torch does not reuse before the copy is done.
        place: function that puts it on the GPU.
    """

    def __init__(self, load: Any, place: Placement) -> None:
        self._load = load
        self._place = place
        self._stream = torch.cuda.Stream(place.device)
        self._batch: Batch | None = None

    def __next__(self) -> Batch:
        if self._batch is None:
            self._fetch()
        current = torch.cuda.current_stream(self._place.device)
        current.wait_stream(self._stream)
        batch = self._batch
        assert batch is not None
        for value in batch.values():
            if isinstance(value, Tensor):
                value.record_stream(current)  # its memory was allocated on the other stream, and is used on this one
        self._fetch()
        return batch

    def _fetch(self) -> None:
        batch = self._load()
        with torch.cuda.stream(self._stream):
            self._batch = self._place(batch)
