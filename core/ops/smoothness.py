"""How much optical flow changes from pixel to pixel, where the image does not."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..errors import UserError
from .dispatch import device_obstacle, use_kernel
from .self_test import case


def smoothness_sums(flow: Tensor, image: Tensor) -> Tensor:
    """Absolute differences of neighbouring flows times ``exp(-d)``, d being the mean over channels of the image's there.

    Args:
        flow: (B, K, H, W).
        image: (B, C, H, W).

    Returns:
        (B, 2): summed over each sample, between neighbours in a row, and in a column.

    Raises:
        UserError: the two differ in batch or size; kernels are forced on and cannot run.
    """
    if flow.dim() != 4 or image.dim() != 4 or (flow.shape[0], *flow.shape[2:]) != (image.shape[0], *image.shape[2:]):
        raise UserError(
            f"smoothness_sums: takes (B, K, H, W) and (B, C, H, W); they are {tuple(flow.shape)} and {tuple(image.shape)}"
        )
    if use_kernel("smoothness", functools.partial(_obstacle, flow, image), flow):
        from .smoothness_triton import fused

        sums: Tensor = fused(flow, image)
        return sums
    terms = []
    for dim in (-1, -2):
        edges = image.diff(dim=dim).abs().mean(1, keepdim=True)
        terms.append((torch.exp(-edges) * flow.diff(dim=dim).abs()).flatten(1).sum(1))
    return torch.stack(terms, 1)


@case("smoothness", (2, 2, 5, 7), sized=lambda side, width: ((1, 1, max(side**2, 2), width),))
def _case(flow: Tensor) -> Tensor:
    d = flow - flow.detach().flip(2, 3).roll(1, 3)  # whose differences have both signs
    return smoothness_sums(d, flow.detach().flip(3))


def _obstacle(flow: Tensor, image: Tensor) -> str | None:
    """Why the fused kernels cannot run, or None."""
    for name, t in {"flow": flow, "image": image}.items():
        if t.dtype != torch.float32:
            return f"it computes in float32, {name} is {str(t.dtype).removeprefix('torch.')}"
    if torch.is_grad_enabled() and image.requires_grad:
        return "it has no gradient of the image, which is asked for"
    return device_obstacle("smoothness", flow=flow, image=image)
