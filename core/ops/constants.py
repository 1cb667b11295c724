"""What goes from the host to a device: constants, uploaded once, and other small tensors, without waiting for the device."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from .precision import widest


def constant(values: tuple[Any, ...], like: Tensor) -> Tensor:
    """Numbers, in tuples of equal lengths, as a tensor of the shape that they make, which must not be written into.

    It has the dtype and the device of `like`, a tensor of any shape.
    """
    return _uploaded(values, like.dtype, like.device)


@functools.lru_cache(maxsize=256)
def _uploaded(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # else the backward pass could not use it later
        return torch.tensor(values, dtype=dtype, device=device)


def uploaded(x: Tensor, device: torch.device) -> Tensor:
    """`x`, of any shape, copied from the host's memory to a device: from pinned memory, so that the host need not wait."""
    allowed = torch.float32 if x.dtype == torch.float64 and widest(device) != torch.float64 else x.dtype
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device, allowed)
