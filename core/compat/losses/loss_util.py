"""How BasicSR's losses are weighted and reduced."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def reduce_loss(loss: Tensor, reduction: str) -> Tensor:
    """A loss by element, of any shape, as it is (``none``), or its ``mean`` or ``sum``.

    Raises:
        ValueError: `reduction` is none of these.
    """
    if reduction == "none":
        return loss
    if reduction not in ("mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return loss.mean() if reduction == "mean" else loss.sum()


def weight_reduce_loss(loss: Tensor, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """As `reduce_loss`, of ``loss * weight``; the mean is over the weight, which has one channel or as many as the loss.

    Raises:
        ValueError: the weight's shape does not fit the loss.
    """
    if weight is None:
        return reduce_loss(loss, reduction)
    if weight.dim() != loss.dim() or weight.shape[1] not in (1, loss.shape[1]):
        raise ValueError(f"weight {tuple(weight.shape)} does not fit a loss {tuple(loss.shape)}")
    loss = loss * weight
    if reduction != "mean":
        return reduce_loss(loss, reduction)
    total = weight.sum() if weight.shape[1] > 1 else weight.sum() * loss.shape[1]
    return loss.sum() / total


def weighted_loss(loss_func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorator: a function ``loss(pred, target, **kwargs)`` by element takes ``weight`` and ``reduction`` as well.

    Shapes are those of `weight_reduce_loss`.
    """

    @functools.wraps(loss_func)
    def wrapper(
        pred: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean", **kwargs: Any
    ) -> Tensor:
        return weight_reduce_loss(loss_func(pred, target, **kwargs), weight, reduction)

    return wrapper


def get_local_weights(residual: Tensor, ksize: int) -> Tensor:
    """Local variance of a residual (N, 1, H, W), in windows of `ksize`."""
    pad = (ksize - 1) // 2
    padded = F.pad(residual, (pad,) * 4, mode="reflect")
    windows = padded.unfold(2, ksize, 1).unfold(3, ksize, 1)
    return torch.var(windows, dim=(-1, -2), unbiased=True, keepdim=True).squeeze(-1).squeeze(-1)


def get_refined_artifact_map(img_gt: Tensor, img_output: Tensor, img_ema: Tensor, ksize: int) -> Tensor:
    """Where an output has artefacts: local times global variance of its residual, where the average does better (LDL).

    Images (B, C, H, W) -> (B, 1, H, W).
    """
    residual = (img_gt - img_output).abs().sum(1, keepdim=True)
    of_average = (img_gt - img_ema).abs().sum(1, keepdim=True)
    patch = residual.var(dim=(-1, -2, -3), keepdim=True) ** 0.2
    weight = patch * get_local_weights(residual.clone(), ksize)
    weight[residual < of_average] = 0
    return weight
