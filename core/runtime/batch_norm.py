"""Batch normalisation over the batch of all ranks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import distributed


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose statistics in training are those of all ranks' samples, on any device; (B, C, H, W) to the same.

    Every rank must have as many samples of the same size. Two collectives of C numbers in each pass; the variance is taken
    around the common mean, which loses no digits.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and distributed.active()):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float()
            mean = distributed.global_mean(wide.mean((0, 2, 3)))
            centred = wide - mean[:, None, None]
            variance = distributed.global_mean(centred.square().mean((0, 2, 3)))
            self.remember(mean.detach(), variance.detach(), x.numel() // x.shape[1] * distributed.world_size())
            y = centred * torch.rsqrt(variance + self.eps)[:, None, None]
            if self.affine:
                y = y * self.weight[:, None, None] + self.bias[:, None, None]
        return y.to(x.dtype)

    @torch.no_grad()
    def remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics (C,) towards a mean and a variance (C,), which is made unbiased for `count` pixels."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), share)


def synchronised(network: nn.Module, device: torch.device) -> nn.Module:
    """`network` with batch normalisations that take the statistics of all ranks: torch's own, or on a CPU, which that refuses,
    `GlobalBatchNorm2d`. Parameters, buffers and their names stay; without a process group nothing is changed.
    """
    if not distributed.active():
        return network
    if device.type != "cpu":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return converted
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d
    return network
