"""Random numbers that belong to samples: the same whatever rank, micro-batch or restart a sample is in."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Batch


def standard_normal(batch: Batch, *shape: int) -> Tensor:
    """Standard normal numbers (B, *shape), each sample's from its own ``seed``, on the device of ``lq``.

    The loaders give every sample a seed that depends on (manual_seed, epoch, draw) alone. A batch without ``seed`` draws from
    torch's global generator.
    """
    lq: Tensor = batch["lq"]
    if "seed" not in batch:
        return torch.randn(len(lq), *shape).to(lq.device)
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in batch["seed"].tolist()]
    return torch.stack(rows).to(lq.device)
