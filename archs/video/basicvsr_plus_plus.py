"""BasicVSR++: four passes through time, each aligned by deformable convolution along the flow from two frames.

Chan et al., "BasicVSR++: Improving Video Super-Resolution with Enhanced Propagation and Alignment", CVPR 2022. Parameter names
are BasicSR's; weights of the authors' repository (mmedit) load too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.annotations import Count, NonNegative, Positive
from ...core.ops.flow_warp import flow_warp
from .. import ARCHS
from ..residual import conv3x3_with_bias
from .basicvsr import Recurrent, warped
from .layers import SLOPE, ConvResidualBlocks, DeformableConv, enlarge, need_clip, pad_frames

BRANCHES = ("backward_1", "forward_1", "backward_2", "forward_2")
"""The branches, in the order in which they run, and stand in every concatenation."""
GROUPS = 16


class SecondOrderDeformableAlignment(DeformableConv):
    """The states of the last two frames, sampled where the flow points to and a learned offset from there (section 3.2).

    Args:
        channels: C, of one state.
        reach: largest offset, in pixels.
    """

    def __init__(self, channels: int, reach: float) -> None:
        super().__init__(2 * channels, channels, GROUPS)
        self.reach = reach
        layers: list[nn.Module] = []
        for inputs in (3 * channels + 4, channels, channels):
            layers += [conv3x3_with_bias(inputs, channels), nn.LeakyReLU(SLOPE, inplace=True)]
        last = conv3x3_with_bias(channels, 27 * GROUPS)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        self.conv_offset = nn.Sequential(*layers, last)

    def forward(self, states: Tensor, seen: Tensor, flow_1: Tensor, flow_2: Tensor) -> Tensor:
        """(B, 2 C, H, W) -> (B, C, H, W).

        Args:
            states: states of the last frame and the one before it, (B, 2 C, H, W).
            seen: the states warped, with the frame's own features between them, (B, 3 C, H, W).
            flow_1, flow_2: flow to the last frame, and to the one before it, (B, 2, H, W) in pixels.
        """
        first, second, mask = self.conv_offset(torch.cat([seen, flow_1, flow_2], 1)).chunk(3, 1)
        offset = self.reach * torch.cat([first, second], 1).tanh()
        to_1, to_2 = offset.chunk(2, 1)
        # Flow is (right, down), offsets are (down, right).
        repeats = to_1.shape[1] // 2
        offset = torch.cat(
            [to_1 + flow_1.flip(1).repeat(1, repeats, 1, 1), to_2 + flow_2.flip(1).repeat(1, repeats, 1, 1)], 1
        )
        return self.convolve(states, offset, mask.sigmoid())


@ARCHS.register()
class BasicVSRPlusPlus(Recurrent):
    """Video super-resolution x4, or restoration at the same size.

    Clip (B, T, 3, H, W), RGB in [0, 1] -> (B, T, 3, 4 H, 4 W), or (B, T, 3, H, W) without `is_low_res_input`, not clamped.
    Any number of frames, one too; any size. In a clip that is followed by itself reversed, only half the flows are computed.

    Args:
        mid_channels: channels of the state; a multiple of 16, since so many groups of them have offsets of their own.
        num_blocks: residual blocks of each step.
        max_residue_magnitude: largest offset from the flow, in pixels.
        is_low_res_input: whether to enlarge by four; else frames are made smaller first.
        spynet_path: weights of the flow estimator.
        cpu_cache_length: largest number of frames whose features stay on the device; without gradients, those of longer
            clips are kept in the memory of the CPU.
        checkpoint_activations: compute the insides of every step in time again in the backward pass, which saves memory.

    Raises:
        UserError: weights are missing or do not fit, or the input is no clip.
    """

    def __init__(
        self,
        mid_channels: Count = 64,
        num_blocks: NonNegative = 7,
        max_residue_magnitude: Positive = 10,
        is_low_res_input: bool = True,
        spynet_path: str | None = None,
        cpu_cache_length: NonNegative = 100,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__(mid_channels, spynet_path, checkpoint_activations)
        c = mid_channels
        self.is_low_res_input, self.cpu_cache_length = is_low_res_input, cpu_cache_length
        self.scale = 4 if is_low_res_input else 1
        if is_low_res_input:
            self.feat_extract: nn.Module = ConvResidualBlocks(3, c, 5)
        else:
            self.feat_extract = nn.Sequential(
                nn.Conv2d(3, c, 3, 2, 1),
                nn.LeakyReLU(SLOPE, inplace=True),
                nn.Conv2d(c, c, 3, 2, 1),
                nn.LeakyReLU(SLOPE, inplace=True),
                ConvResidualBlocks(c, c, 5),
            )
        self.deform_align = nn.ModuleDict(
            {name: SecondOrderDeformableAlignment(c, max_residue_magnitude) for name in BRANCHES}
        )
        self.backbone = nn.ModuleDict(
            {name: ConvResidualBlocks((2 + i) * c, c, num_blocks) for i, name in enumerate(BRANCHES)}
        )
        self.reconstruction = ConvResidualBlocks(5 * c, c, 5)

    def flows(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """See `Recurrent.flows`; of a clip (B, T, 3, H, W) that ends with its own mirror image, half of them are computed."""
        half = clip.shape[1] // 2
        if clip.shape[1] == 2 * half and half and torch.equal(clip[:, :half], clip[:, half:].flip(1)):
            earlier, later = clip[:, :-1].flatten(0, 1), clip[:, 1:].flatten(0, 1)
            backward = self.spynet(earlier, later).unflatten(0, (clip.shape[0], 2 * half - 1))
            return backward.flip(1), backward
        return super().flows(clip)

    def forward(self, clip: Tensor) -> Tensor:
        need_clip("BasicVSRPlusPlus", clip)
        height, width = clip.shape[-2:]
        whole = clip if self.is_low_res_input else pad_frames(clip, 4)
        batch, count = whole.shape[:2]
        away = not torch.is_grad_enabled() and count > self.cpu_cache_length
        small = whole
        if not self.is_low_res_input:
            small = F.interpolate(whole.flatten(0, 1), scale_factor=0.25, mode="bicubic").unflatten(0, (batch, count))
        forward, backward = self.flows(small)
        seen: list[list[Tensor]] = []
        for i in range(count):
            seen.append([kept(self.stepwise(self.feat_extract, whole[:, i]), away)])
        for name in BRANCHES:
            self._propagate(name, seen, backward if name.startswith("backward") else forward, clip.device, away)
        results = []
        for i in range(count):
            features = [x.to(clip.device) for x in seen[i]]
            results.append(kept(self.stepwise(self._output, whole[:, i], *features), away))
            seen[i] = []
        return torch.stack(results, 1)[..., : self.scale * height, : self.scale * width]

    def _propagate(self, name: str, seen: list[list[Tensor]], flows: Tensor, device: torch.device, away: bool) -> None:
        """One pass through time, after which every frame has one more feature in `seen`."""
        order = range(len(seen))
        if name.startswith("backward"):
            order = order[::-1]
        before: list[Tensor] = []  # the states of the last two frames, the last one first
        earlier: Tensor | None = None  # the flow of the step before
        for step, i in enumerate(order):
            features = [x.to(device) for x in seen[i]]
            flow = flows[:, min(i, order[step - 1])] if step else None
            state = self.stepwise(self._step, name, features, before, flow, earlier)
            before, earlier = [state, *before[:1]], flow
            seen[i].append(kept(state, away))

    def _step(
        self, name: str, features: list[Tensor], before: list[Tensor], flow: Tensor | None, earlier: Tensor | None
    ) -> Tensor:
        """The state of a frame, from its features so far and the states of the last two frames."""
        current = features[0]
        if flow is None:
            state = torch.zeros_like(current)
        else:
            second, flow_2, seen_2 = torch.zeros_like(current), torch.zeros_like(flow), torch.zeros_like(current)
            if earlier is not None:
                second = before[1]
                flow_2 = flow + flow_warp(earlier, flow.permute(0, 2, 3, 1))
                seen_2 = warped(second, flow_2)
            seen = torch.cat([warped(before[0], flow), current, seen_2], 1)
            state = self.deform_align[name](torch.cat([before[0], second], 1), seen, flow, flow_2)
        changed: Tensor = self.backbone[name](torch.cat([*features, state], 1))
        return state + changed

    def _output(self, frame: Tensor, *features: Tensor) -> Tensor:
        result = self.enlarged(self.reconstruction(torch.cat(features, 1)))
        return result + (enlarge(frame, 4) if self.is_low_res_input else frame)


def kept(x: Tensor, away: bool) -> Tensor:
    """`x`, of any shape, moved to the CPU's memory if it is to be `away`."""
    return x.cpu() if away else x
