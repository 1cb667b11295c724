"""HybridVFI: a frame between two frames, from a backbone that mixes Mamba-2 with gated window attention."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor, nn

from ...core.annotations import Count, Range
from ...core.errors import UserError, did_you_mean
from ...core.inference.self_ensemble import Ensemble, self_ensemble
from .. import ARCHS
from ..blocks import halves, pad_to
from ..mamba2 import Mamba2
from .blocks import BackboneMode, LGSBlock, StreamMixing
from .flow import ContextNet, FlowEstimator, RefineNet, resize_map

SLOPE = 0.1
"""Negative slope of the backbone's LeakyReLUs."""
MHCForm = Literal["legacy", "streams"]
ChannelOrder = Literal["rgb", "bgr"]
STREAMS = 4
"""Residual streams with ``mhc_form: streams``."""


class Stage(nn.Module):
    """Blocks at one scale, in a list named as in the original."""

    def __init__(self, blocks: Sequence[LGSBlock], streams: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.streams = streams

    def forward(self, x: Tensor) -> Tensor:
        """(2B, C, H, W) -> the same, channels-last."""
        height, width = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2)
        if self.streams:  # all alike at first; their mean keeps the scale
            tokens = tokens[:, :, None].expand(-1, -1, STREAMS, -1)
        for block in self.blocks:
            tokens = block(tokens, height, width)
        if self.streams:
            tokens = tokens.mean(2)
        return tokens.transpose(1, 2).unflatten(2, (height, width))


class Backbone(nn.Module):
    """Both frames through a stem and stages of blocks; between stages half the size and twice the channels.

    Args:
        channels: channels of the first stage.
        stages: blocks of each stage.
    """

    def __init__(self, channels: int, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.patch_embed = nn.Sequential(
            nn.Conv2d(3, channels, 3, 1, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels, channels, 3, 1, 1),
            nn.LeakyReLU(SLOPE),
        )
        self.layers = nn.ModuleList(stages)
        self.downsamplers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels << i, channels << (i + 1), 3, 2, 1), nn.LeakyReLU(SLOPE))
            for i in range(len(stages) - 1)
        )

    def forward(self, img0: Tensor, img1: Tensor) -> list[Tensor]:
        """(B, 3, H, W) twice -> sums of both frames' features: (B, c, H, W), (B, 2c, H/2, W/2), ..."""
        x = self.patch_embed(torch.cat([img0, img1]))
        features = []
        for i, layer in enumerate(self.layers):
            x = self.downsamplers[i - 1](x) if i else x
            x = layer(x)
            first, second = halves(x)
            features.append(first + second)
        return features


@ARCHS.register()
class HybridVFI(nn.Module):
    """Interpolates a frame between two; loads the weights of its original (master's thesis "Thesis-VFI", 2026).

    Without flow, the output is a learned blend of both frames plus a residual, and `timestep` has no effect. With flow
    (``use_flow``), the frames are warped towards the time in between first, and warped context helps the residual.
    The original was trained on images in [0, 1] with channels in the order BGR: its weights need ``channel_order: bgr``.

    Args:
        F: channels at full resolution; doubled at 1/2 and again at 1/4.
        window_size: side of attention windows, in pixels of each scale.
        depths: blocks at full, 1/2 and 1/4 resolution; windows are shifted in every second one.
        num_heads: heads of window attention, per scale.
        mlp_ratios: hidden width of the perceptrons over the channels, per scale.
        backbone_mode: Mamba-2 and attention, or only one of them.
        use_mhc: hyper-connections, in hybrid mode.
        mhc_form: ``legacy`` is the original's, whose mixing cancels (`vfi_mhc.SummedStreams`); ``streams`` keeps four residual
            streams within each scale (`vfi_mhc.ParallelStreams`), at about four times the memory for residuals.
        use_ecab: channel attention is ECAB, else CAB.
        use_flow: estimate flow.
        mamba: options of `Mamba2`; d_state 64, d_conv 4, expand 2, headdim 64 where not given.
        flow_c: widths of the three blocks of the flow estimator; 240, 150, 90 when None.
        drop_path: stochastic depth of the last block; it grows linearly from 0 over all blocks.
        channel_order: order of channels in which the weights want their images; what comes in and goes out is RGB.

    Raises:
        UserError: other than three scales, counts that are too small, widths that heads do not divide, unknown words or options
            of `mamba`.
    """

    def __init__(
        self,
        F: Count = 32,
        window_size: Count = 8,
        depths: Sequence[int] = (2, 2, 2),
        num_heads: Sequence[int] = (2, 4, 8),
        mlp_ratios: Sequence[float] = (4, 4, 4),
        backbone_mode: BackboneMode = "hybrid",
        use_mhc: bool = False,
        mhc_form: MHCForm = "legacy",
        use_ecab: bool = True,
        use_flow: bool = False,
        mamba: dict[str, bool | int | float | list[float] | None] | None = None,
        flow_c: Sequence[int] | None = None,
        drop_path: Annotated[float, Range(least=0, below=1)] = 0.1,
        channel_order: ChannelOrder = "rgb",
    ) -> None:
        super().__init__()
        # Refuse options that do not go together.
        flow_c = (240, 150, 90) if flow_c is None else flow_c
        check_scales("depths", depths, least=0)
        check_scales("num_heads", num_heads, least=1)
        check_scales("mlp_ratios", mlp_ratios, least=0)
        check_scales("flow_c", flow_c, least=2)
        if not use_ecab and F < 4:
            raise UserError(f"HybridVFI: use_ecab: false needs F of at least 4; it is {F}")
        for i, heads in enumerate(num_heads):
            if (F << i) % heads:
                raise UserError(f"HybridVFI: num_heads[{i}] is {heads}, which does not divide the {F << i} channels")
        check_words(
            {
                "backbone_mode": (backbone_mode, BackboneMode),
                "mhc_form": (mhc_form, MHCForm),
                "channel_order": (channel_order, ChannelOrder),
            }
        )
        self.channel_order = channel_order
        check_mamba(mamba or {})
        # The backbone: three stages of blocks, with a drop path rate that grows from block to block.
        options = {"d_state": 64, "d_conv": 4, "expand": 2, "headdim": 64, **(mamba or {})}
        mixing: StreamMixing = mhc_form if use_mhc and backbone_mode == "hybrid" else "plain"
        count = sum(depths)
        rates = iter([drop_path * i / max(count - 1, 1) for i in range(count)])
        stages = [
            Stage(
                [
                    LGSBlock(
                        dim=F << i,
                        num_heads=num_heads[i],
                        window_size=window_size,
                        shift_size=window_size // 2 if j % 2 else 0,
                        mlp_ratio=mlp_ratios[i],
                        drop_path=next(rates),
                        backbone_mode=backbone_mode,
                        mixing=mixing,
                        use_ecab=use_ecab,
                        index=j,
                        mamba=options,
                    )
                    for j in range(depths[i])
                ],
                streams=mixing == "streams",
            )
            for i in range(3)
        ]
        self.backbone = Backbone(F, stages)
        # What makes the frame from its features.
        self.flow_estimator: FlowEstimator | None = None
        if use_flow:
            self.flow_estimator = FlowEstimator(flow_c)
            self.context0 = ContextNet(F)
            self.context1 = ContextNet(F)
        self.refine = RefineNet(F, contexts=2 if use_flow else 0)
        self.least_multiple = math.lcm(4 * window_size, 16 if use_flow else 4)
        self.size_multiple = 32 if 32 % self.least_multiple == 0 else self.least_multiple

    def forward(
        self, x: Tensor, timestep: float | Tensor = 0.5, flow_scale: float = 1.0, warp_only: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """The frame at `timestep`.

        Args:
            x: frame 0, then frame 1, (B, 6, H, W) in [0, 1]. Sides that are no multiples of ``least_multiple`` (4 windows, with
                flow 16 too) are extended, and the results cropped.
            timestep: 0 to 1, one number, or a tensor that expands to (B, 1, H, W); (B,) for one per sample.
            flow_scale: size, relative to the frames, at which flow is estimated; below 1 for large frames and motions. All
                else, warping included, stays at full size.
            warp_only: blend the warped frames by the flow estimator's mask alone, and run nothing else of the network.

        Returns:
            the frame, (B, 3, H, W), clamped to [0, 1] except in training, where a clamp would cut off gradients; and with flow
            (B, 4, H, W), the displacements in pixels at which frame 0 (first two channels) and frame 1 show what the frame in
            between does, else None.

        Raises:
            UserError: `warp_only` of a network without flow.
        """
        height, width = x.shape[-2:]
        x = pad_to(x, self.least_multiple)
        img0, img1 = self.in_order(x[:, :3]), self.in_order(x[:, 3:6])
        if self.flow_estimator is None:
            if warp_only:
                raise UserError("HybridVFI: warp_only needs the flow that use_flow: true estimates")
            residual, mask = self.refine(self.backbone(img0, img1))
            flow = None
        else:
            time = time_map(timestep, x, height, width)
            flow, logits, (first, second) = self.flow_estimator.at_scale(img0, img1, time, flow_scale)
            if warp_only:
                residual, mask = torch.zeros_like(first), torch.sigmoid(logits)
            else:
                contexts = [self.context0(img0, flow[:, :2]), self.context1(img1, flow[:, 2:])]
                residual, mask = self.refine(self.backbone(img0, img1), contexts)
                mask = torch.sigmoid(logits + mask)  # of a mask already in (0, 1), as the original has it
            img0, img1 = first, second
            flow = flow[..., :height, :width]
        pred = img0 * mask + img1 * (1 - mask) + residual
        pred = self.in_order(pred if self.training else pred.clamp(0, 1))
        return pred[..., :height, :width], flow

    def in_order(self, image: Tensor) -> Tensor:
        """An image (B, 3, H, W) from RGB to the order of the weights, or back."""
        return image if self.channel_order == "rgb" else image.flip(1)

    @torch.no_grad()
    def inference(
        self,
        img0: Tensor,
        img1: Tensor,
        TTA: bool = False,
        scale: float = 1.0,
        timestep: float | Tensor = 0.5,
        fast_TTA: bool = False,
    ) -> Tensor:
        """The frame at `timestep` for images of any size, optionally averaged over mirrored and turned inputs.

        Args:
            img0: frame 0, (B, 3, H, W) in [0, 1].
            img1: frame 1.
            TTA: mean over the eight symmetries of the square.
            scale: factor of the frames' size: below 1 the frames are reduced before and the result enlarged after, which
                saves time and loses detail.
            timestep: time of the frame, as in `forward`; a number or one per sample.
            fast_TTA: mean over the frames and their mirror image.

        Returns:
            (B, 3, H, W) in [0, 1].
        """
        size = img0.shape[-2:]
        x = resize_map(torch.cat([img0, img1], 1), scale)
        height, width = x.shape[-2:]
        x = pad_to(x, self.size_multiple)
        ensemble: Ensemble = "dihedral" if TTA else "hflip" if fast_TTA else "none"
        pred = self_ensemble(lambda seen: self(seen, timestep)[0], x, ensemble)[..., :height, :width]
        if scale == 1:
            return pred
        return nn.functional.interpolate(pred, size=size, mode="bilinear", align_corners=False)


def time_map(timestep: float | Tensor, x: Tensor, height: int, width: int) -> Tensor:
    """`timestep` as a map (B, 1, H', W') for the frames `x`, of which `height` and `width` are not padding.

    Raises:
        UserError: it is of another shape.
    """
    if not isinstance(timestep, Tensor):
        return torch.full_like(x[:, :1], timestep)
    time = timestep.to(x)
    time = time.reshape(-1, 1, 1, 1) if time.dim() < 4 else time
    if len(time) not in (1, len(x)) or tuple(time.shape[1:]) not in ((1, 1, 1), (1, height, width)):
        wanted = f"a number, one for each of {len(x)} samples, or ({len(x)}, 1, {height}, {width})"
        raise UserError(f"HybridVFI: timestep must be {wanted}; it is {tuple(timestep.shape)}")
    time = time.expand(len(x), 1, *(height, width) if time[0, 0].numel() > 1 else x.shape[-2:])
    down, right = x.shape[-2] - time.shape[-2], x.shape[-1] - time.shape[-1]
    return nn.functional.pad(time, (0, right, 0, down), mode="replicate") if down or right else time


def check_scales(name: str, values: Sequence[float], least: int) -> None:
    """Refuse options that are not three numbers of at least `least`, one for each scale.

    Raises:
        UserError: there are not three, or one is smaller.
    """
    if len(values) != 3:
        raise UserError(f"HybridVFI: {name} needs 3 numbers, one per scale; it has {len(values)}")
    if min(values) < least:
        raise UserError(f"HybridVFI: {name} must be at least {least} at every scale; it is {list(values)}")


def check_words(options: dict[str, tuple[str, object]]) -> None:
    """Refuse options, by name, whose value is none of the literals of their type.

    Raises:
        UserError: a value is not among them.
    """
    for name, (value, known) in options.items():
        if value not in (accepted := get_args(known)):
            hint = did_you_mean(value, accepted)
            raise UserError(f"HybridVFI: {name} cannot be '{value}'.{hint} Accepted: {', '.join(accepted)}.")


def check_mamba(options: Mapping[str, object]) -> None:
    """Refuse options that `Mamba2` does not have.

    Raises:
        UserError: a key is unknown.
    """
    accepted = [k for k in inspect.signature(Mamba2).parameters if k != "d_model"]
    for key in options:
        if key not in accepted:
            hint = did_you_mean(key, accepted)
            raise UserError(f"HybridVFI: unknown key '{key}' in mamba.{hint} Accepted: {', '.join(accepted)}.")
