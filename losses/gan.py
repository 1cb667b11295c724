"""Adversarial losses: what a discriminator's predictions are worth to it, and to the generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.ops.precision import at_least_float32
from ..core.runtime import distributed
from . import LOSSES
from .common import checked_choice
from .pixel import CRITERIA, Criterion

GANType = Literal["vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"]
Prediction = Tensor | Sequence["Prediction"]
"""What a discriminator returns: logits of any shape, or of several scales, or of each scale features and at last logits."""


@LOSSES.register()
class GANLoss(nn.Module):
    """The adversarial objective, called ``loss(prediction, target_is_real, is_disc=False)`` with a discriminator's logits p.

    t is the label, `real_label_val` or `fake_label_val`. All are means over p.

    | `gan_type` | of logits p |
    |---|---|
    | ``vanilla`` | binary cross entropy of sigmoid(p) and t (Goodfellow et al., 2014) |
    | ``lsgan`` | (p - t)^2 (Mao et al., ICCV 2017) |
    | ``wgan`` | -p if real, p if fake (Arjovsky et al., 2017); it diverges without a penalty on the discriminator |
    | ``wgan_softplus`` | softplus(-p) if real, softplus(p) if fake (StyleGAN2) |
    | ``hinge`` | relu(1 - p) if real, relu(1 + p) if fake; to the generator -p, whatever `target_is_real` |

    Args:
        gan_type: objective, ``vanilla``, ``lsgan``, ``wgan``, ``wgan_softplus`` or ``hinge``.
        real_label_val: label t of real images, below 1 for one-sided label smoothing. The generator's calls see it, too.
        fake_label_val: label t of generated images.
        loss_weight: factor of the result when the generator is trained (``is_disc=False``); the discriminator's has none.

    Raises:
        UserError: the predictions are several tensors (`MultiScaleGANLoss` takes those).
    """

    of_discriminator: ClassVar[bool] = True

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

    def forward(self, prediction: Prediction, target_is_real: bool, is_disc: bool = False) -> Tensor:
        """The loss, a scalar, of logits of any shape.

        Raises:
            UserError: the discriminator gives several maps.
        """
        if not isinstance(prediction, Tensor):
            raise UserError("GANLoss: this discriminator gives several maps; use MultiScaleGANLoss")
        value = self.value(at_least_float32(prediction), target_is_real, is_disc)
        return value if is_disc else self.loss_weight * value

    def value(self, p: Tensor, real: bool, is_disc: bool) -> Tensor:
        """The mean of the table above over `p` of any shape, unweighted: a scalar."""
        if self.gan_type == "wgan":
            return -p.mean() if real else p.mean()
        if self.gan_type == "wgan_softplus":
            return F.softplus(-p if real else p).mean()
        if self.gan_type == "hinge":
            if not is_disc:
                return -p.mean()
            return F.relu(1 - p if real else 1 + p).mean()
        label = torch.full_like(p, self.real_label_val if real else self.fake_label_val)
        return F.mse_loss(p, label) if self.gan_type == "lsgan" else F.binary_cross_entropy_with_logits(p, label)


@LOSSES.register()
class MultiScaleGANLoss(GANLoss):
    """`GANLoss` averaged over the scales of a discriminator (pix2pixHD, Wang et al., CVPR 2018, which sums them).

    Of a scale that is itself a list the last tensor counts, the ones before being features. A single tensor is one scale.

    Args:
        gan_type: see `GANLoss`.
        real_label_val: see there.
        fake_label_val: see there.
        loss_weight: see there.
    """

    def forward(self, prediction: Prediction, target_is_real: bool, is_disc: bool = False) -> Tensor:
        values = [super(MultiScaleGANLoss, self).forward(p, target_is_real, is_disc) for p in logits(prediction)]
        return torch.stack(values).mean()


@LOSSES.register()
class GANFeatLoss(nn.Module):
    """Feature matching (pix2pixHD, Wang et al., CVPR 2018): distances of a discriminator's features of two images.

    Called with the discriminator's answers to the generated and the real image, each a list over scales of lists over layers,
    whose last entry, the logits, is left out: ``loss_weight * sum over scales and layers of distance / number of scales``.
    (BasicSR multiplied by the weight twice.) No gradient reaches the real one's.

    Args:
        criterion: distance of two layers' features: ``l1``, ``l2`` or ``charbonnier``.
        loss_weight: factor of the result.
        reduction: ``mean`` or ``sum`` over a layer.

    Raises:
        UserError: the discriminator returns no features.
    """

    of_discriminator: ClassVar[bool] = True

    def __init__(
        self, criterion: Criterion = "l1", loss_weight: float = 1.0, reduction: Literal["mean", "sum"] = "mean"
    ) -> None:
        super().__init__()
        checked_choice("GANFeatLoss", "criterion", criterion, Criterion)
        self.loss_weight = loss_weight
        self.criterion = CRITERIA[criterion](1.0, reduction)

    def forward(self, fake: Prediction, real: Prediction) -> Tensor:
        """The loss, a scalar, of the features of every scale's layers.

        Raises:
            UserError: the discriminator gives no features.
        """
        if isinstance(fake, Tensor) or isinstance(real, Tensor) or not all(isinstance(s, Sequence) for s in fake):
            raise UserError("GANFeatLoss: this discriminator returns no features; see its options")
        parts = [
            self.criterion(f, r.detach())
            for a, b in zip(fake, real, strict=True)
            for f, r in zip(a[:-1], b[:-1], strict=True)
        ]
        return self.loss_weight * torch.stack(parts).sum() / len(fake)


def logits(prediction: Prediction) -> list[Tensor]:
    """The logits of every scale of a discriminator's answer, which may be one tensor of any shape."""
    if isinstance(prediction, Tensor):
        return [prediction]
    return [scale if isinstance(scale, Tensor) else logits(scale)[-1] for scale in prediction]


def relativistic_g_loss(criterion: nn.Module, real_pred: Prediction, fake_pred: Prediction) -> Tensor:
    """The relativistic average loss of the generator (Jolicoeur-Martineau, ICLR 2019), as in ESRGAN.

    Half of each: real images should look fake beside the average generated one, and generated ones real beside the average
    real one.

    Args:
        criterion: a `GANLoss`.
        real_pred: the discriminator's logits of real images, of any shape; no gradient reaches them.
        fake_pred: the discriminator's logits of generated images, of the same shape.

    Returns:
        A scalar.
    """
    real = [r.detach() for r in logits(real_pred)]
    fake = logits(fake_pred)
    of_real = criterion(_beside(real, fake), False, is_disc=False)
    of_fake = criterion(_beside(fake, real), True, is_disc=False)
    return (of_real + of_fake) / 2


def relativistic_d_loss(criterion: nn.Module, pred: Prediction, other: Prediction, target_is_real: bool) -> Tensor:
    """One half of the relativistic average loss of the discriminator: `pred` beside the average of `other`.

    Args:
        criterion: a `GANLoss`.
        pred: logits of real or of generated images, of any shape.
        other: logits of the opposite kind, of the same shape; no gradient reaches them.
        target_is_real: whether `pred` belongs to real images.

    Returns:
        A scalar.
    """
    loss: Tensor = criterion(_beside(logits(pred), [o.detach() for o in logits(other)]), target_is_real, is_disc=True)
    return loss / 2


def _beside(preds: Sequence[Tensor], others: Sequence[Tensor]) -> Prediction:
    """Logits less the mean of the others' over the global batch, at each scale; one tensor where there is one scale."""
    shifted = [
        at_least_float32(p) - distributed.global_mean(at_least_float32(o).mean())
        for p, o in zip(preds, others, strict=True)
    ]
    return shifted[0] if len(shifted) == 1 else shifted
