"""VGG-style discriminators: one logit for a whole image of a fixed size (SRGAN, ESRGAN)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from ...core.annotations import Count
from ...core.errors import UserError
from .. import ARCHS
from ..blocks import refuse_unfit

WIDEST = 8
"""Times `num_feat`, reached after three halvings."""


@ARCHS.register()
class VGGStyleDiscriminator(nn.Module):
    """Strided convolutions with batch normalisation, then two linear layers (ESRGAN, Wang et al., ECCVW 2018).

    (B, num_in_ch, input_size, input_size) to logits (B, 1). Halved floor(log2(input_size / 4)) times, the image must end in a
    whole number of pixels a side: 64, 96, 128, 192, 256, 384, 512, ... Names of parameters are BasicSR's.

    Args:
        num_in_ch: channels of the images.
        num_feat: channels of the first layer; they double with each of the first three halvings.
        input_size: height and width of the images.

    Raises:
        UserError: `input_size` is none of these, or images have another size.
    """

    def __init__(self, num_in_ch: Count = 3, num_feat: Count = 64, input_size: Count = 128) -> None:
        super().__init__()
        halvings = int(math.log2(input_size / 4)) if input_size >= 8 else 0
        if not halvings or input_size % 2**halvings:
            raise UserError(
                f"VGGStyleDiscriminator: input_size {input_size} does not end in whole pixels when it is halved until 4 to 7 "
                "are left; sizes such as 64, 96, 128, 192, 256 do"
            )
        self.num_in_ch = num_in_ch
        self.input_size = input_size
        self.halvings = halvings
        channels = num_in_ch
        for i in range(halvings):
            width = num_feat * min(2**i, WIDEST)
            setattr(self, f"conv{i}_0", nn.Conv2d(channels, width, 3, 1, 1, bias=i == 0))
            if i > 0:
                setattr(self, f"bn{i}_0", nn.BatchNorm2d(width))
            setattr(self, f"conv{i}_1", nn.Conv2d(width, width, 4, 2, 1, bias=False))
            setattr(self, f"bn{i}_1", nn.BatchNorm2d(width))
            channels = width
        self.linear1 = nn.Linear(channels * (input_size // 2**halvings) ** 2, 100)
        self.linear2 = nn.Linear(100, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 1) of images (B, C, H, W).

        Raises:
            UserError: the images are not of `input_size` pixels a side.
        """
        refuse_unfit(x, self.num_in_ch, 1)
        if tuple(x.shape[-2:]) != (self.input_size, self.input_size):
            raise UserError(
                f"images of {x.shape[-2]}x{x.shape[-1]} pixels: this VGGStyleDiscriminator takes {self.input_size}x"
                f"{self.input_size}; set its input_size to the gt_size of the training set"
            )
        for i in range(self.halvings):
            for j in range(2):
                x = getattr(self, f"conv{i}_{j}")(x)
                if (i, j) != (0, 0):
                    x = getattr(self, f"bn{i}_{j}")(x)
                x = F.leaky_relu(x, 0.2)
        y: Tensor = self.linear2(F.leaky_relu(self.linear1(x.flatten(1)), 0.2))
        return y


@ARCHS.register()
class VGGStyleDiscriminator128(VGGStyleDiscriminator):
    """`VGGStyleDiscriminator` for images of 128 x 128, under its older name.

    Args:
        num_in_ch: channels of the images.
        num_feat: channels of the first layer.
    """

    def __init__(self, num_in_ch: Count = 3, num_feat: Count = 64) -> None:
        super().__init__(num_in_ch, num_feat, 128)


@ARCHS.register()
class VGGStyleDiscriminator192(VGGStyleDiscriminator):
    """`VGGStyleDiscriminator` for images of 192 x 192 (LDL).

    Args:
        num_in_ch: channels of the images.
        num_feat: channels of the first layer.
    """

    def __init__(self, num_in_ch: Count = 3, num_feat: Count = 64) -> None:
        super().__init__(num_in_ch, num_feat, 192)


@ARCHS.register()
class VGGStyleDiscriminator256(VGGStyleDiscriminator):
    """`VGGStyleDiscriminator` for images of 256 x 256, under its older name.

    Args:
        num_in_ch: channels of the images.
        num_feat: channels of the first layer.
    """

    def __init__(self, num_in_ch: Count = 3, num_feat: Count = 64) -> None:
        super().__init__(num_in_ch, num_feat, 256)
