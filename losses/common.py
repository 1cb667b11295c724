"""What every loss needs: comparable inputs in sufficient precision, and one way of reducing to a number."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ..core.annotations import shape_of
from ..core.errors import UserError, did_you_mean

Reduction = Literal["none", "mean", "sum"]


def checked_choice(owner: str, option: str, value: str, accepted: object) -> str:
    """`value`, if it is one of the strings of the ``Literal`` `accepted`.

    Raises:
        UserError: it is not.
    """
    known = get_args(accepted)
    if value not in known:
        listing = ", ".join(known)
        raise UserError(f"{owner}: {option} cannot be '{value}'.{did_you_mean(value, known)} Accepted: {listing}.")
    return value


def comparable(owner: str, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both images in float32 (float64 if either is), after a check that nothing would be broadcast.

    Half precision is left at once: means over millions of squared differences need the mantissa.

    Raises:
        UserError: the shapes differ.
    """
    if pred.shape != target.shape:
        raise UserError(f"{owner}: prediction {shape_of(pred)}, target {shape_of(target)} differ in shape")
    dtype = torch.promote_types(torch.promote_types(pred.dtype, target.dtype), torch.float32)
    return pred.to(dtype), target.to(dtype)


def reduced(loss: Tensor, reduction: str, weight: Tensor | None = None) -> Tensor:
    """Mean, sum or neither of an elementwise loss, optionally weighted.

    Args:
        loss: (B, C, H, W).
        weight: (B, 1, H, W) or (B, C, H, W). The mean is then sum(w * l) / sum(w), a single-channel weight counting
            once per channel; 0 where no pixel has a weight.
    """
    if weight is not None:
        loss = loss * weight
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if weight is None:
        return loss.mean()
    total = weight.expand_as(loss).sum()
    return loss.sum() / torch.where(total == 0, torch.ones_like(total), total)


def check_weight(owner: str, weight: Tensor | None, image: Tensor) -> None:
    """Refuse a weight that cannot multiply (B, C, H, W) images pixel by pixel; None is none.

    Raises:
        UserError: the weight's shape does not fit the images.
    """
    if weight is not None and (
        weight.dim() != image.dim()
        or weight.shape[2:] != image.shape[2:]
        or any(w not in (1, n) for w, n in zip(weight.shape[:2], image.shape[:2], strict=True))
    ):
        raise UserError(
            f"{owner}: the weight {shape_of(weight)} does not fit images {shape_of(image)}; it has one channel, or theirs"
        )


def at_least(owner: str, image: Tensor, side: int, what: str) -> None:
    """Refuse (B, C, H, W) images with fewer pixels a side than `what` needs.

    Raises:
        UserError: a side is shorter than `side`.
    """
    height, width = image.shape[-2:]
    if min(height, width) < side:
        raise UserError(f"{owner}: {what} needs images of at least {side}x{side} pixels; these have {height}x{width}")
