"""Losses on optical flow."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.ops.precision import full_precision
from ..core.ops.smoothness import smoothness_sums
from . import LOSSES
from .base import LossTraits
from .common import comparable


@LOSSES.register()
class FlowSmoothnessLoss(LossTraits, nn.Module):
    """Flow that changes only where the image does: mean of exp(-|dI/dx|) |dF/dx| plus the same along y.

    Differences are between neighbours; that of the image is the mean over its channels of absolute values.

    Args:
        loss_weight: factor of the result.

    Raises:
        UserError: flow and image of different batch or size, or a side of 1 pixel.
    """

    looks_at_flow = True

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, flow: Tensor, image: Tensor) -> Tensor:
        """The loss.

        Args:
            flow: (B, 2 n, H, W) in pixels; n flows count alike.
            image: (B, C, H, W) in [0, 1].

        Raises:
            UserError: flow and image differ in size, or are too small.
        """
        if flow.shape[0] != image.shape[0] or flow.shape[-2:] != image.shape[-2:] or min(flow.shape[-2:]) < 2:
            raise UserError(
                f"FlowSmoothnessLoss: flow {tuple(flow.shape)} and image {tuple(image.shape)} must have the same batch and "
                "size, of at least 2x2 pixels"
            )
        dtype = torch.promote_types(flow.dtype, torch.float32)
        flow, image = flow.to(dtype), image.to(dtype)
        batch, flows, height, width = flow.shape
        with full_precision(flow):
            across, along = smoothness_sums(flow, image).sum(0)
            means = across / (batch * flows * height * (width - 1)) + along / (batch * flows * (height - 1) * width)
            return self.loss_weight * means


@LOSSES.register()
class EndpointErrorLoss(LossTraits, nn.Module):
    """Average endpoint error: mean distance, in pixels, between estimated and true displacements (Baker et al., IJCV 2011).

    For training sets that know their flow. It reaches where photometric losses do not: those have no slope towards a match that
    is further away than the image is smooth.

    Args:
        loss_weight: factor of the result.

    Raises:
        UserError: flows of different shapes, or an odd number of channels.
    """

    looks_at_flow = True
    wants_true_flow = True

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, flow: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar; both (B, 2 n, H, W) in pixels, n flows that count alike.

        Raises:
            UserError: the number of channels is odd.
        """
        flow, target = comparable("EndpointErrorLoss", flow, target)
        if flow.shape[1] % 2:
            raise UserError(f"EndpointErrorLoss: flows have two channels each; there are {flow.shape[1]}")
        return self.loss_weight * (flow - target).unflatten(1, (-1, 2)).norm(dim=2).mean()
