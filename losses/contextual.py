"""Contextual loss: likeness of the sets of features of two images, wherever in them they are."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..core.annotations import Count
from ..core.imaging.normalisation import IMAGENET
from ..core.ops.frozen import WithFrozenNetwork
from ..core.ops.precision import at_least_float32, full_precision
from . import LOSSES
from .common import checked_choice, comparable
from .perceptual import VGGType
from .vgg import VGGFeatures

Distance = Literal["cosine", "l1", "l2"]


def contextual_loss(
    x: Tensor, y: Tensor, distance_type: Distance = "cosine", b: float = 1.0, band_width: float = 0.5
) -> Tensor:
    """Contextual loss (Mechrez et al., ECCV 2018) of features: every feature of `y` should have one like it in `x`.

    Memory grows as B (H W)^2.

    Args:
        x: features of the output, (B, C, H, W).
        y: features of the target, the same shape.
        distance_type: ``cosine``, of features less the target's mean; sum of absolute (``l1``) or squared (``l2``) differences.
        b: offset in the exponent.
        band_width: h, how sharply the nearest is preferred.
    """
    x, y = at_least_float32(x), at_least_float32(y)
    checked_choice("contextual_loss", "distance_type", distance_type, Distance)
    distance = distances(x.flatten(2), y.flatten(2), distance_type)
    relative = distance / (distance.amin(2, keepdim=True) + 1e-5)
    # softmax is the same quotient, and cannot overflow
    likeness = ((b - relative) / band_width).softmax(2)
    return -likeness.amax(1).mean(1).log().mean()


def distances(x: Tensor, y: Tensor, kind: str) -> Tensor:
    """From each of N features of x, (B, C, N), to each of M of y: (B, N, M)."""
    if kind == "cosine":
        centre = y.mean((0, 2), keepdim=True)
        x, y = torch.nn.functional.normalize(x - centre, dim=1), torch.nn.functional.normalize(y - centre, dim=1)
        return ((1 - x.transpose(1, 2) @ y) / 2).clamp(min=0)
    if kind == "l1":
        return torch.cdist(x.transpose(1, 2), y.transpose(1, 2), p=1)
    squares = x.square().sum(1)[:, :, None] + y.square().sum(1)[:, None, :]
    return (squares - 2 * x.transpose(1, 2) @ y).clamp(min=0)


@LOSSES.register()
class ContextualLoss(WithFrozenNetwork):
    """`contextual_loss` on VGG features (traiNNer-redux): for pairs that are not aligned pixel by pixel.

    Args:
        loss_weight: factor of the result.
        layer_weights: weight of each layer: conv<b>_<i> (before the ReLU), relu<b>_<i> or pool<b>; conv3_2 and conv4_2, 1 each,
            when omitted.
        vgg_type: network whose features are compared.
        distance_type: ``cosine``, ``l1`` or ``l2``.
        b: offset in the exponent.
        band_width: how sharply the nearest feature is preferred.
        max_1d_size: largest number of positions along a side: of larger maps the square of this many positions are drawn,
            the same ones in both images; from torch's global generator, so that ranks draw their own.
        weights: a file with a state dict of torchvision's network; torchvision's ImageNet weights when omitted.

    Raises:
        UserError: unknown layer, no weights file, or images too small or of 2 or more than 3 channels.
    """

    network: VGGFeatures
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        loss_weight: float = 1.0,
        layer_weights: dict[str, float] | None = None,
        vgg_type: VGGType = "vgg19",
        distance_type: Distance = "cosine",
        b: float = 1.0,
        band_width: float = 0.5,
        max_1d_size: Count = 100,
        weights: str | None = None,
    ) -> None:
        checked_choice("ContextualLoss", "vgg_type", vgg_type, VGGType)
        self.layer_weights = layer_weights or {"conv3_2": 1.0, "conv4_2": 1.0}
        super().__init__(VGGFeatures(vgg_type, self.layer_weights, "ContextualLoss", weights))
        self.distance_type: Distance = distance_type
        checked_choice("ContextualLoss", "distance_type", distance_type, Distance)
        self.loss_weight = loss_weight
        self.b = b
        self.band_width = band_width
        self.most = max_1d_size**2
        for name, values in zip(("mean", "std"), IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = comparable("ContextualLoss", pred, target)
        self.network.check(pred)
        with full_precision(pred):
            found = self.network((pred - self.mean) / self.std)
            with torch.no_grad():
                wanted = self.network((target - self.mean) / self.std)
            parts = [w * self.compared(found[k], wanted[k]) for k, w in self.layer_weights.items()]
        return self.loss_weight * torch.stack(parts).sum()

    def compared(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of one layer (B, C, h, w), of some of its positions if there are too many."""
        x, y = x.flatten(2), y.flatten(2)
        if x.shape[2] > self.most:
            chosen = torch.randperm(x.shape[2])[: self.most].to(x.device)
            x, y = x[..., chosen], y[..., chosen]
        return contextual_loss(x, y, self.distance_type, self.b, self.band_width)
