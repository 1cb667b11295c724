"""EDVR: neighbouring frames aligned by deformable convolution in three scales, then fused by attention.

Wang et al., "EDVR: Video Restoration with Enhanced Deformable Convolutional Networks", CVPR Workshops 2019. Parameter names are
BasicSR's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.annotations import Count, NonNegative
from ...core.errors import UserError
from .. import ARCHS
from ..residual import conv3x3_with_bias
from .layers import DCNv2Pack, Enlarging, enlarge, lrelu, need_clip, pad_frames, residual_blocks

LEVELS = ("l3", "l2", "l1")
"""Levels from a quarter of the size to the whole."""


def halving(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, 2, 1)


class PCDAlignment(nn.Module):
    """Pyramid, cascading and deformable alignment (section 3.2): a neighbour's features moved to the reference's places.

    Args:
        channels: channels of the features.
        groups: groups of channels with offsets of their own.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        c = channels
        self.offset_conv1 = nn.ModuleDict({level: conv3x3_with_bias(2 * c, c) for level in LEVELS})
        self.offset_conv2 = nn.ModuleDict(
            {level: conv3x3_with_bias(c if level == "l3" else 2 * c, c) for level in LEVELS}
        )
        self.offset_conv3 = nn.ModuleDict({level: conv3x3_with_bias(c, c) for level in LEVELS[1:]})
        self.dcn_pack = nn.ModuleDict({level: DCNv2Pack(c, groups) for level in LEVELS})
        self.feat_conv = nn.ModuleDict({level: conv3x3_with_bias(2 * c, c) for level in LEVELS[1:]})
        self.cas_offset_conv1 = conv3x3_with_bias(2 * c, c)
        self.cas_offset_conv2 = conv3x3_with_bias(c, c)
        self.cas_dcnpack = DCNv2Pack(c, groups)

    def forward(self, neighbour: list[Tensor], reference: list[Tensor]) -> Tensor:
        """Features of a frame and of the reference at quarter, half and full size -> (B, C, H, W), aligned."""
        coarse: tuple[Tensor, Tensor] | None = None
        feature = neighbour[-1]
        for level, own, ref in zip(LEVELS, neighbour, reference, strict=True):
            offset = lrelu(self.offset_conv1[level](torch.cat([own, ref], 1)))
            if coarse is None:
                offset = lrelu(self.offset_conv2[level](offset))
                feature = self.dcn_pack[level](own, offset)
            else:
                offset = lrelu(self.offset_conv2[level](torch.cat([offset, coarse[0]], 1)))
                offset = lrelu(self.offset_conv3[level](offset))
                feature = self.feat_conv[level](torch.cat([self.dcn_pack[level](own, offset), coarse[1]], 1))
            if level != "l1":
                feature = lrelu(feature)
                coarse = 2 * enlarge(offset, 2), enlarge(feature, 2)
        offset = lrelu(self.cas_offset_conv1(torch.cat([feature, reference[-1]], 1)))
        offset = lrelu(self.cas_offset_conv2(offset))
        return lrelu(self.cas_dcnpack(feature, offset))


class TSAFusion(nn.Module):
    """Fusion by temporal and spatial attention (section 3.3). (B, T, C, H, W) -> (B, C, H, W), sides multiples of 4."""

    def __init__(self, channels: int, frames: int, center: int) -> None:
        super().__init__()
        c, self.center = channels, center
        self.temporal_attn1 = conv3x3_with_bias(c, c)
        self.temporal_attn2 = conv3x3_with_bias(c, c)
        self.feat_fusion = nn.Conv2d(frames * c, c, 1)
        self.spatial_attn1 = nn.Conv2d(frames * c, c, 1)
        self.spatial_attn2 = nn.Conv2d(2 * c, c, 1)
        self.spatial_attn3 = conv3x3_with_bias(c, c)
        self.spatial_attn4 = nn.Conv2d(c, c, 1)
        self.spatial_attn5 = conv3x3_with_bias(c, c)
        self.spatial_attn_l1 = nn.Conv2d(c, c, 1)
        self.spatial_attn_l2 = conv3x3_with_bias(2 * c, c)
        self.spatial_attn_l3 = conv3x3_with_bias(c, c)
        self.spatial_attn_add1 = nn.Conv2d(c, c, 1)
        self.spatial_attn_add2 = nn.Conv2d(c, c, 1)

    @staticmethod
    def pooled(x: Tensor) -> Tensor:
        """Maxima and means at half size, (B, 2 C, H / 2, W / 2)."""
        return torch.cat([F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 3, 2, 1)], 1)

    def forward(self, aligned: Tensor) -> Tensor:
        batch, frames = aligned.shape[:2]
        reference = self.temporal_attn1(aligned[:, self.center])
        embedded = self.temporal_attn2(aligned.flatten(0, 1)).unflatten(0, (batch, frames))
        similar = (embedded * reference[:, None]).sum(2, keepdim=True).sigmoid()
        weighted = (aligned * similar).flatten(1, 2)
        feature = lrelu(self.feat_fusion(weighted))
        attention = lrelu(self.spatial_attn2(self.pooled(lrelu(self.spatial_attn1(weighted)))))
        level = self.pooled(lrelu(self.spatial_attn_l1(attention)))
        level = enlarge(lrelu(self.spatial_attn_l3(lrelu(self.spatial_attn_l2(level)))), 2)
        attention = lrelu(self.spatial_attn3(attention)) + level
        attention = self.spatial_attn5(enlarge(lrelu(self.spatial_attn4(attention)), 2))
        added = self.spatial_attn_add2(lrelu(self.spatial_attn_add1(attention)))
        return feature * attention.sigmoid() * 2 + added


class PredeblurModule(nn.Module):
    """Features of blurred frames, by a pyramid of blocks. (B, C, H, W) -> (B, channels, H, W), at a quarter with `hr_in`."""

    def __init__(self, inputs: int, channels: int, hr_in: bool) -> None:
        super().__init__()
        c, self.hr_in = channels, hr_in
        self.conv_first = conv3x3_with_bias(inputs, c)
        if hr_in:
            self.stride_conv_hr1, self.stride_conv_hr2 = halving(c), halving(c)
        self.stride_conv_l2, self.stride_conv_l3 = halving(c), halving(c)
        self.resblock_l3, self.resblock_l2_1, self.resblock_l2_2 = residual_blocks(c, 3)
        self.resblock_l1 = nn.ModuleList(residual_blocks(c, 5))

    def forward(self, x: Tensor) -> Tensor:
        fine = lrelu(self.conv_first(x))
        if self.hr_in:
            fine = lrelu(self.stride_conv_hr2(lrelu(self.stride_conv_hr1(fine))))
        half = lrelu(self.stride_conv_l2(fine))
        quarter = lrelu(self.stride_conv_l3(half))
        half = self.resblock_l2_1(half) + enlarge(self.resblock_l3(quarter), 2)
        half = enlarge(self.resblock_l2_2(half), 2)
        for i, block in enumerate(self.resblock_l1):
            fine = block(fine)
            if i == 1:
                fine = fine + half
        return fine


class Aligned(nn.Module):
    """Features of a frame from itself and its neighbours: extraction, alignment, fusion.

    Frames (B, T, C, H, W), sides multiples of 4 -> (B, channels, H, W).

    Args:
        channels: channels of the features.
        frames: T.
        extract_blocks: residual blocks before alignment.
        groups: groups of channels with offsets of their own.
        center: the frame whose features they become; the middle one when None.
        inputs: C.
        first: whether there is a first convolution; else the subclass makes the first features.
        attention: fuse by attention, not by one convolution.
    """

    def __init__(
        self,
        channels: int,
        frames: int,
        extract_blocks: int,
        groups: int,
        center: int | None = None,
        inputs: int = 3,
        first: bool = True,
        attention: bool = True,
    ) -> None:
        super().__init__()
        c = channels
        self.center = frames // 2 if center is None else center
        if first:
            self.conv_first = conv3x3_with_bias(inputs, c)
        self.feature_extraction = residual_blocks(c, extract_blocks)
        self.conv_l2_1, self.conv_l2_2 = halving(c), conv3x3_with_bias(c, c)
        self.conv_l3_1, self.conv_l3_2 = halving(c), conv3x3_with_bias(c, c)
        self.pcd_align = PCDAlignment(c, groups)
        self.attention = attention
        self.fusion = TSAFusion(c, frames, self.center) if attention else nn.Conv2d(frames * c, c, 1)

    def first_features(self, frames: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, channels, H, W)."""
        return lrelu(self.conv_first(frames))

    def forward(self, clip: Tensor) -> Tensor:
        batch, count = clip.shape[:2]
        full = self.feature_extraction(self.first_features(clip.flatten(0, 1)))
        half = lrelu(self.conv_l2_2(lrelu(self.conv_l2_1(full))))
        quarter = lrelu(self.conv_l3_2(lrelu(self.conv_l3_1(half))))
        pyramid = [x.unflatten(0, (batch, count)) for x in (quarter, half, full)]
        reference = [x[:, self.center] for x in pyramid]
        aligned = torch.stack([self.pcd_align([x[:, i] for x in pyramid], reference) for i in range(count)], 1)
        fused: Tensor = self.fusion(aligned if self.attention else aligned.flatten(1, 2))
        return fused


@ARCHS.register()
class EDVR(Aligned, Enlarging):
    """Video super-resolution x4, or restoration at the same size, of one frame from its neighbours.

    Frames (B, num_frame, num_in_ch, H, W), in [0, 1] -> (B, num_out_ch, 4 H, 4 W), or (B, num_out_ch, H, W) with `hr_in`, not
    clamped: the frame `center_frame_idx`. Any size: frames are continued to multiples of 4 (16 with `hr_in`) and cut again.

    The published models are M, as the defaults are, and L: ``num_feat: 128``, ``num_reconstruct_block: 40``.

    Args:
        num_in_ch: channels of a frame.
        num_out_ch: channels of the result.
        num_feat: channels inside.
        num_frame: frames that it takes.
        deformable_groups: groups of channels with offsets of their own.
        num_extract_block: residual blocks before alignment.
        num_reconstruct_block: residual blocks after fusion.
        center_frame_idx: which frame is restored, counted from 0; the middle one when omitted.
        hr_in: frames are as large as the result (deblurring, denoising); needs `with_predeblur`.
        with_predeblur: extract features by a pyramid, for blurred frames.
        with_tsa: fuse by attention, not by one convolution.

    Raises:
        UserError: there is no such frame, `hr_in` without `with_predeblur`, an even `num_frame` without `center_frame_idx`, or
            the input is not so many frames.
    """

    size_multiple = 1

    def __init__(
        self,
        num_in_ch: Count = 3,
        num_out_ch: Count = 3,
        num_feat: Count = 64,
        num_frame: Count = 5,
        deformable_groups: Count = 8,
        num_extract_block: NonNegative = 5,
        num_reconstruct_block: NonNegative = 10,
        center_frame_idx: int | None = None,
        hr_in: bool = False,
        with_predeblur: bool = False,
        with_tsa: bool = True,
    ) -> None:
        # Options that do not go together.
        if center_frame_idx is None and num_frame % 2 == 0:
            raise UserError(
                f"num_frame: {num_frame} frames have none in the middle; make it odd, or give center_frame_idx"
            )
        if center_frame_idx is not None and not 0 <= center_frame_idx < num_frame:
            raise UserError(f"center_frame_idx: {center_frame_idx} is none of {num_frame} frames, counted from 0")
        if hr_in and not with_predeblur:
            raise UserError(
                "hr_in: the frames are made smaller by the layers of with_predeblur: true, which is not given"
            )
        if num_in_ch != num_out_ch:
            raise UserError(
                f"num_in_ch: {num_in_ch}, but the frame is added to the result: it must be num_out_ch ({num_out_ch})"
            )
        super().__init__(
            num_feat,
            num_frame,
            num_extract_block,
            deformable_groups,
            center_frame_idx,
            num_in_ch,
            first=not with_predeblur,
            attention=with_tsa,
        )
        # Before and after the alignment of `super`: deblurring, and the reconstruction of one frame.
        self.takes_frames, self.num_in_ch, self.hr_in = num_frame, num_in_ch, hr_in
        self.scale = 1 if hr_in else 4
        if with_predeblur:
            self.predeblur: PredeblurModule | None = PredeblurModule(num_in_ch, num_feat, hr_in)
            self.conv_1x1 = nn.Conv2d(num_feat, num_feat, 1)
        else:
            self.predeblur = None
        self.reconstruction = residual_blocks(num_feat, num_reconstruct_block)
        self.add_last_layers(num_feat, num_out_ch)

    def first_features(self, frames: Tensor) -> Tensor:
        return super().first_features(frames) if self.predeblur is None else self.conv_1x1(self.predeblur(frames))

    def forward(self, clip: Tensor) -> Tensor:
        need_clip("EDVR", clip, self.takes_frames, self.num_in_ch)
        height, width = clip.shape[-2:]
        clip = pad_frames(clip, 16 if self.hr_in else 4)
        center = clip[:, self.center]
        result = self.enlarged(self.reconstruction(super().forward(clip)))
        result = result + (center if self.hr_in else enlarge(center, 4))
        return result[..., : self.scale * height, : self.scale * width]
