"""Parameters and images made by a formula, for tests that compare numbers without stored weights."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn


def waves(name: str, shape: tuple[int, ...]) -> Tensor:
    """Float64 numbers in (-1, 1) that depend on `name` only: sines at an irrational step, from a phase that `name` gives."""
    count = torch.Size(shape).numel()
    phase = zlib.crc32(name.encode()) % 1000
    return torch.sin(torch.arange(count, dtype=torch.float64) * 1.7320508 + phase).reshape(shape)


@torch.no_grad()
def fill(network: nn.Module) -> nn.Module:
    """Fill every parameter by its name: gains near 1, other vectors small, kernels of fan-in scale. Returns `network`."""
    for name, p in network.named_parameters():
        wave = waves(name, tuple(p.shape))
        if p.dim() <= 1 or p.shape[0] == 1 or p.numel() == p.shape[0]:  # gains, biases, slopes, temperatures
            p.copy_(0.1 * wave if name.endswith("bias") else 1 + 0.2 * wave)
        else:
            p.copy_(wave * (2 * p.shape[0] / p.numel()) ** 0.5)
    return network


def image(name: str, *shape: int) -> Tensor:
    """A float32 image in (0, 1) of shape (B, C, H, W)."""
    return (0.5 + 0.45 * waves(name, shape)).float()
