"""Penalties on the gradients of discriminators and generators, as functions of their outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..core.ops.precision import at_least_float32
from .gan import Prediction, logits


def summed(prediction: Prediction) -> Tensor:
    """The sum of all logits of a discriminator's answer, a scalar."""
    return torch.stack([at_least_float32(p).sum() for p in logits(prediction)]).sum()


def r1_penalty(real_pred: Prediction, real_img: Tensor) -> Tensor:
    """R1 (Mescheder et al., ICML 2018): squared norm of the gradient of the logits at real images, averaged over the batch.

    Args:
        real_pred: the discriminator's logits of `real_img`.
        real_img: (B, C, H, W), which required a gradient when it was given to the discriminator.
    """
    (gradient,) = torch.autograd.grad(summed(real_pred), real_img, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def gradient_penalty_loss(
    discriminator: Callable[[Tensor], Prediction],
    real: Tensor,
    fake: Tensor,
    weight: Tensor | None = None,
    alpha: Tensor | None = None,
    per: Literal["pixel", "sample"] = "pixel",
) -> Tensor:
    """Deviation from 1 of the norm of the discriminator's gradient between real and generated images, squared.

    WGAN-GP (Gulrajani et al., NeurIPS 2017) takes the norm over each sample; BasicSR, and this function unless `per` says
    otherwise, over the channels of each pixel.

    Args:
        discriminator: network, called once, in the mode that it is in.
        real: (B, C, H, W).
        fake: the same shape.
        weight: (B, 1 or C, H, W), factor of the gradient; the result is divided by its mean.
        alpha: (B, 1, 1, 1), the share of `real` in the point looked at; uniform from torch's global generator when None.
        per: what a norm is taken over.
    """
    if alpha is None:
        alpha = torch.rand(len(real), 1, 1, 1).to(real)
    point = (alpha * real + (1 - alpha) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(summed(discriminator(point)), point, create_graph=True)
    gradient = gradient if weight is None else gradient * weight
    norm = torch.linalg.vector_norm(gradient if per == "pixel" else gradient.flatten(1), dim=1)
    penalty = (norm - 1).square().mean()
    return penalty if weight is None else penalty / weight.mean()


def g_path_regularize(
    fake: Tensor, latents: Tensor, mean_path_length: Tensor | float, decay: float = 0.01, noise: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """StyleGAN2's path length regularisation (Karras et al., CVPR 2020).

    Args:
        fake: generated images (B, C, H, W), made from `latents`.
        latents: (B, styles, D), requiring a gradient.
        mean_path_length: running mean of the path length.
        decay: how fast that follows.
        noise: standard normal, of the shape of `fake`; from torch's global generator when None.

    Returns:
        The penalty, the mean length of this batch, and the new running mean; the last two without gradient.
    """
    noise = torch.randn_like(fake) if noise is None else noise
    height, width = fake.shape[-2:]
    (gradient,) = torch.autograd.grad((fake * noise / math.sqrt(height * width)).sum(), latents, create_graph=True)
    lengths = gradient.square().sum(2).mean(1).sqrt()
    # BasicSR leaves the new mean in the graph of the penalty.
    running = mean_path_length + decay * (lengths.mean() - mean_path_length)
    return (lengths - running).square().mean(), lengths.mean().detach(), running.detach()
