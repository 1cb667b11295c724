"""ECBSR: a plain network for small devices whose convolutions are trained as sums of edge filters.

Zhang, Zeng, Zhang, "Edge-oriented Convolution Block for Real-time Super Resolution on Mobile Devices", ACM Multimedia 2021.
Parameter names are BasicSR's.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.annotations import Count
from ..core.errors import UserError
from . import ARCHS
from .residual import conv3x3_with_bias, need_addable

Activation = Literal["prelu", "relu", "rrelu", "softplus", "linear"]
EDGES = {
    "sbx": ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0)),
    "sby": ((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -1.0)),
    "lpl": ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0)),
}
"""Sobel's filters along rows and along columns, and the Laplacian."""
EXPANSION = 2
"""Channels between the two convolutions of an expanding branch, over those of its output."""


class Expanding(nn.Module):
    """A 1 x 1 convolution to twice the channels, then a 3 x 3 convolution, which see the first one's bias beyond the border."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        first = nn.Conv2d(inputs, EXPANSION * outputs, 1)
        second = nn.Conv2d(EXPANSION * outputs, outputs, 3)
        assert first.bias is not None and second.bias is not None
        self.k0, self.b0, self.k1, self.b1 = first.weight, first.bias, second.weight, second.bias

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight (out, in, 3, 3) and bias (out,) of the one convolution, with zero padding, that does the same."""
        weight = torch.einsum("omij,mc->ocij", self.k1, self.k0.flatten(1))
        return weight, self.k1.sum((2, 3)) @ self.b0 + self.b1


class EdgeFilter(nn.Module):
    """A 1 x 1 convolution, then a fixed filter of each channel times a learned factor."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, edge: str) -> None:
        super().__init__()
        first = nn.Conv2d(inputs, outputs, 1)
        assert first.bias is not None
        self.k0, self.b0 = first.weight, first.bias
        self.scale = nn.Parameter(1e-3 * torch.randn(outputs, 1, 1, 1))
        self.bias = nn.Parameter(1e-3 * torch.randn(outputs))
        self.register_buffer("mask", torch.tensor(EDGES[edge]).repeat(outputs, 1, 1, 1))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight (out, in, 3, 3) and bias (out,) of the one convolution that does the same, as in `Expanding.folded`."""
        kernel = self.scale * self.mask
        return kernel * self.k0, kernel.sum((1, 2, 3)) * self.b0 + self.bias


class EdgeBlock(nn.Module):
    """A 3 x 3 convolution whose weight is the sum of those of five branches (equation 6), and an activation.

    All branches are linear and see the same pixels, so they are added up before they meet the image, in training too.
    """

    def __init__(self, inputs: int, outputs: int, activation: str, with_idt: bool) -> None:
        super().__init__()
        self.conv3x3 = conv3x3_with_bias(inputs, outputs)
        self.conv1x1_3x3 = Expanding(inputs, outputs)
        self.conv1x1_sbx = EdgeFilter(inputs, outputs, "sbx")
        self.conv1x1_sby = EdgeFilter(inputs, outputs, "sby")
        self.conv1x1_lpl = EdgeFilter(inputs, outputs, "lpl")
        self.with_idt = with_idt and inputs == outputs
        self.act = activated(activation, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        assert self.conv3x3.bias is not None
        weight, bias = self.conv3x3.weight, self.conv3x3.bias
        for branch in (self.conv1x1_3x3, self.conv1x1_sbx, self.conv1x1_sby, self.conv1x1_lpl):
            more_weight, more_bias = branch.folded()
            weight, bias = weight + more_weight, bias + more_bias
        if self.with_idt:
            centre = F.pad(
                torch.eye(weight.shape[0], device=weight.device, dtype=weight.dtype)[..., None, None], [1] * 4
            )
            weight = weight + centre
        y: Tensor = self.act(F.conv2d(x, weight, bias, padding=1))
        return y


def activated(name: str, channels: int) -> nn.Module:
    """The activation `name` on so many channels.

    Raises:
        UserError: there is no such activation.
    """
    if name == "prelu":
        return nn.PReLU(channels)
    kinds = {"relu": nn.ReLU, "softplus": nn.Softplus, "linear": nn.Identity}
    if name == "rrelu":
        return nn.RReLU(lower=-0.05, upper=0.05)
    if name not in kinds:
        raise UserError(f"ECBSR: act_type must be prelu, relu, rrelu, softplus or linear, not '{name}'")
    return kinds[name]()


@ARCHS.register()
class ECBSR(nn.Module):
    """Edge-oriented convolution blocks and a pixel shuffle, beside the input repeated. Loads BasicSR's weights.

    ``forward``: (B, num_in_ch, H, W) in [0, 1] -> (B, num_out_ch, scale * H, scale * W), not clamped.

    Args:
        num_in_ch: channels of the input; 1 is usual, for luma.
        num_out_ch: channels of the output.
        num_block: blocks between the first and the last one.
        num_channel: channels inside.
        with_idt: blocks that do not change the number of channels add their input, too.
        act_type: prelu, relu, rrelu, softplus or linear, after all blocks but the last.
        scale: enlargement.

    Raises:
        UserError: the input can't be added to the output, or there is no such activation.
    """

    size_multiple = 1

    def __init__(
        self,
        num_in_ch: Count,
        num_out_ch: Count,
        num_block: Count,
        num_channel: Count,
        with_idt: bool,
        act_type: Activation,
        scale: Count,
    ) -> None:
        super().__init__()
        need_addable("ECBSR", num_in_ch, num_out_ch)
        self.scale = scale
        widths = [num_in_ch] + [num_channel] * (num_block + 1)
        blocks = [EdgeBlock(a, b, act_type, with_idt) for a, b in itertools.pairwise(widths)]
        last = EdgeBlock(num_channel, num_out_ch * scale**2, "linear", with_idt)
        self.backbone = nn.Sequential(*blocks, last)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pixel_shuffle(self.backbone(x), self.scale)
        return y + F.interpolate(x, scale_factor=self.scale, mode="nearest")
