"""Losses in the frequency domain."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ..core.annotations import Count
from ..core.errors import UserError
from ..core.ops.precision import full_precision
from . import LOSSES
from .common import Reduction, checked_choice, comparable, reduced

Norm = Literal["backward", "ortho", "forward"]
Spectrum = Literal["half", "whole"]


@LOSSES.register()
class FFTLoss(nn.Module):
    """L1 distance of the real and imaginary parts of the images' spectra, over height and width.

    The mean runs over all real numbers of each image's spectrum. The half of it, 2 C H (W // 2 + 1) numbers, has the rest
    mirrored in it but for its first (and last) column, which counts as much as the others. The whole, 2 C H W numbers, is the
    term of MIMO-UNet (Cho et al., ICCV 2021), weighted 0.1 there; of the half, gradients differ by some 10 %.

    Args:
        loss_weight: factor of the result.
        reduction: ``mean``, ``sum``, or ``none`` for (B, C, H, W // 2 + 1, 2), or (B, C, H, W, 2) of the whole.
        spectrum: ``half``, the non-negative horizontal frequencies (``torch.fft.rfft2``), or ``whole`` (``torch.fft.fft2``).
        norm: ``backward`` does not scale, ``ortho`` divides by sqrt(H W), ``forward`` by H W.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        reduction: Reduction = "mean",
        norm: Norm = "backward",
        spectrum: Spectrum = "half",
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.reduction = checked_choice("FFTLoss", "reduction", reduction, Reduction)
        self.spectrum = checked_choice("FFTLoss", "spectrum", spectrum, Spectrum)
        self.norm = checked_choice("FFTLoss", "norm", norm, Norm)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = comparable("FFTLoss", pred, target)
        with full_precision(pred):
            transform = torch.fft.rfft2 if self.spectrum == "half" else torch.fft.fft2
            spectrum = transform(pred - target, norm=self.norm)  # of the difference: the transform is linear
            return self.loss_weight * reduced(torch.view_as_real(spectrum).abs(), self.reduction)


@LOSSES.register()
class FFLoss(nn.Module):
    """Focal frequency loss (Jiang et al., ICCV 2021), as in traiNNer-redux and neosr, which multiply it by 50.

    Squared distances of orthonormal spectra, each weighted with its own size: ``w |F - F'|^2`` with ``w = |F - F'|^alpha`` over
    the largest w of the image, patch and channel. No gradient flows through w.

    Args:
        loss_weight: factor of the result.
        alpha: exponent of the weight; 0 weighs all frequencies alike.
        patch_factor: images are cut into so many rows and columns of patches first.
        ave_spectrum: average spectra over the batch before they are compared.
        log_matrix: take log(1 + w).
        batch_matrix: divide by the largest w of the whole batch.

    Raises:
        UserError: sides of an image are no multiples of `patch_factor`.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        alpha: float = 1.0,
        patch_factor: Count = 1,
        ave_spectrum: bool = True,
        log_matrix: bool = False,
        batch_matrix: bool = False,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.alpha = alpha
        self.patch_factor = patch_factor
        self.ave_spectrum = ave_spectrum
        self.log_matrix = log_matrix
        self.batch_matrix = batch_matrix

    def spectra(self, image: Tensor) -> Tensor:
        """Spectra of the patches of an image (B, C, H, W): complex (B, patches, C, h, w).

        Raises:
            UserError: the image cannot be cut into such patches.
        """
        n = self.patch_factor
        height, width = image.shape[-2:]
        if height % n or width % n:
            raise UserError(f"FFLoss: images of {height}x{width} pixels cannot be cut by patch_factor {n}")
        patches = image.unflatten(-1, (n, width // n)).unflatten(-3, (n, height // n))  # (B, C, n, h, n, w)
        spectra = torch.fft.fft2(patches.permute(0, 2, 4, 1, 3, 5).flatten(1, 2), norm="ortho")
        return spectra.mean(0, keepdim=True) if self.ave_spectrum else spectra

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar, of two images (B, C, H, W)."""
        pred, target = comparable("FFLoss", pred, target)
        with full_precision(pred):
            difference = torch.view_as_real(self.spectra(pred) - self.spectra(target))
            squared = difference.square().sum(-1)
            loss = 50 * (self.weights(squared.detach()) * squared).mean()
        return self.loss_weight * loss

    def weights(self, squared: Tensor) -> Tensor:
        """The weight of each frequency, in [0, 1], of the shape of the squared distances."""
        w = squared.sqrt().pow(self.alpha)
        w = w.log1p() if self.log_matrix else w
        largest = w.max() if self.batch_matrix else w.amax((-2, -1), keepdim=True)
        return (w / largest).nan_to_num(0.0).clamp(0.0, 1.0)
