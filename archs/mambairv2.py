"""MambaIRv2: attention in windows, and one scan of the pixels in the order of what they are.

Guo, Guo, Zha, Zhang, Li, Dai, Xia, Li, "MambaIRv2: Attentive State Space Restoration", CVPR 2025. Parameter names are the
original's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.annotations import Count, Positive
from ..core.errors import UserError
from ..core.ops.pixelwise import channels, pixels
from . import ARCHS
from .blocks import pad_symmetric
from .sequence_sr import Connection, SequenceSR, Upsampler, need_heads, residual_conv
from .state_space_2d import ScanParameters
from .vfi.attention import attend_in_windows, shift_masks

Route = Literal["sample", "argmax"]


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias for each offset between pixels (Swin, ICCV 2021, eq. 4)."""

    def __init__(self, dim: int, window_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.proj = nn.Linear(dim, dim)

    def forward(self, qkv: Tensor, index: Tensor, mask: Tensor | None) -> Tensor:
        """Windows (K, N, 3 C), the place of each pair in the table (N, N), and what is added to scores -> (K, N, C)."""
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[index].permute(2, 0, 1).to(q.dtype)
        bias = bias if mask is None else bias + mask.to(q.dtype)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.contiguous())
        return self.proj(y.transpose(1, 2).flatten(2))


class DepthwiseConv(nn.Module):
    """GELU of a depthwise convolution, under the original's name. (B, H, W, C) -> same."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        conv = nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2, groups=width)
        self.depthwise_conv = nn.Sequential(conv, nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return pixels(self.depthwise_conv(channels(x)))


class ConvFFN(nn.Module):
    """Two linear layers, and a convolution between them, beside its input. (B, H, W, C) -> same.

    Training leaves out the share `drop` of what goes into and out of the second layer.
    """

    def __init__(self, dim: int, hidden: int, kernel_size: int, drop: float = 0.0) -> None:
        super().__init__()
        self.drop = drop
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = DepthwiseConv(hidden, kernel_size)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.fc1(x))
        x = F.dropout(x + self.dwconv(x), self.drop, self.training)
        return F.dropout(self.fc2(x), self.drop, self.training)


class SpatialGate(nn.Module):
    """One half of the channels times a depthwise 5 x 5 convolution of the other. (B, H, W, 2 C) -> (B, H, W, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv2d(width, width, 5, padding=2, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return first * pixels(self.conv(channels(self.norm(second))))


class GatedMLP(nn.Module):
    """Two linear layers with a `SpatialGate` between. (B, H, W, C) -> same. An odd `hidden` is refused."""

    def __init__(self, dim: int, hidden: int, kernel_size: int) -> None:
        super().__init__()
        if hidden % 2:
            raise UserError(f"MambaIRv2Light: embed_dim times mlp_ratio must be even; it is {hidden}")
        self.fc1 = nn.Linear(dim, hidden)
        self.sg = SpatialGate(hidden // 2)
        self.fc2 = nn.Linear(hidden // 2, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.sg(F.gelu(self.fc1(x))))


class AttentiveStateSpace(nn.Module):
    """One scan through all pixels, sorted by the prompt that each is routed to (section 3.3). (B, H, W, dim) -> same.

    The prompts are added to C in the pixels' own order and not in the sorted one, as the published weights were trained.

    Args:
        dim: channels.
        d_state: states of a channel.
        num_tokens: prompts.
        inner_rank: rank of the prompts' matrix.
        mlp_ratio: channels inside over `dim`.
        route: way in which a prompt is chosen, see `MambaIRv2`.
    """

    def __init__(
        self, dim: int, d_state: int, num_tokens: int, inner_rank: int, mlp_ratio: float, route: Route
    ) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.sampled = route == "sample"
        self.in_proj = nn.Sequential(nn.Conv2d(dim, hidden, 1))
        self.CPE = nn.Sequential(nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden))
        self.selectiveScan = ScanParameters(1, hidden, d_state, math.ceil(hidden / 16))
        self.out_norm = nn.LayerNorm(hidden)
        self.out_proj = nn.Linear(hidden, dim)
        self.embeddingB = nn.Embedding(num_tokens, inner_rank)
        nn.init.uniform_(self.embeddingB.weight, -1 / num_tokens, 1 / num_tokens)
        self.route = nn.Sequential(nn.Linear(dim, dim // 3), nn.GELU(), nn.Linear(dim // 3, num_tokens))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, H, W, dim), and the prompts' matrix `embedding` (inner_rank, d_state), -> (B, H, W, dim)."""
        size = x.shape[1:3]
        policy = self.policy(x.flatten(1, 2))
        prompt = policy @ (self.embeddingB.weight @ embedding)
        order = policy.detach().argmax(-1).sort(stable=True).indices
        inside = self.in_proj(channels(x))
        tokens = pixels(inside * torch.sigmoid(self.CPE(inside))).flatten(1, 2)
        tokens = taken(tokens, order)
        low = F.linear(tokens, self.selectiveScan.x_proj_weight[0])
        y = self.selectiveScan.scan(
            tokens.transpose(1, 2).contiguous()[:, None], low.transpose(1, 2)[:, None], prompt.transpose(1, 2)[:, None]
        )
        y = self.out_proj(self.out_norm(y[:, 0].transpose(1, 2)))
        back = torch.empty_like(order).scatter_(
            1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
        )
        return taken(y, back).unflatten(1, size)

    def policy(self, x: Tensor) -> Tensor:
        """One-hot rows, (B, L, num_tokens), through which gradients pass as through their probabilities."""
        logits = self.route(x).log_softmax(-1)
        if self.sampled:
            return F.gumbel_softmax(logits, hard=True, dim=-1)
        soft = logits.softmax(-1)
        hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
        return hard - soft.detach() + soft


def taken(x: Tensor, order: Tensor) -> Tensor:
    """(B, L, C) in another order (B, L) of each sample's L."""
    return x.gather(1, order[..., None].expand(-1, -1, x.shape[-1]))


class AttentiveLayer(nn.Module):
    """Attention in windows, then a scan, each with a feed-forward network (figure 3). (B, H, W, dim) -> same."""

    def __init__(
        self,
        dim: int,
        heads: int,
        window_size: int,
        shift: int,
        bias: bool,
        inner_rank: int,
        feed_forward: Callable[[], nn.Module],
        scan: AttentiveStateSpace,
    ) -> None:
        super().__init__()
        self.window_size, self.shift = window_size, shift
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(dim) for _ in range(4))
        self.scale1, self.scale2 = (nn.Parameter(1e-4 * torch.ones(dim)) for _ in range(2))
        self.wqkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.win_mhsa = WindowAttention(dim, window_size, heads)
        self.assm = scan
        self.convffn1, self.convffn2 = feed_forward(), feed_forward()
        d_state = scan.selectiveScan.split[1]
        self.embeddingA = nn.Embedding(inner_rank, d_state)
        nn.init.uniform_(self.embeddingA.weight, -1 / inner_rank, 1 / inner_rank)
        self.masks: Tensor | None
        self.register_buffer("masks", shift_masks(window_size, shift) if shift else None, persistent=False)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        def attention(windows: Tensor, mask: Tensor | None) -> Tensor:
            return self.win_mhsa(self.wqkv(windows), index, mask)

        y = attend_in_windows(attention, self.norm1(x), self.window_size, self.shift, self.masks) + x
        y = self.convffn1(self.norm2(y)) + y
        x = x * self.scale1 + y
        y = self.assm(self.norm3(x), self.embeddingA.weight) + x
        y = y + self.convffn2(self.norm4(y))
        return x * self.scale2 + y


class Layers(nn.Module):
    """Layers one after the other, under the original's name."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape; `index` (N, N) numbers the offset of each pair of a window's N pixels."""
        for layer in self.layers:
            x = layer(x, index)
        return x


class AttentiveGroup(nn.Module):
    """Layers and a convolution, beside their input. (B, H, W, C) -> same."""

    def __init__(self, dim: int, layers: Sequence[nn.Module], kind: Connection) -> None:
        super().__init__()
        self.residual_group = Layers(layers)
        self.conv = residual_conv(dim, kind)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return x + pixels(self.conv(channels(self.residual_group(x, index))))


def pair_index(size: int) -> Tensor:
    """For each two pixels of a window the place of their offset in a table of all, (N, N)."""
    row, column = torch.arange(size).repeat_interleave(size), torch.arange(size).repeat(size)
    down, right = row[:, None] - row + size - 1, column[:, None] - column + size - 1
    return down * (2 * size - 1) + right


@ARCHS.register()
class MambaIRv2(SequenceSR):
    """(B, in_chans, H, W) in [0, 1] -> (B, in_chans, upscale H, upscale W), not clamped; any size.

    Loads the original's weights.

    Each layer draws which prompt a pixel is routed to, in evaluation too, as published figures were made: two calls differ
    unless torch's generator is seeded before. Validation and tests seed it for each picture.

    Args:
        img_size: side that ``ape`` fixes; no influence otherwise.
        patch_size: accepted; no influence.
        in_chans: channels of the image.
        embed_dim: channels inside.
        d_state: states of a channel in the scan.
        depths: layers of each group.
        num_heads: attention heads of the layers of each group.
        window_size: side of the windows; images are extended to a multiple of it by their mirror image.
        inner_rank: rank of the prompts' matrix.
        num_tokens: prompts.
        convffn_kernel_size: kernel size of the convolution inside feed-forward networks; odd.
        mlp_ratio: channels inside a scan and a feed-forward network over `embed_dim`.
        qkv_bias: whether queries, keys and values have a bias.
        ape: a learned value for each pixel and channel, which allows one size of image only (after extension: `img_size`).
        patch_norm: normalise pixels before the first layer.
        use_checkpoint: accepted; no influence, as in the original.
        upscale: enlargement.
        img_range: the insides see values this much larger than the input.
        upsampler: ``pixelshuffle``, ``pixelshuffledirect``, ``nearest+conv`` (by 4), or '' for an image of the same size.
        resi_connection: one convolution after each group, or three.
        route: ``sample``, or ``argmax`` for the likeliest prompt, without noise, in training and evaluation.

    Raises:
        UserError: settings that do not go together.
    """

    draws_in_evaluation = True
    feed_forward: type[nn.Module] = ConvFFN

    def __init__(
        self,
        img_size: Count = 64,
        patch_size: int = 1,
        in_chans: Count = 3,
        embed_dim: Count = 48,
        d_state: Count = 8,
        depths: Sequence[int] = (6, 6, 6, 6),
        num_heads: Sequence[int] = (4, 4, 4, 4),
        window_size: Count = 16,
        inner_rank: Count = 32,
        num_tokens: Count = 64,
        convffn_kernel_size: Count = 5,
        mlp_ratio: Positive = 2.0,
        qkv_bias: bool = True,
        ape: bool = False,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: Count = 2,
        img_range: Positive = 1.0,
        upsampler: Upsampler = "",
        resi_connection: Connection = "1conv",
        route: Route = "sample",
    ) -> None:
        super().__init__(in_chans, embed_dim, patch_norm, upscale, img_range, upsampler, resi_connection)
        name = type(self).__name__
        # Options that do not go together.
        if route not in ("sample", "argmax"):
            raise UserError(f"{name}: route must be sample or argmax, not '{route}'")
        need_heads(name, embed_dim, depths, num_heads)
        if convffn_kernel_size % 2 == 0:
            raise UserError(f"{name}: convffn_kernel_size must be odd; it is {convffn_kernel_size}")
        if embed_dim < 3 or int(embed_dim * mlp_ratio) < 1:
            raise UserError(f"{name}: embed_dim {embed_dim} with mlp_ratio {mlp_ratio} leaves no channel inside")
        self.draws_in_evaluation = route == "sample"
        self.window_size = window_size
        self.relative_position_index_SA: Tensor
        self.register_buffer("relative_position_index_SA", pair_index(window_size))
        if ape:
            self.learn_positions(img_size, embed_dim)
        # Groups of layers; every other layer shifts its windows by half their side.
        hidden = int(embed_dim * mlp_ratio)
        for depth, heads in zip(depths, num_heads, strict=True):
            layers = [
                AttentiveLayer(
                    embed_dim,
                    heads,
                    window_size,
                    window_size // 2 if j % 2 else 0,
                    qkv_bias,
                    inner_rank,
                    lambda: self.feed_forward(embed_dim, hidden, convffn_kernel_size),
                    AttentiveStateSpace(embed_dim, d_state, num_tokens, inner_rank, mlp_ratio, route),
                )
                for j in range(depth)
            ]
            self.layers.append(AttentiveGroup(embed_dim, layers, resi_connection))
        self.init_weights()

    def layered(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, self.relative_position_index_SA)
        return x

    def forward(self, image: Tensor) -> Tensor:
        height, width = (n * self.scale for n in image.shape[-2:])
        return super().forward(pad_symmetric(image, self.window_size))[..., :height, :width]


@ARCHS.register()
class MambaIRv2Light(MambaIRv2):
    """MambaIRv2 with gated feed-forward networks, for small widths; see there for everything.

    Args:
        convffn_kernel_size: accepted; no influence.
    """

    feed_forward = GatedMLP
