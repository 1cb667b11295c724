"""Random numbers that belong to samples: the same whatever rank, micro-batch or restart a sample is in."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from ..degradations.draws import seeds_of
from ..ops.constants import uploaded
from .base import Batch

OTHER_STREAM = 0x5DEECE66D2B79F31
"""Turns a seed of normal numbers into one of uniform numbers, so that the two have nothing to do with each other."""


def standard_normal(batch: Batch, *shape: int) -> Tensor:
    """Standard normal numbers (B, *shape), each sample's from its own ``seed``, on the device of ``lq``, or of ``seed``.

    The loaders give every sample a seed that depends on (manual_seed, epoch, draw) alone. A batch without ``seed`` draws from
    torch's global generator.
    """
    beside: Tensor = batch["lq"] if "lq" in batch else batch["seed"]
    if "seed" not in batch:
        return uploaded(torch.randn(len(beside), *shape), beside.device)
    return uploaded(normal_of(seeds_of(batch), *shape), beside.device)


def normal_of(seeds: Iterable[int], *shape: int) -> Tensor:
    """Standard normal numbers (B, *shape), float32, on the CPU: one row for each seed, drawn from that seed alone."""
    generator = torch.Generator()
    return torch.stack([torch.randn(shape, generator=generator.manual_seed(seed)) for seed in seeds])


def uniforms_of(seeds: Iterable[int], count: int) -> np.ndarray:
    """`uniform_of` for arithmetic on the host."""
    seeds = list(seeds)
    numbers = np.empty((len(seeds), count))
    torch.from_numpy(numbers).copy_(uniform_of(seeds, count))
    return numbers


def uniform_of(seeds: Iterable[int], count: int) -> Tensor:
    """Numbers in [0, 1) of shape (B, count), float64, on the CPU, each row from its seed, independent of `normal_of`."""
    generator = torch.Generator()
    rows = [
        torch.rand(count, generator=generator.manual_seed(seed ^ OTHER_STREAM), dtype=torch.float64) for seed in seeds
    ]
    return torch.stack(rows)
