"""Images as sets of local features, for losses that compare sets: blocks ``{type: pixels | vgg | dino, ...}``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.annotations import Count
from ..core.errors import UserError
from ..core.features.dinov2 import DINOv2Features
from ..core.imaging.normalisation import IMAGENET
from ..core.ops.frozen import WithFrozenNetwork
from ..core.registry import Registry
from .perceptual import VGGType
from .vgg import VGGFeatures

LOCAL_FEATURES = Registry("set of local features", "relume.losses.local_features")


def as_set(maps: Tensor, cells: int) -> Tensor:
    """Feature maps (B, d, h, w) as sets (B, n, d), averaged over `cells` x `cells` positions first."""
    if cells > 1:
        maps = F.avg_pool2d(maps, cells, ceil_mode=True, count_include_pad=False)
    return maps.flatten(2).transpose(1, 2)


@LOCAL_FEATURES.register(name="pixels")
class Pixels(nn.Module):
    """The pixels of patches that do not overlap; a border that fills no patch is repeated until it does."""

    def forward(self, images: Tensor, patch: int) -> Tensor:
        """(B, C, H, W) -> (B, n, C * patch^2)."""
        height, width = images.shape[-2:]
        whole = F.pad(images, (0, -width % patch, 0, -height % patch), mode="replicate")
        return F.unfold(whole, patch, stride=patch).transpose(1, 2)


@LOCAL_FEATURES.register(name="vgg")
class VGG(WithFrozenNetwork):
    """One layer of VGG, without gradients for its weights.

    Args:
        layer: name of a layer, see `PerceptualLoss`.
        vgg_type: network whose features are compared.
        weights: a file with torchvision's state dict, torchvision's download when omitted, ``random`` for tests.
    """

    network: VGGFeatures
    mean: Tensor
    std: Tensor

    def __init__(self, layer: str = "relu3_3", vgg_type: VGGType = "vgg19", weights: str | None = None) -> None:
        super().__init__(VGGFeatures(vgg_type, [layer], "features: vgg", weights))
        self.layer = layer
        for name, values in zip(("mean", "std"), IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor, patch: int) -> Tensor:
        """(B, 1 or 3, H, W) in [0, 1] -> (B, n, channels of the layer).

        Raises:
            UserError: images of other channels, or too small for the layer.
        """
        if images.shape[1] not in (1, 3) or min(images.shape[-2:]) < self.network.smallest_side:
            raise UserError(
                f"features: vgg: {self.layer} needs images of 1 or 3 channels and at least {self.network.smallest_side} "
                f"pixels, not of shape {tuple(images.shape)}"
            )
        prepared = (images.expand(-1, 3, -1, -1).to(self.mean.dtype) - self.mean) / self.std
        maps: Tensor = self.network(prepared)[self.layer]
        return as_set(maps, max(1, round(patch * maps.shape[-1] / images.shape[-1])))


@LOCAL_FEATURES.register(name="dino")
class DINO(WithFrozenNetwork):
    """The patch tokens of DINOv2 ViT-S/14, whose patches have 14 pixels of the resized image.

    Args:
        weights: the published file; or ``random``, for tests.
        input_size: shorter side to which images are resized, a multiple of 14.
        registers: whether it is the model with four register tokens.
    """

    network: DINOv2Features

    def __init__(self, weights: str, input_size: Count = 224, registers: bool = False) -> None:
        super().__init__(DINOv2Features(weights, input_size=input_size, registers=registers))
        self.extra = 1 + 4 * registers

    def forward(self, images: Tensor, patch: int) -> Tensor:
        """(B, 1 or 3, H, W) in [0, 1] -> (B, n, 384)."""
        prepared = self.network.prepared(images.float() * 2 - 1)
        network = self.network.network
        rows, columns = (side // network.patch_size for side in prepared.shape[-2:])
        tokens = network.tokens(prepared)[:, self.extra :].transpose(1, 2).unflatten(2, (rows, columns))
        return as_set(tokens, max(1, round(patch * columns / images.shape[-1])))
