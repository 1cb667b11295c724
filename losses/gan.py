"""Adversarial losses."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from . import LOSSES
from .common import checked_choice

GANType = Literal["vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"]


@LOSSES.register()
class GANLoss(nn.Module):
    """What a discriminator's verdict costs the discriminator, or the generator.

    Called as in BasicSR, ``loss(verdict, target_is_real, is_disc)``, and not as other losses are. With D the verdict
    before any sigmoid, averaged over everything:

    - ``vanilla``: binary cross-entropy of sigmoid(D) and the label (Goodfellow et al., 2014)
    - ``lsgan``: (D - label)^2 (Mao et al., 2017)
    - ``wgan``: -D for real, D for fake (Arjovsky et al., 2017)
    - ``wgan_softplus``: softplus(-D) for real, softplus(D) for fake (StyleGAN2's logistic loss)
    - ``hinge``: relu(1 - D) for real, relu(1 + D) for fake, and -D for the generator (Lim and Ye, 2017)

    Args:
        gan_type: one of the above.
        real_label_val: label of real images (vanilla, lsgan).
        fake_label_val: label of generated images (vanilla, lsgan).
        loss_weight: factor of the generator's loss; the discriminator's is never scaled.
    """

    def __init__(
        self,
        gan_type: GANType,
        real_label_val: float = 1.0,
        fake_label_val: float = 0.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.gan_type = checked_choice("GANLoss", "gan_type", gan_type, GANType)
        self.real_label_val = real_label_val
        self.fake_label_val = fake_label_val
        self.loss_weight = loss_weight

    def forward(self, verdict: Tensor, target_is_real: bool, is_disc: bool = False) -> Tensor:
        """The loss of `verdict`, any shape, if the truth (or the generator's wish) is `target_is_real`.

        Raises:
            UserError: called with two images, as a model without a discriminator calls its losses.
        """
        if not isinstance(target_is_real, bool):
            raise UserError("GANLoss judges a discriminator's output; this model_type has no discriminator")
        verdict = verdict.to(torch.promote_types(verdict.dtype, torch.float32))
        loss = self._loss(verdict, target_is_real, is_disc)
        return loss if is_disc else self.loss_weight * loss

    def _loss(self, verdict: Tensor, target_is_real: bool, is_disc: bool) -> Tensor:
        label = self.real_label_val if target_is_real else self.fake_label_val
        signed = -verdict if target_is_real else verdict
        if self.gan_type == "vanilla":
            return F.binary_cross_entropy_with_logits(verdict, torch.full_like(verdict, label))
        if self.gan_type == "lsgan":
            return (verdict - label).square().mean()
        if self.gan_type == "wgan_softplus":
            return F.softplus(signed).mean()
        if self.gan_type == "hinge" and is_disc:
            return F.relu(1 + signed).mean()
        if self.gan_type == "hinge":
            return -verdict.mean()
        return signed.mean()
