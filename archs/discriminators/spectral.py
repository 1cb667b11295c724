"""Spectral normalisation, with parameters named as public discriminators name them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.ops.precision import at_least_float32


class SpectralConv2d(nn.Conv2d):
    """A convolution whose kernel, as a matrix (out, rest), is divided by its largest singular value (Miyato et al., ICLR 2018).

    One step of power iteration in every call in training mode, none in evaluation. Parameters are ``weight_orig`` and ``bias``;
    the vectors ``weight_u`` (out) and ``weight_v`` (rest) are buffers, in float32 whatever the precision around. (PyTorch's own
    computes them in half precision under autocast, and its newer form has other names.)
    """

    weight_orig: nn.Parameter
    weight_u: Tensor
    weight_v: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        weight = self.weight
        del self.weight
        self.weight_orig = nn.Parameter(weight.detach())
        rest = weight[0].numel()
        self.register_buffer("weight_u", F.normalize(torch.randn(out_channels), dim=0, eps=1e-12))
        self.register_buffer("weight_v", F.normalize(torch.randn(rest), dim=0, eps=1e-12))

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.normalised(), self.bias)

    def normalised(self) -> Tensor:
        """The kernel (out, in, k, k) over its largest singular value; gradients flow through both, not through the vectors."""
        if self.weight_orig.is_meta:
            return self.weight_orig  # a check of shapes; autocast does not know that device
        with torch.autocast(self.weight_orig.device.type, enabled=False):
            kernel = at_least_float32(self.weight_orig)
            matrix = kernel.flatten(1)
            if self.training:
                self.iterate(matrix.detach())
            # Copies: the next call changes the vectors in place, possibly before this one is differentiated.
            u, v = self.weight_u.clone(), self.weight_v.clone()
            return kernel / torch.dot(u, torch.mv(matrix, v))

    @torch.no_grad()
    def iterate(self, matrix: Tensor) -> None:
        """One step of power iteration on `matrix` (out, in k k), in place."""
        self.weight_v.copy_(F.normalize(torch.mv(matrix.t(), self.weight_u), dim=0, eps=1e-12))
        self.weight_u.copy_(F.normalize(torch.mv(matrix, self.weight_v), dim=0, eps=1e-12))


def conv(
    spectral: bool,
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    padding: int = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """A convolution, spectrally normalised or not."""
    kind = SpectralConv2d if spectral else nn.Conv2d
    return kind(in_channels, out_channels, kernel, stride=stride, padding=padding, bias=bias)
