"""A discriminator that judges every pixel (Real-ESRGAN)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ...core.annotations import Count
from .. import ARCHS
from ..blocks import refuse_unfit
from .spectral import conv


@ARCHS.register()
class UNetDiscriminatorSN(nn.Module):
    """A U-Net with spectral normalisation (Real-ESRGAN, Wang et al., ICCVW 2021).

    (B, num_in_ch, H, W) to logits (B, 1, H, W), H and W multiples of 8. Names of parameters are BasicSR's.

    Args:
        num_in_ch: channels of the images.
        num_feat: channels at full resolution.
        skip_connection: add what goes down to what comes up.
    """

    def __init__(self, num_in_ch: Count = 3, num_feat: Count = 64, skip_connection: bool = True) -> None:
        super().__init__()
        self.num_in_ch = num_in_ch
        self.skip_connection = skip_connection
        f = num_feat
        self.conv0 = conv(False, num_in_ch, f, 3)
        self.conv1 = conv(True, f, 2 * f, 4, 2, bias=False)
        self.conv2 = conv(True, 2 * f, 4 * f, 4, 2, bias=False)
        self.conv3 = conv(True, 4 * f, 8 * f, 4, 2, bias=False)
        self.conv4 = conv(True, 8 * f, 4 * f, 3, bias=False)
        self.conv5 = conv(True, 4 * f, 2 * f, 3, bias=False)
        self.conv6 = conv(True, 2 * f, f, 3, bias=False)
        self.conv7 = conv(True, f, f, 3, bias=False)
        self.conv8 = conv(True, f, f, 3, bias=False)
        self.conv9 = conv(False, f, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        refuse_unfit(x, self.num_in_ch, 8)
        down = [activated(self.conv0(x))]
        for layer in (self.conv1, self.conv2, self.conv3):
            down.append(activated(layer(down[-1])))
        y = down.pop()
        for layer in (self.conv4, self.conv5, self.conv6):
            y = activated(layer(F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)))
            skipped = down.pop()
            y = y + skipped if self.skip_connection else y
        y = activated(self.conv8(activated(self.conv7(y))))
        logits: Tensor = self.conv9(y)
        return logits


@ARCHS.register(name="Discriminator_UNet")
class DiscriminatorUNet(UNetDiscriminatorSN):
    """`UNetDiscriminatorSN` as KAIR calls it.

    Args:
        input_nc: channels of the images.
        ndf: channels at full resolution.
    """

    def __init__(self, input_nc: Count = 3, ndf: Count = 64) -> None:
        super().__init__(input_nc, ndf)


def activated(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2, elementwise: any shape -> the same."""
    return F.leaky_relu(x, 0.2)
