"""The colour space of CIDNet, without masks.

spandrel's copy writes through boolean masks, whose sizes a GPU would be waited for, and reads the exponent, which is trained,
as a number. Here both sides of each choice are computed, and the exponent stays where it is; values and gradients are the same.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor, nn


def choose_without_masks(net: nn.Module) -> None:
    """Replace both ways of CIDNet by those of this module."""
    colours: Any = net.trans
    colours.HVIT = types.MethodType(_to_hvi, colours)
    colours.PHVIT = types.MethodType(_from_hvi, colours)


_ALMOST_NOTHING = 1e-8
"""What CIDNet adds to divisors."""


def _sensitivity(value: Tensor, exponent: Tensor) -> Tensor:
    """How far colours of a brightness are spread, of the shape of `value`."""
    return ((value * 0.5 * torch.pi).sin() + _ALMOST_NOTHING).pow(exponent)


def _to_hvi(self: Any, img: Tensor) -> Tensor:
    """RGB (B, 3, H, W) -> HVI (B, 3, H, W).

    These are two coordinates of the hue, as far from the centre as saturation and brightness say, and the brightness.
    """
    red, green, blue = img.unbind(1)
    value, least = img.max(1).values, img.min(1).values
    spread = value - least
    divisor = spread + _ALMOST_NOTHING
    side = torch.where(green == value, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    side = torch.where(red == value, ((green - blue) / divisor) % 6, side)
    angle = torch.where(least == value, 0, side) * (torch.pi / 3)
    saturation = torch.where(value == 0, 0, spread / (value + _ALMOST_NOTHING))
    radius = _sensitivity(value, self.density_k) * saturation
    return torch.stack([radius * angle.cos(), radius * angle.sin(), value], 1)


def _from_hvi(self: Any, img: Tensor) -> Tensor:
    """Back to RGB (B, 3, H, W); the exponent is a constant here."""
    value = img[:, 2].clamp(0, 1)
    spread = _sensitivity(value, self.density_k.detach()) + _ALMOST_NOTHING
    across, along = (img[:, i].clamp(-1, 1).div(spread).clamp(-1, 1) for i in (0, 1))
    sides = (torch.atan2(along, across) / (2 * torch.pi) % 1) * 6
    saturation = (across.square() + along.square()).sqrt()
    saturation = (saturation * 1.3 if self.gated else saturation).clamp(0, 1)

    which = sides.floor()
    part = sides - which
    low, falling, rising = (value * (1 - share * saturation) for share in (1, part, 1 - part))
    channels = (
        (value, falling, low, low, rising, value),
        (rising, value, value, falling, low, low),
        (low, low, rising, value, value, falling),
    )
    made = []
    for by_side in channels:
        channel = torch.zeros_like(value)
        for side, level in enumerate(by_side):
            channel = torch.where(which == side, level, channel)
        made.append(channel)
    rgb = torch.stack(made, 1)
    return rgb * self.alpha if self.gated2 else rgb
