"""How far a network looks: whether tiles can give what the whole picture gives, and with how much around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .network import network_trait

STEP = 1 / 255
"""Difference that a reader of 8-bit pictures may see."""
CONTEXTS = (4, 8, 16, 32, 64)
"""Pixels around a tile that are tried."""
FARTHEST = 112
"""Pixels around, which stand for the whole picture."""
INNER = 32
"""Side of what is compared."""


class Locality(NamedTuple):
    """What tiles of a network cost.

    Attributes:
        overlap: overlap of neighbouring tiles.
        difference: the largest that was found with it, in [0, 1].
    """

    overlap: int
    difference: float


def sees_whole(network: nn.Module) -> str:
    """What makes a network's answer depend on the whole picture, wherever one looks; empty if nothing is known to.

    That is what the network says of itself (`NetworkTraits.sees_whole`), and layers of torch that take statistics over all
    pixels.
    """
    said: str = network_trait(network, "sees_whole")
    if said:
        return said
    for layer in network.modules():
        if isinstance(layer, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)) and layer.output_size in (1, (1, 1)):
            return "global pooling"
        if isinstance(layer, (nn.InstanceNorm2d, nn.GroupNorm)) and not getattr(layer, "track_running_stats", False):
            return "normalisation by statistics of the whole picture"
    return ""


@torch.no_grad()
def measure(
    fn: Callable[[Tensor], Tensor], picture: Tensor, multiple: int, most: int = 2 * FARTHEST + INNER
) -> Locality:
    """The least overlap with which tiles of this picture are as the whole, within a quarter of a step of 255; else 64.

    The middle of the picture is computed with more and more around it, and compared with itself with much around.

    Args:
        fn: function from (B, C, h, w) to an image whose size is a multiple of that.
        picture: (B, C, H, W).
        multiple: what `fn` needs sizes to be a multiple of.
        most: side of what memory holds.
    """
    inner = -(-min(INNER, max(most // 2, 1)) // multiple) * multiple
    corners = [max((n - inner) // 2 // multiple * multiple, 0) for n in picture.shape[-2:]]

    def seen(context: int) -> Tensor:
        around = -(-context // multiple) * multiple
        begins = [max(c - around, 0) for c in corners]
        ends = [
            b + max((min(c + inner + around, n) - b) // multiple, 1) * multiple
            for c, b, n in zip(corners, begins, picture.shape[-2:], strict=True)
        ]
        piece = picture[:1, :, begins[0] : ends[0], begins[1] : ends[1]]
        made = fn(piece)
        scale = made.shape[-1] // piece.shape[-1]
        top, left = ((c - b) * scale for c, b in zip(corners, begins, strict=True))
        return made[..., top : top + inner * scale, left : left + inner * scale]

    farthest = max(min(FARTHEST, (most - inner) // 2), 2)
    whole = seen(farthest)
    difference = 0.0
    for context in [c for c in CONTEXTS if c < farthest] or [farthest // 2]:
        difference = float((seen(context) - whole).abs().max())
        if difference <= STEP / 4:
            return Locality(2 * context, difference)
    return Locality(2 * CONTEXTS[-2], difference)
