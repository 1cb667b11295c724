"""``basicsr.archs.vgg_arch``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ....core.imaging.normalisation import IMAGENET
from ....losses.vgg import VGGFeatures

MEAN, STD = IMAGENET


class VGGFeatureExtractor(nn.Module):
    """Activations of named layers of VGG, with torchvision's weights.

    Args:
        layer_name_list: ``conv1_1``, ``relu1_1``, ...
        use_input_norm: normalise images in [0, 1] as ImageNet's.
        range_norm: images are in [-1, 1].

    Raises:
        ValueError: batch normalisation, or pooling changed, which only BasicSR itself has.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layer_name_list: Sequence[str],
        vgg_type: str = "vgg19",
        use_input_norm: bool = True,
        range_norm: bool = False,
        requires_grad: bool = False,
        remove_pooling: bool = False,
        pooling_stride: int = 2,
    ) -> None:
        super().__init__()
        if remove_pooling or pooling_stride != 2 or "bn" in vgg_type:
            raise ValueError("Relume's stand-in for VGGFeatureExtractor has no batch normalisation and pools by 2")
        self.layer_name_list = layer_name_list
        self.use_input_norm = use_input_norm
        self.range_norm = range_norm
        self.vgg_net = VGGFeatures(vgg_type, layer_name_list, "VGGFeatureExtractor")
        self.vgg_net.requires_grad_(requires_grad).train(requires_grad)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features (B, C, h, w) by layer, of images (B, 3, H, W)."""
        x = (x + 1) / 2 if self.range_norm else x
        x = (x - self.mean) / self.std if self.use_input_norm else x
        found: dict[str, Tensor] = self.vgg_net(x)
        return found
