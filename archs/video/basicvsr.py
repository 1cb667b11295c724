"""BasicVSR and IconVSR: what is seen in all other frames, carried along the flow in both directions of time.

Chan et al., "BasicVSR: The Search for Essential Components in Video Super-Resolution and Beyond", CVPR 2021.
Parameter names are BasicSR's.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...core.annotations import Count, Levels, NonNegative
from ...core.errors import UserError
from ...core.ops.flow_warp import flow_warp
from ...core.runtime.checkpoint import load_weights
from .. import ARCHS
from ..residual import conv3x3_with_bias
from .edvr import Aligned
from .layers import ConvResidualBlocks, Enlarging, Stepwise, enlarge, lrelu, need_clip, pad_frames
from .spynet import LEVELS, SpyNet

OTHER_NAMES = (
    (re.compile(r"^upsample1\.upsample_conv\."), "upconv1."),
    (re.compile(r"^upsample2\.upsample_conv\."), "upconv2."),
    (re.compile(r"^(back|for)ward_resblocks\."), r"\1ward_trunk."),
)
"""mmedit's names, and those of here."""


def with_own_names(net: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Load weights under mmedit's names: a hook before a state dict is loaded."""
    state.pop(f"{prefix}step_counter", None)
    for old in [k for k in state if k.startswith(prefix)]:
        new = old.removeprefix(prefix)
        for pattern, replacement in OTHER_NAMES:
            new = pattern.sub(replacement, new)
        if prefix + new != old:
            state[prefix + new] = state.pop(old)


class Recurrent(Enlarging):
    """What the recurrent networks share: the flow between neighbours, and a step along it.

    Args:
        channels: channels of the state.
        spynet_path: weights of the flow estimator.
        checkpoint_activations: compute the insides of every step in time again in the backward pass.
        flow_levels: levels of the flow estimator's pyramid.
    """

    scale = 4
    size_multiple = 1
    takes_frames = 0

    def __init__(
        self, channels: int, spynet_path: str | None, checkpoint_activations: bool, flow_levels: int = LEVELS
    ) -> None:
        super().__init__()
        self.channels = channels
        self.add_last_layers(channels)
        self.spynet = SpyNet(spynet_path, flow_levels)
        self.stepwise = Stepwise(checkpoint_activations)
        self.register_load_state_dict_pre_hook(with_own_names)

    def get_flow(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Flows (B, T - 1, 2, H, W): those that warp each frame onto the one after it, and onto the one before it.

        Args:
            clip: (B, T, 3, H, W), of at least two frames.
        """
        batch, frames = clip.shape[:2]
        earlier, later = clip[:, :-1].flatten(0, 1), clip[:, 1:].flatten(0, 1)
        # In the order of BasicSR: flows_forward warp what came before, flows_backward what comes after.
        backward = self.spynet(earlier, later).unflatten(0, (batch, frames - 1))
        forward = self.spynet(later, earlier).unflatten(0, (batch, frames - 1))
        return forward, backward

    def flows(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """As `get_flow`; of a single frame, which has no neighbour, no flows (B, 0, 2, H, W)."""
        if clip.shape[1] > 1:
            return self.get_flow(clip)
        none = clip.new_zeros(clip.shape[0], 0, 2, *clip.shape[-2:])
        return none, none

    def first_state(self, clip: Tensor) -> Tensor:
        """The state before a clip begins: zeros (B, channels, H, W)."""
        return clip.new_zeros(clip.shape[0], self.channels, *clip.shape[-2:])

    def shown(self, features: Tensor, frame: Tensor) -> Tensor:
        """The result (B, 3, scale H, scale W) of a frame (B, 3, H, W): the last layers on its features, plus the frame
        enlarged.

        `features` are (B, channels, H, W).
        """
        return self.enlarged(features) + enlarge(frame, self.scale)


def warped(state: Tensor, flow: Tensor) -> Tensor:
    """A state moved along a flow (B, 2, H, W)."""
    return flow_warp(state, flow.permute(0, 2, 3, 1))


@ARCHS.register()
class BasicVSR(Recurrent):
    """Video super-resolution x4. Clip (B, T, 3, H, W), RGB in [0, 1] -> (B, T, 3, 4 H, 4 W), not clamped.

    Any number of frames, one too; any size.

    Args:
        num_feat: channels of the state.
        num_block: residual blocks of each direction's step.
        spynet_path: weights of the flow estimator, such as ``spynet_sintel_final-3d2a1287.pth``.
        checkpoint_activations: compute the insides of every step in time again in the backward pass, which saves memory.
        flow_levels: levels of the flow estimator's pyramid; public weights have 6.

    Raises:
        UserError: weights are missing or do not fit, or the input is no clip.
    """

    def __init__(
        self,
        num_feat: Count = 64,
        num_block: NonNegative = 15,
        spynet_path: str | None = None,
        checkpoint_activations: bool = False,
        flow_levels: Levels = LEVELS,
    ) -> None:
        super().__init__(num_feat, spynet_path, checkpoint_activations, flow_levels)
        self.backward_trunk = ConvResidualBlocks(num_feat + 3, num_feat, num_block)
        self.forward_trunk = ConvResidualBlocks(num_feat + 3, num_feat, num_block)
        self.fusion = nn.Conv2d(2 * num_feat, num_feat, 1)

    def forward(self, clip: Tensor) -> Tensor:
        return self.continued(clip)[0]

    def continued(
        self, clip: Tensor, before: tuple[Tensor, Tensor] | None = None, count: int | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The answer for the first frames of a clip, and what the frames after those need of it.

        What is carried forwards is then as in one clip without end; what is carried backwards begins at the clip's last frame.

        Args:
            clip: (B, T, 3, H, W).
            before: what the frames before need of theirs: the last of them (B, 3, H, W), and the state after it; None where
                there are none.
            count: how many frames to answer for, at least one; all when omitted.
        """
        need_clip("BasicVSR", clip)
        count = clip.shape[1] if count is None else count
        ahead = 0 if before is None else 1  # frames before the clip that the flows know of
        forward, backward = self.flows(clip if before is None else torch.cat([before[0][:, None], clip], 1))
        last = clip.shape[1] - 1
        state, behind = self.first_state(clip), {}
        for i in range(last, -1, -1):
            state = state if i == last else warped(state, backward[:, i + ahead])
            state = behind[i] = self.stepwise(self._trunk, self.backward_trunk, clip[:, i], state)
        state, results = self.first_state(clip) if before is None else before[1], []
        for i in range(count):
            state = state if i + ahead == 0 else warped(state, forward[:, i + ahead - 1])
            state = self.stepwise(self._trunk, self.forward_trunk, clip[:, i], state)
            results.append(self.stepwise(self._output, behind.pop(i), state, clip[:, i]))
        return torch.stack(results, 1), (clip[:, count - 1], state)

    @staticmethod
    def _trunk(trunk: nn.Module, frame: Tensor, state: Tensor) -> Tensor:
        y: Tensor = trunk(torch.cat([frame, state], 1))
        return y

    def _output(self, behind: Tensor, ahead: Tensor, frame: Tensor) -> Tensor:
        return self.shown(lrelu(self.fusion(torch.cat([behind, ahead], 1))), frame)


@ARCHS.register()
class IconVSR(Recurrent):
    """BasicVSR with features of key frames from their neighbours, and with the forward direction seeing the backward one.

    Clip (B, T, 3, H, W), RGB in [0, 1] -> (B, T, 3, 4 H, 4 W), not clamped. Any size; at least 2 `temporal_padding` + 1 frames.

    Args:
        num_feat: channels of the state.
        num_block: residual blocks of each direction's step.
        keyframe_stride: every how many frames a key frame is; the last frame is one too.
        temporal_padding: frames before and after a key frame that its features come from.
        spynet_path: weights of the flow estimator.
        edvr_path: weights of the features of key frames, such as ``edvr_reds_pretrained_new.pth``.
        checkpoint_activations: compute the insides of every step in time again in the backward pass, which saves memory.

    Raises:
        UserError: weights are missing or do not fit, the input is no clip, or it has too few frames.
    """

    def __init__(
        self,
        num_feat: Count = 64,
        num_block: NonNegative = 15,
        keyframe_stride: Count = 5,
        temporal_padding: Literal[2, 3] = 2,
        spynet_path: str | None = None,
        edvr_path: str | None = None,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__(num_feat, spynet_path, checkpoint_activations)
        if temporal_padding not in (2, 3):
            raise UserError(f"IconVSR: temporal_padding is {temporal_padding}, but must be 2 or 3")
        self.keyframe_stride, self.temporal_padding = keyframe_stride, temporal_padding
        self.least_frames = 2 * temporal_padding + 1
        self.edvr = Aligned(num_feat, self.least_frames, extract_blocks=5, groups=8)
        if edvr_path:
            load_weights(self.edvr, edvr_path, "params")
        self.backward_fusion = conv3x3_with_bias(2 * num_feat, num_feat)
        self.backward_trunk = ConvResidualBlocks(num_feat + 3, num_feat, num_block)
        self.forward_fusion = conv3x3_with_bias(2 * num_feat, num_feat)
        self.forward_trunk = ConvResidualBlocks(2 * num_feat + 3, num_feat, num_block)

    def forward(self, clip: Tensor) -> Tensor:
        """The clip (B, T, 3, H, W), enlarged to (B, T, 3, 4 H, 4 W).

        Raises:
            UserError: the clip has fewer frames than ``temporal_padding`` needs.
        """
        need_clip("IconVSR", clip)
        height, width = clip.shape[-2:]
        if clip.shape[1] < self.least_frames:
            needs = f"temporal_padding {self.temporal_padding} needs {self.least_frames}"
            raise UserError(f"IconVSR: a clip of {clip.shape[1]} frames; {needs}")
        clip = pad_frames(clip, 4)
        last = clip.shape[1] - 1
        keys = {*range(0, last + 1, self.keyframe_stride), last}
        features = self._of_keys(clip, sorted(keys))
        forward, backward = self.get_flow(clip)
        state, behind = self.first_state(clip), {}
        for i in range(last, -1, -1):
            state = state if i == last else warped(state, backward[:, i])
            if i in keys:
                state = self.backward_fusion(torch.cat([state, features[i]], 1))
            state = behind[i] = self.stepwise(self._trunk, self.backward_trunk, clip[:, i], state)
        state, results = self.first_state(clip), []
        for i in range(last + 1):
            state = state if i == 0 else warped(state, forward[:, i - 1])
            if i in keys:
                state = self.forward_fusion(torch.cat([state, features[i]], 1))
            state = self.stepwise(self._trunk, self.forward_trunk, clip[:, i], behind.pop(i), state)
            results.append(self.stepwise(self.shown, state, clip[:, i]))
        return torch.stack(results, 1)[..., : self.scale * height, : self.scale * width]

    @staticmethod
    def _trunk(trunk: nn.Module, *inputs: Tensor) -> Tensor:
        y: Tensor = trunk(torch.cat(inputs, 1))
        return y

    def _of_keys(self, clip: Tensor, keys: list[int]) -> dict[int, Tensor]:
        """By key frame, the features (B, channels, H, W) of it and its neighbours."""
        pad, count = self.temporal_padding, clip.shape[1]
        # Before the first frame come those as far after the neighbours that it has, so that no frame is seen twice.
        before = [2 * pad - j for j in range(pad)]
        order = [*before, *range(count), *(count - 1 - i for i in reversed(before))]
        return {
            k: self.stepwise(self.edvr, torch.stack([clip[:, order[j]] for j in range(k, k + 2 * pad + 1)], 1))
            for k in keys
        }
