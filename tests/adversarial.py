"""Golden cases of adversarial training, and how nearly they must be met."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor


def near(found: Tensor | float, wanted: Tensor | float, rtol: float, what: str = "") -> None:
    """Compare with a tolerance that is a share of the reference's largest entry."""
    found, wanted = torch.as_tensor(found).detach(), torch.as_tensor(wanted)
    assert found.shape == wanted.shape, (what, found.shape, wanted.shape)
    allowed = rtol * wanted.abs().max().item() + 1e-7
    worst = (found - wanted).abs().max().item()
    assert worst <= allowed, f"{what}: {worst} > {allowed}"


def procedural(recipe: dict[str, Any]) -> dict[str, Tensor]:
    """Weights that are made from their names."""
    state = {}
    for name, shape in recipe["shapes"].items():
        seed = zlib.crc32((recipe["salt"] + name).encode()) & 0x7FFFFFFF
        r = torch.from_numpy(np.random.RandomState(seed).standard_normal(tuple(shape)).astype(np.float32))
        if len(shape) == 1:
            state[name] = 1 + 0.1 * r if name.endswith("weight") else 0.05 * r
        else:
            state[name] = r * recipe["gain"] / (r.numel() / shape[0]) ** 0.5
    return state
