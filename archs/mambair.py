"""MambaIR: restoration and super-resolution by state-space layers (Guo et al., ECCV 2024): see `archs.state_space_2d`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..core.annotations import Count, Positive, Range
from ..core.ops.pixelwise import channels, pixels
from . import ARCHS
from .sequence_sr import Connection, SequenceSR, linear_rates, residual_conv
from .state_space_2d import VSSBlock

Rate = Annotated[float, Range(least=0, below=1)]


class Blocks(nn.Module):
    """Blocks one after the other, whose insides are computed again in the backward pass if `saving`."""

    def __init__(self, blocks: Sequence[nn.Module], saving: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.saving = saving

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        for block in self.blocks:
            saving = self.saving and torch.is_grad_enabled()
            x = checkpoint(block, x, use_reentrant=False) if saving else block(x)
        return x


class ResidualGroup(nn.Module):
    """Blocks and a convolution, beside their input. (B, H, W, C) -> same."""

    def __init__(self, dim: int, blocks: Sequence[nn.Module], kind: Connection, saving: bool) -> None:
        super().__init__()
        self.residual_group = Blocks(blocks, saving)
        self.conv = residual_conv(dim, kind)

    def forward(self, x: Tensor) -> Tensor:
        return x + pixels(self.conv(channels(self.residual_group(x))))


@ARCHS.register()
class MambaIR(SequenceSR):
    """(B, in_chans, H, W) in [0, 1] -> (B, in_chans, upscale H, upscale W), not clamped; any size.

    Loads the original's weights.

    The original's defaults train with stochastic depth (`drop_path_rate` 0.1).

    Args:
        img_size, patch_size: accepted; no influence.
        in_chans: channels of the image.
        embed_dim: channels inside, at least 30.
        depths: blocks of each group.
        drop_rate: share of elements of the features that training leaves out.
        d_state: states of a channel.
        mlp_ratio: channels inside a state-space layer over `embed_dim`.
        drop_path_rate: probability of leaving out the last block's state-space layer in training; it grows linearly from 0.
        patch_norm: normalise pixels before the first layer.
        use_checkpoint: compute the insides of blocks again in the backward pass, which saves memory.
        upscale: enlargement.
        img_range: the insides see values this much larger than the input.
        upsampler: ``pixelshuffle``, ``pixelshuffledirect`` (with lighter blocks), or '' for an image of the same size.
        resi_connection: one convolution after each group, or three.
        window_size, interval, num_heads: accepted, as published option files have them; no influence.

    Raises:
        UserError: settings that do not go together.
    """

    upsamplers = ("", "pixelshuffle", "pixelshuffledirect")

    def __init__(
        self,
        img_size: int = 64,
        patch_size: int = 1,
        in_chans: Count = 3,
        embed_dim: Count = 96,
        depths: Sequence[int] = (6, 6, 6, 6),
        drop_rate: Rate = 0.0,
        d_state: Count = 16,
        mlp_ratio: Positive = 2.0,
        drop_path_rate: Rate = 0.1,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: Count = 2,
        img_range: Positive = 1.0,
        upsampler: Literal["", "pixelshuffle", "pixelshuffledirect"] = "",
        resi_connection: Connection = "1conv",
        window_size: int | None = None,
        interval: Sequence[int] | int | None = None,
        num_heads: Sequence[int] | int | None = None,
    ) -> None:
        super().__init__(in_chans, embed_dim, patch_norm, upscale, img_range, upsampler, resi_connection)
        self.drop_rate = drop_rate
        light = upsampler == "pixelshuffledirect"
        rates = iter(linear_rates(drop_path_rate, sum(depths)))
        for depth in depths:
            blocks = [VSSBlock(embed_dim, d_state, mlp_ratio, next(rates), light) for _ in range(depth)]
            self.layers.append(ResidualGroup(embed_dim, blocks, resi_connection, use_checkpoint))
        self.init_weights()
