"""Distances of images along the path: pseudo-Huber, weighted by noise, at several scales."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.annotations import Count, Positive, Range, declared
from ...core.errors import UserError
from .. import LOSSES
from ..base import LossTraits
from ..common import checked_choice, comparable

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
"""Noise levels (1 - t) / t are kept within EDM's range."""

Weighting = Literal["uniform", "snr", "truncated_snr", "min_snr", "clipped_snr", "min_snr_noise"]


def pseudo_huber(difference: Tensor, k: float, norm: str = "l2") -> Tensor:
    """sqrt(S + k^2) - k of every row of (B, ...), where S is the sum of squares or (norm ``l1``) of absolute values.

    For k = 0, sqrt(S + 1e-8), whose slope at 0 is finite.
    """
    flat = difference.flatten(1)
    total = flat.square().sum(1) if norm == "l2" else flat.abs().sum(1)
    return (total + k * k).sqrt() - k if k > 0 else (total + 1e-8).sqrt()


def snr_weights(sigma: Tensor, sigma_data: float, weighting: str, gamma: float = 5.0) -> Tensor:
    """Weights (B,) of mean 1 by the signal-to-noise ratio s = sigma_data^2 / (sigma^2 + 1e-8).

    Those of a prediction of the image itself, before they are divided by their mean: ``snr`` is s / (s + 1), at most 1;
    ``truncated_snr`` is max(s, 1) (Salimans and Ho, ICLR 2022); ``min_snr`` is min(s, gamma) (Hang et al., ICCV 2023, whose
    min(s, gamma) / s is for a prediction of the noise). A known implementation of this flow calls by the last two names what
    is ``clipped_snr`` here, s / (s + 1) within [0.1, 10], and ``min_snr_noise``, min(s, gamma) / s.
    """
    snr = sigma_data**2 / (sigma.square() + 1e-8)
    if weighting == "uniform":
        return torch.ones_like(snr)
    share = snr / (snr + 1)
    weights = {
        "snr": share,
        "truncated_snr": snr.clamp_min(1),
        "min_snr": snr.clamp_max(gamma),
        "clipped_snr": share.clamp(0.1, 10),
        "min_snr_noise": snr.clamp_max(gamma) / snr,
    }[weighting]
    return weights / weights.mean()


@LOSSES.register()
class PseudoHuberLoss(LossTraits, nn.Module):
    """Mean over the batch of sqrt(|d|^2 + k^2) - k, with |d| over all elements of a sample and k = c sqrt(elements).

    Song and Dhariwal, "Improved techniques for training consistency models" (ICLR 2024), whose c is the default: it does not
    depend on the resolution. A known implementation multiplies by sqrt(elements) twice, which is c times 55 at 32x32x3.

    Args:
        loss_weight: factor of the result.
        c: k over the square root of the number of elements; 0 is the plain norm.
        norm: ``l1`` puts the sum of absolute values in place of that of squares.
        scale: whether `c` is multiplied by sqrt(elements); k = c otherwise.
        weighting: weighting of samples, by their noise level (1 - t) / t; see `snr_weights`.
        sigma_data: standard deviation of the data, for the weighting.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        c: Annotated[float, Range(least=0)] = 0.00054,
        norm: Literal["l2", "l1"] = "l2",
        scale: bool = True,
        weighting: Weighting = "uniform",
        sigma_data: Positive = 0.5,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.c = c
        self.norm = checked_choice("PseudoHuberLoss", "norm", norm, Literal["l2", "l1"])
        self.scale = scale
        self.weighting = checked_choice("PseudoHuberLoss", "weighting", weighting, Weighting)
        self.sigma_data = sigma_data
        self.context = () if weighting == "uniform" else ("t",)

    def forward(self, pred: Tensor, target: Tensor, t: Tensor | None = None) -> Tensor:
        """The loss, a scalar, of samples (B, ...) at the times `t` (B,).

        Raises:
            UserError: the weighting needs `t`, and it is None.
        """
        pred, target = comparable("PseudoHuberLoss", pred, target)
        k = self.c * pred[0].numel() ** 0.5 if self.scale else self.c
        distances = pseudo_huber(pred - target, k, self.norm)
        if self.weighting != "uniform":
            if t is None:
                raise UserError(f"PseudoHuberLoss: weighting {self.weighting} needs the time of every sample")
            sigma = ((1 - t) / t).clamp(SIGMA_MIN, SIGMA_MAX)
            distances = distances * snr_weights(sigma, self.sigma_data, self.weighting).to(distances)
        return self.loss_weight * distances.mean()


@LOSSES.register()
class MultiScaleLoss(LossTraits, nn.Module):
    """The mean of a loss over images averaged over blocks of several sizes.

    With `PseudoHuberLoss` this is the flow loss of one-step generation. What depends on the number of elements does so at every
    scale by itself.

    Args:
        criterion: the loss at each scale.
        scales: sides of the blocks, in pixels; images must have a multiple of them.
        loss_weight: factor of the result.
    """

    def __init__(
        self,
        criterion: Annotated[nn.Module, LOSSES],
        scales: list[Count] | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.criterion = criterion
        self.scales = [1, 2, 4] if scales is None else list(scales)
        self.loss_weight = loss_weight
        self.context = declared(criterion, "context", LossTraits)

    def gaps(self, uniforms: Tensor) -> Tensor:
        """Steps in time (B,) of the criterion, see `LossTraits.gaps`."""
        gaps: Tensor = declared(self.criterion, "gaps", LossTraits)(uniforms)
        return gaps

    def forward(self, pred: Tensor, target: Tensor, **context: Tensor) -> Tensor:
        """The loss, a scalar, of images (B, C, H, W).

        Raises:
            UserError: a side is no multiple of a scale.
        """
        pred, target = comparable("MultiScaleLoss", pred, target)
        for scale in self.scales:
            if pred.shape[-2] % scale or pred.shape[-1] % scale:
                raise UserError(
                    f"MultiScaleLoss: images of {pred.shape[-2]}x{pred.shape[-1]} have no blocks of {scale}"
                )
        pooled = [(F.avg_pool2d(pred, s), F.avg_pool2d(target, s)) if s > 1 else (pred, target) for s in self.scales]
        return self.loss_weight * torch.stack([self.criterion(x, y, **context) for x, y in pooled]).mean()
