"""Transfer between linear radiance and the range that networks see: `TRANSFERS` maps a name to a pair of functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

PEAK = 1000.0
"""Linear radiance that is encoded as 1."""
MU = 5000.0
LOG_SCALE = math.log(1 + PEAK + 1e-6)


class Transfer(NamedTuple):
    """Two pointwise functions of non-negative tensors of any shape, inverse to each other."""

    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]


def log1p_encode(x: Tensor) -> Tensor:
    """ln(1 + x) / ln(1 + 1000 + 1e-6), as the HDR fork of DiffIR has it; above 1 for x above 1000."""
    return torch.log1p(x) / LOG_SCALE


def log1p_decode(y: Tensor) -> Tensor:
    """Inverse of `log1p_encode`."""
    return torch.expm1(y * LOG_SCALE)


def mu_law_encode(x: Tensor) -> Tensor:
    """ln(1 + mu x / 1000) / ln(1 + mu), mu = 5000 (Kalantari and Ramamoorthi, 2017)."""
    return torch.log1p(MU / PEAK * x) / math.log1p(MU)


def mu_law_decode(y: Tensor) -> Tensor:
    """Inverse of `mu_law_encode`."""
    return torch.expm1(y * math.log1p(MU)) * (PEAK / MU)


TRANSFERS = {
    "log1p": Transfer(log1p_encode, log1p_decode),
    "mu_law": Transfer(mu_law_encode, mu_law_decode),
}
