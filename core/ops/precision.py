"""Which floating-point type a computation needs at least."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """`x`, or a float32 copy of it where it is a half."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
