"""The block of HybridVFI's backbone: state-space scan over both frames beside gated attention in windows, and a perceptron."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.ops.precision import at_least_float32
from ...core.ops.scan import interleaved_merge, interleaved_orders, interleaved_scan
from ...core.ops.window_attention import fuses_windows
from ..blocks import TokenNorm, adaptive_kernel, inner_width, stochastic_depth
from ..mamba2 import Mamba2
from .attention import GatedWindowAttention, attend_in_windows, shift_masks
from .mhc import ParallelStreams, SummedStreams

BackboneMode = Literal["hybrid", "mamba2_only", "gated_attn_only"]
StreamMixing = Literal["plain", "legacy", "streams"]


class ECAB(nn.Module):
    """Efficient channel attention (Wang et al., CVPR 2020): sigmoid of a convolution over the channels' means.

    Its width grows with the logarithm of the channels: 3 up to 64, 5 for 128 and 256.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = adaptive_kernel(channels)
        self.conv = nn.Conv1d(1, 1, width, padding=width // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) or (B, C, H, W) -> the same."""
        images = x.dim() == 4
        mean = x.mean((2, 3)) if images else x.mean(1)
        scale = torch.sigmoid(self.conv(mean[:, None]))[:, 0]
        return x * (scale[..., None, None] if images else scale[:, None])


class CAB(nn.Sequential):
    """Squeeze and excitation (Hu et al., CVPR 2018) with a quarter of the channels inside."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) or (B, C, H, W) -> the same."""
        if x.dim() == 4:
            return x * super().forward(x)
        return x * super().forward(x.transpose(1, 2)[..., None]).flatten(1)[:, None]


class Mlp(nn.Module):
    """Two linear layers with GELU between; weights start normal, truncated, with deviation 0.02, biases at 0."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        for layer in (self.fc1, self.fc2):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (2B, H W, C) -> the same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


class LGSBlock(nn.Module):
    """Local and global mixing, then a perceptron, of tokens (2B, H W, C): the first frames of all samples, then the second.

    The global branch reads both frames of a sample in turn, in four orders, with one Mamba2, and sums what it makes of them; it
    runs in float32 under autocast, its decays being products of thousands of factors. The local branch attends within windows
    of each frame. A 1 x 1 convolution fuses them, and channel attention weights the channels.

    Args:
        dim: C.
        num_heads: heads of the attention.
        window_size: side of a window; divides H and W.
        shift_size: cyclic shift of the windows.
        mlp_ratio: hidden width of the perceptron over C.
        drop_path: probability of leaving out a residual branch of a sample in training.
        backbone_mode: both branches, or one of them.
        mixing: how branches join the residual: fused and added (``plain``), in hybrid mode also as in the original's mHC
            (``legacy``), or with parallel residual streams (``streams``), tokens then being (2B, H W, streams, C).
        use_ecab: channel attention is ECAB, else CAB.
        index: index of the block, which chooses the stream that its branches start from.
        mamba: options of Mamba2.
    """

    masks: Tensor | None

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        shift_size: int = 0,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        backbone_mode: BackboneMode = "hybrid",
        mixing: StreamMixing = "plain",
        use_ecab: bool = True,
        index: int = 0,
        mamba: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        hybrid = backbone_mode == "hybrid"
        self.window_size = window_size
        self.shift_size = shift_size
        self.drop_path = drop_path
        self.norm1 = TokenNorm(dim)
        try:
            self.mamba = Mamba2(dim, **(mamba or {})) if backbone_mode != "gated_attn_only" else None
        except UserError as e:
            raise UserError(f"mamba: {e}") from e
        self.attn = GatedWindowAttention(dim, num_heads) if backbone_mode != "mamba2_only" else None
        masks = shift_masks(window_size, shift_size) if self.attn is not None and shift_size else None
        self.register_buffer("masks", masks, persistent=False)
        self.fusion_conv = nn.Conv2d(2 * dim, dim, 1) if hybrid and mixing != "legacy" else None
        self.mhc = SummedStreams(3) if hybrid and mixing == "legacy" else None
        self.cab = ECAB(dim) if use_ecab else CAB(dim)
        self.norm2 = TokenNorm(dim)
        self.mlp = Mlp(dim, inner_width(dim, mlp_ratio))
        streams = mixing == "streams"
        self.mhc_mix = ParallelStreams(dim, first=2 * index) if streams else None
        self.mhc_mlp = ParallelStreams(dim, first=2 * index + 1) if streams else None

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(2B, H W, C), or (2B, H W, streams, C) -> the same."""

        def mix(tokens: Tensor) -> Tensor:
            return self.dropped(self.mixed(tokens, height, width))

        def perceive(tokens: Tensor) -> Tensor:
            return self.dropped(self.mlp(self.norm2(tokens)))

        if self.mhc_mix is not None and self.mhc_mlp is not None:
            return self.mhc_mlp(self.mhc_mix(x, mix), perceive)
        x = x + mix(x)
        return x + perceive(x)

    def mixed(self, x: Tensor, height: int, width: int) -> Tensor:
        """What the mixing adds to the tokens (2B, H W, C), of the same shape."""
        normed = self.norm1(x)
        branches = []
        if self.mamba is not None:
            branches.append(self.scan(normed, height, width))
        if self.attn is not None:
            branches.append(self.attend(normed, height, width))
        if self.mhc is not None:
            # Only the branches may be dropped; the original drops the residual too, and with it the sample.
            return self.mhc([x, *branches], self.cab) - x
        if self.fusion_conv is not None:
            kernel = self.fusion_conv.weight.flatten(1)
            fused = F.linear(torch.cat(branches, -1), kernel, self.fusion_conv.bias)
        else:
            (fused,) = branches
        return self.cab(fused)

    def scan(self, x: Tensor, height: int, width: int) -> Tensor:
        """The global branch: (2B, H W, C) -> the same shape."""
        assert self.mamba is not None
        with torch.autocast(x.device.type, enabled=False):
            if self.mamba.scans_blocks(x):
                pairs = at_least_float32(x).unflatten(0, (2, -1)).transpose(0, 1).flatten(1, 2)
                merged = self.mamba(pairs, interleaved_orders(height, width))
                return merged.unflatten(1, (2, -1)).transpose(0, 1).flatten(0, 1)
            sequences = interleaved_scan(at_least_float32(x).unflatten(1, (height, width)))
            return interleaved_merge(self.mamba(sequences), height, width).flatten(1, 2)

    def attend(self, x: Tensor, height: int, width: int) -> Tensor:
        """The local branch: (2B, H W, C) -> the same shape."""
        assert self.attn is not None
        pixels = x.unflatten(1, (height, width))
        if fuses_windows(pixels, self.attn.num_heads, self.window_size):
            return self.attn.on_image(pixels, self.window_size, self.shift_size).flatten(1, 2)
        return attend_in_windows(self.attn, pixels, self.window_size, self.shift_size, self.masks).flatten(1, 2)

    def dropped(self, branch: Tensor) -> Tensor:
        """Stochastic depth of a branch (2B, H W, C), per sample and frame."""
        return stochastic_depth(branch, self.drop_path, self.training)
