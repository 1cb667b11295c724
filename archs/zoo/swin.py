"""SwinIR's blocks computed faster than spandrel's copy does, with the same weights, names and results."""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from torch import Tensor, nn

from ..vfi.attention import attend_in_windows, shift_masks


def treat_border_apart(net: nn.Module) -> None:
    """Add masks to the scores of those windows alone that have any, of images of every size.

    The copy adds a mask to all windows of a shifted image, mostly zeros, and makes it in every block anew for images of another
    size than the option ``img_size``. On the way, what is added to the scores is added once.
    """
    block: Any
    for block in net.modules():
        if type(block).__name__ == "SwinTransformerBlock":
            shift, size = block.shift_size, block.window_size
            masks = shift_masks(size, shift) if shift else None
            block.register_buffer("border_masks", masks, persistent=False)
            block.forward = types.MethodType(_block, block)


def _block(block: Any, x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H W, C) -> same."""
    if torch.compiler.is_compiling():  # an export's sizes need not be known, and so not whether there are inner windows
        result: Tensor = type(block).forward(block, x, size)
        return result
    y = block.norm1(x).view(len(x), *size, -1)
    attention = functools.partial(_attention, block.attn)
    y = attend_in_windows(attention, y, block.window_size, block.shift_size, block.border_masks)
    x = x + block.drop_path(y.flatten(1, 2))
    x = x + block.drop_path(block.mlp(block.norm2(x)))
    return x


def _attention(layer: Any, x: Tensor, mask: Tensor | None) -> Tensor:
    """Windows (K, N, C), and what is added to their scores, (N, N) or None -> (K, N, C).

    Not by ``scaled_dot_product_attention``, which on a CPU takes longer here: what is added to the scores has a gradient, and
    heads are narrow.
    """
    bias = layer.relative_position_bias_table[layer.relative_position_index].permute(2, 0, 1)
    bias = bias if mask is None else bias + mask
    q, k, v = layer.qkv(x).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
    scores = (q * layer.scale) @ k.transpose(-2, -1) + bias
    y = layer.attn_drop(scores.softmax(-1)) @ v
    projected: Tensor = layer.proj_drop(layer.proj(y.transpose(1, 2).flatten(2)))
    return projected
