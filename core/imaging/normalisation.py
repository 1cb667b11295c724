"""Between pixels and what networks see of them: the ``mean`` and ``std`` of a dataset's options, done and undone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UserError

Values = Sequence[float] | None
"""One number for each channel, or one for all; None for nothing to do."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of RGB in [0, 1], as networks that were trained on ImageNet expect it."""


def normalise(image: Tensor, mean: Values, std: Values) -> Tensor:
    """``(image - mean) / std`` of (..., C, H, W).

    Raises:
        UserError: mean or std have neither one number nor one for each channel.
    """
    if mean is not None:
        image = image - _of_channels("mean", mean, image)
    return image if std is None else image / _of_channels("std", std, image)


def denormalise(image: Tensor, mean: Values, std: Values) -> Tensor:
    """``image std + mean`` of (..., C, H, W), the inverse of `normalise`, with the same errors."""
    if std is not None:
        image = image * _of_channels("std", std, image)
    return image if mean is None else image + _of_channels("mean", mean, image)


def _of_channels(name: str, values: Sequence[float], image: Tensor) -> Tensor:
    channels = image.shape[-3]
    if len(values) not in (1, channels):
        raise UserError(f"{name}: has {len(values)} numbers, but images here have {channels} channel(s)")
    return torch.as_tensor(values, dtype=image.dtype, device=image.device)[:, None, None]
