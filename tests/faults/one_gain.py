"""A plugin for tests: networks of one parameter, whose outputs are known."""

from __future__ import annotations

import torch
from torch import Tensor

from relume.archs import ARCHS


@ARCHS.register()
class OneGain(torch.nn.Module):
    """``x * gain``."""

    def __init__(self, start: float = 1.0) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


@ARCHS.register()
class OneConvolution(torch.nn.Module):
    """The identity, of images of so many channels."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, channels, 1, bias=False)
        torch.nn.init.dirac_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return result
