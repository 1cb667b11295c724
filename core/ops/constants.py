"""Constants on devices: uploaded once, not in every step, which would wait for the device each time."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor


def constant(values: tuple[Any, ...], like: Tensor) -> Tensor:
    """Numbers, in tuples of equal lengths, as a tensor of the shape that they make, which must not be written into.

    It has the dtype and the device of `like`, a tensor of any shape.
    """
    return _uploaded(values, like.dtype, like.device)


@functools.lru_cache(maxsize=256)
def _uploaded(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # else the backward pass could not use it later
        return torch.tensor(values, dtype=dtype, device=device)
