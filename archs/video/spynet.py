"""SpyNet: optical flow from coarse to fine.

Ranjan and Black, "Optical Flow Estimation using a Spatial Pyramid Network", CVPR 2017.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.annotations import Levels
from ...core.errors import UserError
from ...core.imaging.normalisation import IMAGENET
from ...core.ops.constants import constant
from ...core.ops.flow_warp import flow_warp
from ...core.ops.precision import at_least_float32
from ...core.runtime.checkpoint import load_weights
from .. import ARCHS

LEVELS = 6
OTHER_NAMES = re.compile(r"basic_module\.(\d)\.basic_module\.(\d)\.conv\.(weight|bias)$")
"""mmedit's names: layers counted without the activations between them."""


class BasicModule(nn.Module):
    """One level: (B, 8, H, W) of reference, warped other frame and flow so far -> what to add to the flow, (B, 2, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = (8, 32, 64, 32, 16, 2)
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 7, padding=3), nn.ReLU(inplace=False)]
        self.basic_module = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.basic_module(x)
        return y


@ARCHS.register()
class SpyNet(nn.Module):
    """Flow that warps one frame onto another. Two frames (B, 3, H, W), RGB in [0, 1], of any size -> (B, 2, H, W) in pixels.

    Frames are brought to multiples of 2^(levels - 1), and the flow back to their size. It is computed in float32 at least.
    Frames of one pixel at the coarsest level start there with no flow.

    Args:
        load_path: weights, such as ``spynet_sintel_final-3d2a1287.pth``; those of mmedit too.
        levels: levels of the pyramid, each half as large as the one before it; public weights have 6.

    Raises:
        UserError: the weights are missing or do not fit, or the frames are not two of the same size.
    """

    size_multiple = 1
    mean: Tensor
    std: Tensor

    def __init__(self, load_path: str | None = None, levels: Levels = LEVELS) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList([BasicModule() for _ in range(levels)])
        self.multiple = 2 ** (levels - 1)
        for name, values in zip(("mean", "std"), IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.register_load_state_dict_pre_hook(_with_own_names)
        if load_path:
            load_weights(self, load_path, "params")

    def forward(self, ref: Tensor, supp: Tensor) -> Tensor:
        """The flow (B, 2, H, W), in pixels, with which `supp`, warped, becomes `ref`; both (B, 3, H, W).

        Raises:
            UserError: the two images differ in shape, or are not (B, 3, H, W).
        """
        if ref.shape != supp.shape or ref.dim() != 4 or ref.shape[1] != 3:
            raise UserError(f"SpyNet: takes two (B, 3, H, W); got {tuple(ref.shape)} and {tuple(supp.shape)}")
        height, width = ref.shape[-2:]
        size = [-(-side // self.multiple) * self.multiple for side in (height, width)]
        with torch.autocast(ref.device.type, enabled=False):
            frames = [at_least_float32(x) for x in (ref, supp)]
            frames = [F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in frames]
            flow = self._pyramid(*((x - self.mean) / self.std for x in frames))
            flow = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
            return flow * constant((width / size[1], height / size[0]), flow).view(1, 2, 1, 1)

    def _pyramid(self, ref: Tensor, supp: Tensor) -> Tensor:
        """Flow of normalised frames whose sides are multiples of `multiple`."""
        refs, supps = [ref], [supp]
        for _ in range(len(self.basic_module) - 1):
            refs.insert(0, F.avg_pool2d(refs[0], 2, 2))
            supps.insert(0, F.avg_pool2d(supps[0], 2, 2))
        flow = refs[0].new_zeros(refs[0].shape[0], 2, *refs[0].shape[-2:])
        for level, module in enumerate(self.basic_module):
            if level:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            warped = flow_warp(supps[level], flow.permute(0, 2, 3, 1), padding_mode="border")
            flow = flow + module(torch.cat([refs[level], warped, flow], 1))
        return flow


def _with_own_names(net: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Load weights under mmedit's names."""
    for old in [k for k in state if k.startswith(prefix)]:
        if found := OTHER_NAMES.fullmatch(old.removeprefix(prefix)):
            level, layer, kind = found.groups()
            state[f"{prefix}basic_module.{level}.basic_module.{2 * int(layer)}.{kind}"] = state.pop(old)
