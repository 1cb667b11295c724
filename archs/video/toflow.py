"""TOFlow: seven frames aligned by flow that is learned for the task, then merged.

Xue, Chen, Wu, Wei, Freeman, "Video Enhancement with Task-Oriented Flow", IJCV 2019. Parameter names are BasicSR's.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.imaging.normalisation import IMAGENET
from ...core.ops.flow_warp import flow_warp
from .. import ARCHS
from .layers import need_clip, pad_frames

FRAMES, LEVELS = 7, 4
MIDDLE = FRAMES // 2


class FlowStep(nn.Module):
    """One level of flow: (B, 8, H, W) of reference, warped other frame and flow so far -> what to add, (B, 2, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise((8, 32, 64, 32, 16)):
            conv = nn.Conv2d(inputs, outputs, 7, padding=3, bias=False)
            layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
        self.basic_module = nn.Sequential(*layers, nn.Conv2d(16, 2, 7, padding=3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.basic_module(x)
        return y


class FlowPyramid(nn.Module):
    """SpyNet in four levels with batch normalisation. Two frames (B, 3, H, W), sides multiples of 16 -> (B, 2, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList([FlowStep() for _ in range(LEVELS)])

    def forward(self, reference: Tensor, other: Tensor) -> Tensor:
        pairs = [(reference, other)]
        for _ in range(LEVELS - 1):
            pairs.insert(0, (F.avg_pool2d(pairs[0][0], 2), F.avg_pool2d(pairs[0][1], 2)))
        flow = reference.new_zeros(len(reference), 2, *pairs[0][0].shape[-2:])
        for level, (step, (ref, supp)) in enumerate(zip(self.basic_module, pairs, strict=True)):
            if level:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            warped = flow_warp(supp, flow.permute(0, 2, 3, 1))
            flow = flow + step(torch.cat([ref, warped, flow], 1))
        return flow


@ARCHS.register()
class TOFlow(nn.Module):
    """The middle one of seven frames, which already have the size of the output. Loads BasicSR's weights.

    ``forward``: (B, 7, 3, H, W) in [0, 1] -> (B, 3, H, W), not clamped; any size. Batch normalisation sees the pairs of the
    middle frame with each other one, one after the other.

    Args:
        adapt_official_weights: frames are put together with the middle one first, as the authors' own weights need it.

    Raises:
        UserError: not seven frames.
    """

    size_multiple = 1
    takes_frames = FRAMES

    def __init__(self, adapt_official_weights: bool = False) -> None:
        super().__init__()
        others = [i for i in range(FRAMES) if i != MIDDLE]
        self.order = [MIDDLE, *others] if adapt_official_weights else list(range(FRAMES))
        self.mean: Tensor
        self.std: Tensor
        for name, values in zip(("mean", "std"), IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.spynet = FlowPyramid()
        self.conv_1 = nn.Conv2d(3 * FRAMES, 64, 9, padding=4)
        self.conv_2 = nn.Conv2d(64, 64, 9, padding=4)
        self.conv_3 = nn.Conv2d(64, 64, 1)
        self.conv_4 = nn.Conv2d(64, 3, 1)

    def forward(self, clip: Tensor) -> Tensor:
        need_clip("TOFlow", clip, FRAMES)
        height, width = clip.shape[-2:]
        frames = [(frame - self.mean) / self.std for frame in pad_frames(clip, 2**LEVELS).unbind(1)]
        middle = frames[MIDDLE]
        aligned = [middle if i == MIDDLE else self.moved(frames[i], middle) for i in self.order]
        x = torch.cat(aligned, 1)
        for conv in (self.conv_1, self.conv_2, self.conv_3):
            x = F.relu(conv(x))
        y = (self.conv_4(x) + middle) * self.std + self.mean
        return y[..., :height, :width]

    def moved(self, frame: Tensor, middle: Tensor) -> Tensor:
        """`frame`, (B, 3, H, W), warped onto the middle one."""
        return flow_warp(frame, self.spynet(middle, frame).permute(0, 2, 3, 1))
