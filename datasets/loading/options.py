"""The keys of a ``datasets.*`` block that are for the loader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ...core.annotations import Count, Iterations, NonNegative, Range, Section, setting
from ...core.files import COMPONENT

Workers = Annotated[int, Range(least=0, most=1024)]
"""Processes."""


@dataclass(frozen=True, eq=False)
class Loader(Section):
    """A ``datasets.*`` block: these keys concern loading, the others are its ``type``'s (they are in `extra`)."""

    name: Annotated[str, COMPONENT] | None = setting(None, "Name in logs and result folders; the phase when omitted.")
    batch_size_per_gpu: Count = setting(1, "Samples per rank and micro-batch.")
    num_worker_per_gpu: Workers = setting(2, "Loading processes per rank; 0 loads in the training process.")
    dataset_enlarge_ratio: Count = setting(1, "Repeats of the dataset in one epoch (kept for BasicSR's option files).")
    use_shuffle: bool = setting(True, "Shuffle the training samples, by a permutation of (manual_seed, epoch).")
    shuffle_buffer: Count | None = setting(
        None,
        "Of data in tar files: shuffle the archives, read each from its beginning, and shuffle among so many samples; a "
        "permutation of all samples when omitted.",
    )
    prefetch_mode: Literal["cpu", "cuda"] | None = setting(None, "'cuda' copies the next batch on a side stream.")
    num_prefetch_queue: Annotated[int, Range(least=1, most=10_000)] = setting(2, "Batches each worker prepares ahead.")
    pin_memory: bool = setting(True, "Page-locked host memory, for faster copies to a GPU.")
    send_uint8: bool = setting(
        False, "Send images of 8 bits to the device as bytes, and make them float there: the same values, less traffic."
    )
    persistent_workers: bool = setting(True, "Accepted for BasicSR's files; loading processes live through the run.")
    timeout: NonNegative = setting(
        300, "Seconds without a batch from the loading processes after which the run ends; 0 waits for ever."
    )
    mini_batch_sizes: list[Count] | None = setting(None, "Progressive training: samples per rank in each stage.")
    iters: list[Iterations] | None = setting(None, "Progressive training: iterations of each stage.")
    gt_sizes: list[Count] | None = setting(None, "Progressive training: patch size of each stage.")
    accumulates: list[Count] | None = setting(
        None, "Progressive training: micro-batches of each stage, in place of train.accumulate."
    )

    def __post_init__(self) -> None:
        stages = {"mini_batch_sizes": self.mini_batch_sizes, "iters": self.iters, "gt_sizes": self.gt_sizes}
        stages["accumulates"] = self.accumulates
        lengths = {name: len(values) for name, values in stages.items() if values is not None}
        if lengths and "iters" not in lengths:
            raise ValueError(f"{' and '.join(lengths)} need iters, the iterations of each stage")
        if len(set(lengths.values())) > 1:
            listing = ", ".join(f"{name} has {n}" for name, n in lengths.items())
            raise ValueError(f"progressive training needs as many entries in each list: {listing}")
