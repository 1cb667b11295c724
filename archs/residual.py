"""What the residual super-resolution networks share: BasicSR's initialisation and its block without batch normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError


def need_addable(name: str, num_in_ch: int, num_out_ch: int) -> None:
    """Refuse channel numbers with which network `name` could not add its (enlarged) input to its output.

    Raises:
        UserError: the input has neither one channel nor as many as the output.
    """
    if num_in_ch not in (1, num_out_ch):
        raise UserError(
            f"{name}: num_in_ch is {num_in_ch}, but its input is added to its output: it must be num_out_ch "
            f"({num_out_ch}) or 1"
        )


def conv3x3_with_bias(inputs: int, outputs: int) -> nn.Conv2d:
    """3 x 3 convolution that keeps the size (zero padding)."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


@torch.no_grad()
def init_small(*layers: nn.Module, scale: float = 0.1) -> None:
    """He-normal weights (fan in) times `scale`, zero biases, in every convolution of `layers`.

    Small residual branches let deep networks without normalisation start near the identity (ESRGAN, section 3.1).
    """
    for layer in layers:
        for module in layer.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight).mul_(scale)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class ResidualBlock(nn.Module):
    """``x + res_scale * conv2(relu(conv1(x)))`` on (B, C, H, W) (EDSR, figure 2c).

    Args:
        channels: C.
        res_scale: factor of the branch; EDSR's large model needs 0.1 to train.
    """

    def __init__(self, channels: int, res_scale: float = 1.0) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.conv1 = conv3x3_with_bias(channels, channels)
        self.conv2 = conv3x3_with_bias(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.conv2(F.relu(self.conv1(x), inplace=True)), alpha=self.res_scale)


class ChannelAttention(nn.Module):
    """``x * sigmoid(conv(relu(conv(mean(x)))))``, the mean over pixels and the convolutions 1 x 1 (RCAN, ECCV 2018, eq. 8).

    Args:
        channels: number C of channels of (B, C, H, W).
        squeeze_factor: C over the channels between the convolutions.

    Raises:
        UserError: no channel is left between them.
    """

    def __init__(self, channels: int, squeeze_factor: int = 16) -> None:
        super().__init__()
        inner = channels // squeeze_factor
        if inner < 1:
            raise UserError(
                f"channel attention divides its channels by {squeeze_factor}: there must be as many at least, not {channels}"
            )
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, inner, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)
