"""The block of HybridVFI as its original computes it on a CPU, transcribed plainly: archs/vfi/blocks.py is measured against it.

Four sequences are copied out of both frames and back by stacking, turning and interleaving. Every sequence goes through all of
Mamba-2, whose convolution is ``nn.Conv1d``'s with padding on both sides, whose scan is mamba_ssm's ``ssd_minimal_discrete``,
and whose norm is written out. Windows that are shifted get a mask each, made anew in every call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
import torch.nn.functional as F
from reference_ssd import minimal
from torch import Tensor

from relume.archs.mamba2 import Mamba2
from relume.archs.vfi.attention import GatedWindowAttention
from relume.archs.vfi.blocks import LGSBlock

CHUNK = 256
"""The original's chunks."""


def scan(x: Tensor, height: int, width: int) -> Tensor:
    """(2B, H W, C) -> (4B, 2 H W, C): along rows, along columns, and both backwards, frames in turn."""
    first, second = x.transpose(1, 2).reshape(len(x), -1, height, width).contiguous().chunk(2)
    sequences = []
    for a, b in ((first, second), (first.transpose(2, 3).contiguous(), second.transpose(2, 3).contiguous())):
        pairs = torch.stack([a.flatten(2), b.flatten(2)], -1).flatten(2)  # (B, C, 2 H W)
        sequences += [pairs, pairs.flip(-1)]
    order = [sequences[0], sequences[2], sequences[1], sequences[3]]
    return torch.stack(order, 1).flatten(0, 1).transpose(1, 2).contiguous()


def merge(y: Tensor, height: int, width: int) -> Tensor:
    """The way back, summed: (4B, 2 H W, C) -> (2B, H W, C)."""
    y = y.transpose(1, 2).contiguous().unflatten(0, (-1, 4))
    rows, columns = y[:, 0] + y[:, 2].flip(-1), y[:, 1] + y[:, 3].flip(-1)
    frames = []
    for frame in (0, 1):
        along = rows[..., frame::2].contiguous()
        across = columns[..., frame::2].unflatten(-1, (width, height)).transpose(2, 3).contiguous().flatten(2)
        frames.append(along + across)
    return torch.cat(frames).transpose(1, 2).contiguous()


def mamba(layer: Mamba2, u: Tensor, chunk: int) -> Tensor:
    """Mamba-2 without kernels: (B, L, d_model) -> the same."""
    z, xBC, dt = layer.in_proj(u).split(layer.widths[2:], -1)
    dt = F.softplus(dt + layer.dt_bias)
    weight, taps = layer.conv1d.weight, layer.conv1d.weight.shape[2]
    convolved = F.conv1d(xBC.transpose(1, 2), weight, layer.conv1d.bias, padding=taps - 1, groups=len(weight))
    xBC = F.silu(convolved.transpose(1, 2)[:, : u.shape[1]])
    states = layer.ngroups * layer.d_state
    x, B, C = xBC.split([layer.d_ssm, states, states], -1)
    x = x.unflatten(-1, (-1, layer.headdim))
    heads, missing = x.shape[2], -u.shape[1] % chunk
    B, C = (t.unflatten(-1, (1, -1)).repeat(1, 1, heads, 1) for t in (B, C))
    given = (x * dt[..., None], dt * -layer.A_log.exp(), B, C)
    y = minimal(*(F.pad(t, (0, 0) * (t.dim() - 2) + (0, missing)) for t in given), chunk)[0][:, : u.shape[1]]
    y = (y + layer.D[:, None] * x).flatten(2) * F.silu(z)
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + layer.norm.eps) * layer.norm.weight
    return layer.out_proj(y)


def attend(attention: GatedWindowAttention, x: Tensor, size: int, shift: int) -> Tensor:
    """Gated attention in windows: (B, H, W, C) -> the same."""
    batch, height, width, channels = x.shape
    mask = None
    if shift:
        x = torch.roll(x, (-shift, -shift), (1, 2))
        regions, cuts = torch.zeros(1, height, width, 1), (slice(-size), slice(-size, -shift), slice(-shift, None))
        for number, (rows, columns) in enumerate((r, c) for r in cuts for c in cuts):
            regions[:, rows, columns] = number
        of_window = windows(regions, size).squeeze(-1)
        different = of_window[:, None] - of_window[:, :, None]
        mask = torch.zeros_like(different).masked_fill(different != 0, -100.0).repeat(batch, 1, 1)[:, None]
    parts = windows(x, size)
    q, k, v = attention.qkv(parts).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    y = y * torch.sigmoid(attention.gate(parts)).transpose(1, 2)[..., None]
    y = attention.proj(y.transpose(1, 2).flatten(2))
    y = y.view(batch, height // size, width // size, size, size, channels)
    y = y.permute(0, 1, 3, 2, 4, 5).contiguous().view(batch, height, width, channels)
    return torch.roll(y, (shift, shift), (1, 2)) if shift else y


def windows(x: Tensor, size: int) -> Tensor:
    """(B, H, W, C) -> (windows, size^2, C)."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // size, size, width // size, size, channels)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, size**2, channels)


def block(self: LGSBlock, x: Tensor, height: int, width: int, chunk: int) -> Tensor:
    """A hybrid block without dropped paths: (2B, H W, C) -> the same."""
    normed = self.norm1(x)
    scanned = merge(mamba(self.mamba, scan(normed, height, width), chunk), height, width)
    attended = attend(self.attn, normed.unflatten(1, (height, width)), self.window_size, self.shift_size).flatten(1, 2)
    maps = torch.cat([scanned, attended], -1).transpose(1, 2).reshape(len(x), -1, height, width)
    x = x + self.cab(self.fusion_conv(maps).flatten(2).transpose(1, 2))
    return x + self.mlp(self.norm2(x))


@contextlib.contextmanager
def plain(chunk: int = CHUNK) -> Iterator[None]:
    """Inside, blocks of HybridVFI are computed plainly."""
    with mock.patch.object(LGSBlock, "forward", lambda self, x, h, w: block(self, x, h, w, chunk)):
        yield
