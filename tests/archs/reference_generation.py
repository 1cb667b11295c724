"""The U-Nets of score-based generation written out as functions of a state dict, slowly and without the architecture's code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ROOT = math.sqrt(0.5)
Weights = Mapping[str, Tensor]


def norm(p: Weights, name: str, x: Tensor) -> Tensor:
    """Group norm with min(32, channels // 4) groups, by its definition."""
    channels = x.shape[1]
    grouped = x.reshape(len(x), min(32, channels // 4), -1)
    centred = grouped - grouped.mean(2, keepdim=True)
    y = (centred / (centred.square().mean(2, keepdim=True) + 1e-6).sqrt()).reshape(x.shape)
    return y * p[f"{name}.weight"].view(-1, 1, 1) + p[f"{name}.bias"].view(-1, 1, 1)


def shrink(x: Tensor, taps: Sequence[int], padded: bool = False) -> Tensor:
    """Filter rows and columns, and keep every second sample: each output is a weighted mean of its surroundings."""
    weights = torch.tensor(taps, dtype=x.dtype) / sum(taps)
    reach = 0 if padded else len(taps) // 2 - 1
    for dim in (2, 3):
        padding = [0, 0, reach, reach] if dim == 2 else [reach, reach, 0, 0]
        windows = F.pad(x, padding).unfold(dim, len(taps), 2)
        x = windows @ weights
    return x


def enlarge(x: Tensor, taps: Sequence[int]) -> Tensor:
    """The adjoint of `shrink`, times 4."""
    big = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3], dtype=x.dtype, requires_grad=True)
    (adjoint,) = torch.autograd.grad(shrink(big, taps), big, 4 * x, create_graph=True)
    return adjoint


def block(p: Weights, name: str, x: Tensor, emb: Tensor, taps: Sequence[int], resize: str = "") -> Tensor:
    """Residual block; attention where it has weights for it."""
    change = {"": lambda y: y, "up": lambda y: enlarge(y, taps), "down": lambda y: shrink(y, taps)}[resize]
    h = F.conv2d(
        change(F.silu(norm(p, f"{name}.norm0", x))), p[f"{name}.conv0.weight"], p[f"{name}.conv0.bias"], padding=1
    )
    h = h + (emb @ p[f"{name}.affine.weight"].t() + p[f"{name}.affine.bias"])[:, :, None, None]
    h = F.conv2d(F.silu(norm(p, f"{name}.norm1", h)), p[f"{name}.conv1.weight"], p[f"{name}.conv1.bias"], padding=1)
    skip = change(x)
    if f"{name}.skip.weight" in p:
        skip = F.conv2d(skip, p[f"{name}.skip.weight"], p[f"{name}.skip.bias"])
    y = ROOT * (h + skip)
    if f"{name}.qkv.weight" not in p:
        return y
    qkv = F.conv2d(norm(p, f"{name}.norm2", y), p[f"{name}.qkv.weight"], p[f"{name}.qkv.bias"]).flatten(2)
    q, k, v = qkv[:, ::3], qkv[:, 1::3], qkv[:, 2::3]
    attended = v @ torch.softmax(q.transpose(1, 2) @ k / math.sqrt(q.shape[1]), 2).transpose(1, 2)
    return ROOT * (F.conv2d(attended.reshape(y.shape), p[f"{name}.proj.weight"], p[f"{name}.proj.bias"]) + y)


def embedding(p: Weights, c_noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
    """Of the noise level, classes and augmentations."""
    if "map_noise.freqs" in p:
        angles = 2 * math.pi * torch.outer(c_noise, p["map_noise.freqs"])
    else:
        half = p["map_layer0.weight"].shape[1] // 2
        angles = torch.outer(c_noise, 1e-4 ** (torch.arange(half, dtype=c_noise.dtype) / (half - 1)))
    e = torch.cat([angles.sin(), angles.cos()], 1)
    if labels is not None:
        e = e + math.sqrt(labels.shape[1]) * labels @ p["map_label.weight"].t() + p["map_label.bias"]
    if augment is not None:
        e = e + augment @ p["map_augment.weight"].t()
    for layer in ("map_layer0", "map_layer1"):
        e = F.silu(e @ p[f"{layer}.weight"].t() + p[f"{layer}.bias"])
    return e


def unet(
    p: Weights, x: Tensor, c_noise: Tensor, labels: Tensor | None, augment: Tensor | None, o: Mapping[str, Any]
) -> Tensor:
    """F(x, c_noise) of a `SongUNet` with options `o`, all written out."""
    taps, count, levels = o["resample_filter"], o["num_blocks"], len(o["channel_mult"])
    encoder, decoder = o["encoder_type"], o["decoder_type"]
    emb = embedding(p, c_noise, labels, augment)
    sizes = [o["img_resolution"] >> level for level in range(levels)]
    names = [f"{s}x{s}" for s in sizes]
    image, maps = x, []
    for level, name in enumerate(names):
        if level == 0:
            x = F.conv2d(x, p[f"enc.{name}_conv.weight"], p[f"enc.{name}_conv.bias"], padding=1)
        else:
            x = block(p, f"enc.{name}_down", x, emb, taps, "down")
            if encoder == "skip":
                image = shrink(image, taps)
                x = x + F.conv2d(image, p[f"enc.{name}_aux_skip.weight"], p[f"enc.{name}_aux_skip.bias"])
            if encoder == "residual":
                kernel = f"enc.{name}_aux_residual"
                wide = F.conv2d(image, p[f"{kernel}.weight"], p[f"{kernel}.bias"], padding=len(taps) // 2)
                x = image = ROOT * (x + shrink(wide, taps, padded=True))
        maps.append(x)
        for i in range(count):
            x = block(p, f"enc.{name}_block{i}", x, emb, taps)
            maps.append(x)
    picture = None
    for level in reversed(range(levels)):
        name = names[level]
        if level == levels - 1:
            x = block(p, f"dec.{name}_in1", block(p, f"dec.{name}_in0", x, emb, taps), emb, taps)
        else:
            x = block(p, f"dec.{name}_up", x, emb, taps, "up")
        for i in range(count + 1):
            x = block(p, f"dec.{name}_block{i}", torch.cat([x, maps.pop()], 1), emb, taps)
        if decoder == "skip" or level == 0:
            picture = enlarge(picture, taps) if picture is not None else None
            y = F.silu(norm(p, f"dec.{name}_aux_norm", x))
            y = F.conv2d(y, p[f"dec.{name}_aux_conv.weight"], p[f"dec.{name}_aux_conv.bias"], padding=1)
            picture = y if picture is None else picture + y
    assert picture is not None and not maps
    return picture
