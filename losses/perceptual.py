"""Perceptual and style losses on VGG features."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import UserError
from ..core.imaging.normalisation import IMAGENET
from ..core.ops.frozen import WithFrozenNetwork
from ..core.ops.precision import full_precision
from . import LOSSES
from .common import checked_choice, comparable
from .vgg import VGGFeatures

VGGType = Literal["vgg16", "vgg19"]
Criterion = Literal["l1", "l2", "fro"]


def gram(features: Tensor) -> Tensor:
    """Products of channels averaged over pixels and channels: (B, C, H, W) to (B, C, C)."""
    b, c, h, w = features.shape
    flat = features.view(b, c, h * w)
    return flat @ flat.transpose(1, 2) / (c * h * w)


@LOSSES.register(aliases=("VGGLoss",))
class PerceptualLoss(WithFrozenNetwork):
    """Distances of VGG features, and of their Gram matrices (Johnson et al., ECCV 2016; Gatys et al., CVPR 2016).

    The arguments up to `criterion` are BasicSR's. VGG runs in float32, without gradients for the target.

    - BasicSR, ESRGAN: ``layer_weights: {conv5_4: 1}``, the last convolution before its ReLU.
    - Spectroformer's replica: the same with ``use_input_norm: false``; later ``{relu3_3: 1}``.
    - Spectroformer, Phaseformer: ``vgg_type: vgg16, resize: 224`` and relu1_2, relu2_2, relu3_3, relu4_3, 1 each.

    Returns a scalar, or ``{"percep": ..., "style": ...}`` when `style_weight` > 0 (no ``percep`` if its weight is 0).

    Args:
        layer_weights: weight of each layer: conv<b>_<i> (before the ReLU), relu<b>_<i> or pool<b>.
        vgg_type: network whose features are compared.
        use_input_norm: subtract ImageNet's mean and divide by its standard deviation.
        range_norm: images are in [-1, 1], not in [0, 1].
        perceptual_weight: factor of the distance of features; 0 leaves it out.
        style_weight: factor of the distance of Gram matrices; 0 leaves it out.
        criterion: mean absolute (``l1``) or squared (``l2``) difference, or the Euclidean norm of all (``fro``).
        resize: bilinearly resize images to this height and width first.
        weights: a file with a state dict of torchvision's ``vgg16`` or ``vgg19``; torchvision's ImageNet weights,
            downloaded once into torch's hub cache, when omitted; ``random`` for a fixed random network, for tests.

    Raises:
        UserError: unknown layer, both weights 0, no weights file, or images too small or of 2 or more than 3 channels.
    """

    network: VGGFeatures
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layer_weights: dict[str, float],
        vgg_type: VGGType = "vgg19",
        use_input_norm: bool = True,
        range_norm: bool = False,
        perceptual_weight: float = 1.0,
        style_weight: float = 0.0,
        criterion: Criterion = "l1",
        resize: int | None = None,
        weights: str | None = None,
    ) -> None:
        checked_choice("PerceptualLoss", "vgg_type", vgg_type, VGGType)
        checked_choice("PerceptualLoss", "criterion", criterion, Criterion)
        if perceptual_weight <= 0 and style_weight <= 0:
            raise UserError("PerceptualLoss: perceptual_weight and style_weight are both 0; leave the loss out instead")
        super().__init__(VGGFeatures(vgg_type, layer_weights, "PerceptualLoss", weights))
        self.layer_weights = dict(layer_weights)
        self.range_norm = range_norm
        self.perceptual_weight = perceptual_weight
        self.style_weight = style_weight
        self.criterion = criterion
        self.resize = resize
        mean, std = IMAGENET if use_input_norm else ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Features of images (B, 3, H, W), or (B, 1, H, W), which are taken for gray."""
        if self.resize is not None:
            x = F.interpolate(x, size=(self.resize, self.resize), mode="bilinear", align_corners=False)
        self.network.check(x)
        x = x.expand(-1, 3, -1, -1)
        x = (x + 1) / 2 if self.range_norm else x
        features: dict[str, Tensor] = self.network(((x - self.mean) / self.std).to(self.mean.dtype))
        return features

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """The criterion for features (B, C, H, W) of two images, a scalar."""
        if self.criterion == "fro":
            return torch.linalg.vector_norm(x - y)
        return F.l1_loss(x, y) if self.criterion == "l1" else F.mse_loss(x, y)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor | dict[str, Tensor]:
        pred, target = comparable("PerceptualLoss", pred, target)
        with full_precision(pred):
            with torch.no_grad():
                wanted = self.features(target)
            found = self.features(pred)
            terms: dict[str, Tensor] = {}
            if self.perceptual_weight > 0:
                parts = [w * self.distance(found[k], wanted[k]) for k, w in self.layer_weights.items()]
                terms["percep"] = self.perceptual_weight * torch.stack(parts).sum()
            if self.style_weight > 0:
                parts = [w * self.distance(gram(found[k]), gram(wanted[k])) for k, w in self.layer_weights.items()]
                terms["style"] = self.style_weight * torch.stack(parts).sum()
        return terms if "style" in terms else terms["percep"]
