"""The parts that BasicSR's architectures are made of. State dicts have BasicSR's names."""

from __future__ import annotations

import collections.abc
import math
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.init import trunc_normal_
from torch.nn.modules.batchnorm import _BatchNorm

from ...ops.flow_warp import flow_warp
from ..ops.dcn import ModulatedDeformConvPack

__all__ = [
    "DCNv2Pack",
    "DropPath",
    "LayerNorm2d",
    "ResidualBlockNoBN",
    "Upsample",
    "default_init_weights",
    "drop_path",
    "flow_warp",
    "make_layer",
    "pixel_unshuffle",
    "resize_flow",
    "to_1tuple",
    "to_2tuple",
    "to_3tuple",
    "to_4tuple",
    "to_ntuple",
    "trunc_normal_",
]


@torch.no_grad()
def default_init_weights(
    module_list: nn.Module | Iterable[nn.Module], scale: float = 1, bias_fill: float = 0, **kwargs: Any
) -> None:
    """Kaiming's normal initialisation times `scale`; biases are `bias_fill`."""
    for module in [module_list] if isinstance(module_list, nn.Module) else module_list:
        for part in module.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(part.weight, **kwargs)
                part.weight.mul_(scale)
            elif isinstance(part, _BatchNorm):
                nn.init.constant_(part.weight, 1)
            else:
                continue
            if part.bias is not None:
                part.bias.fill_(bias_fill)


def make_layer(basic_block: Callable[..., nn.Module], num_basic_block: int, **kwarg: Any) -> nn.Sequential:
    """So many blocks, one after the other."""
    return nn.Sequential(*(basic_block(**kwarg) for _ in range(num_basic_block)))


class ResidualBlockNoBN(nn.Module):
    """``x + res_scale * conv2(relu(conv1(x)))``; small at first unless torch's own initialisation is asked for."""

    def __init__(self, num_feat: int = 64, res_scale: float = 1, pytorch_init: bool = False) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, 1, 1, bias=True)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, 1, 1, bias=True)
        self.relu = nn.ReLU(inplace=True)
        if not pytorch_init:
            default_init_weights([self.conv1, self.conv2], 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, num_feat, H, W) -> the same shape."""
        changed: Tensor = self.conv2(self.relu(self.conv1(x)))
        return x + changed * self.res_scale


class Upsample(nn.Sequential):
    """Convolutions and pixel shuffles that enlarge by `scale`: a power of 2, or 3."""

    def __init__(self, scale: int, num_feat: int) -> None:
        if scale == 3:
            steps = [3]
        elif scale > 0 and scale & (scale - 1) == 0:
            steps = [2] * int(math.log2(scale))
        else:
            raise ValueError(f"scale {scale} is not supported. Supported scales: 2^n and 3.")
        layers: list[nn.Module] = []
        for step in steps:
            layers += [nn.Conv2d(num_feat, step * step * num_feat, 3, 1, 1), nn.PixelShuffle(step)]
        super().__init__(*layers)


def resize_flow(
    flow: Tensor, size_type: str, sizes: tuple[float, float], interp_mode: str = "bilinear", align_corners: bool = False
) -> Tensor:
    """Flow (N, 2, H, W) at another size, its vectors scaled; `sizes` are (height, width), or ratios with ``ratio``.

    Raises:
        ValueError: `size_type` is neither ``ratio`` nor ``shape``.
    """
    height, width = flow.shape[-2:]
    if size_type not in ("ratio", "shape"):
        raise ValueError(f"Size type should be ratio or shape, but got type {size_type}.")
    new = (int(height * sizes[0]), int(width * sizes[1])) if size_type == "ratio" else (int(sizes[0]), int(sizes[1]))
    factors = flow.new_tensor([new[1] / width, new[0] / height])[:, None, None]
    return F.interpolate(flow * factors, new, mode=interp_mode, align_corners=align_corners)


def pixel_unshuffle(x: Tensor, scale: int) -> Tensor:
    """(N, C, H, W) to (N, C scale^2, H / scale, W / scale)."""
    return F.pixel_unshuffle(x, scale)


class DCNv2Pack(ModulatedDeformConvPack):
    """Modulated deformable convolution whose offsets come from another feature."""

    def forward(self, x: Tensor, feat: Tensor) -> Tensor:  # type: ignore[override]
        """(B, in_channels, H, W) and features of the same height and width -> (B, out_channels, H, W)."""
        return self.guided(x, feat)


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of (N, C, H, W)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        normal = centred / (centred.square().mean(1, keepdim=True) + self.eps).sqrt()
        return self.weight[:, None, None] * normal + self.bias[:, None, None]


def drop_path(x: Tensor, drop_prob: float = 0.0, training: bool = False) -> Tensor:
    """Stochastic depth for (B, ...): whole samples are zero with this probability, the others scaled up."""
    if drop_prob == 0.0 or not training:
        return x
    kept = (torch.rand((len(x),) + (1,) * (x.dim() - 1), dtype=x.dtype, device=x.device) + 1 - drop_prob).floor()
    return x * kept / (1 - drop_prob)


class DropPath(nn.Module):
    """`drop_path` as a module."""

    def __init__(self, drop_prob: float | None = None) -> None:
        super().__init__()
        self.drop_prob = drop_prob or 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> the same shape."""
        return drop_path(x, self.drop_prob, self.training)


def _ntuple(n: int) -> Callable[[Any], Any]:
    def parse(x: Any) -> Any:
        return x if isinstance(x, collections.abc.Iterable) else tuple(repeat(x, n))

    return parse


to_1tuple, to_2tuple, to_3tuple, to_4tuple = (_ntuple(n) for n in (1, 2, 3, 4))
to_ntuple = _ntuple
