"""Filtering with small kernels, and the unsharp mask of Real-ESRGAN."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.filter_images import by_plane, filtered


def filter2D(img: Tensor, kernel: Tensor) -> Tensor:  # noqa: N802 - as BasicSR calls it
    """Correlate images with kernels, as ``cv2.filter2D`` does: the kernel is not flipped.

    Borders are reflected (without repeating the last line), or replicated where an image is too small for that.

    Args:
        img: (B, C, H, W), of any strides.
        kernel: (B or 1, k, k), k odd, one for each image or one for all; the same for all channels.

    Returns:
        (B, C, H, W).

    Raises:
        UserError: an even kernel.
    """
    return filtered(img, kernel.expand(len(img), -1, -1))


def gaussian_line(size: int, sigma: float) -> np.ndarray:
    """OpenCV's one-dimensional Gaussian, (size,) float64; a `sigma` of 0 follows from the size as OpenCV has it."""
    from ..imaging.opencv import cv2

    return np.asarray(cv2.getGaussianKernel(size, sigma))[:, 0]


class USMSharp(nn.Module):
    """Sharpening by an unsharp mask, where it is worth it.

    With b the blurred image and m the blurred mask of ``abs(x - b) > threshold / 255``:
    ``m clip(x + weight (x - b)) + (1 - m) x``.

    The Gaussian is separable, and taken so: at 51 pixels that is six times as fast as the square. In float32, also
    under autocast.

    Args:
        radius: side of the Gaussian, in pixels; made odd by adding 1.
        sigma: standard deviation of the blur; from the side when 0.
    """

    line: Tensor

    def __init__(self, radius: int = 50, sigma: float = 0) -> None:
        super().__init__()
        self.radius = radius + (radius % 2 == 0)
        line = torch.from_numpy(gaussian_line(self.radius, sigma)).float()
        self.register_buffer("line", line, persistent=False)

    def _blur(self, x: Tensor) -> Tensor:
        half = self.radius // 2
        x = F.pad(x, (half,) * 4, mode="reflect" if min(x.shape[-2:]) > half else "replicate")
        return by_plane(by_plane(x, self.line[None, :, None]), self.line[None, None])

    def forward(self, img: Tensor, weight: float = 0.5, threshold: float = 10) -> Tensor:
        """Sharpen (B, C, H, W) in [0, 1]; `threshold` in steps of 1/255."""
        with torch.autocast(img.device.type, enabled=False):
            img = img.float()
            residual = img - self._blur(img)
            soft = self._blur((residual.abs() * 255 > threshold).float())
            return soft * (img + weight * residual).clamp(0, 1) + (1 - soft) * img


def usm_sharp(img: np.ndarray, weight: float = 0.5, radius: int = 50, threshold: float = 10) -> np.ndarray:
    """`USMSharp` of one image (H, W, C), float32 in [0, 1], by OpenCV."""
    from ..imaging.opencv import cv2

    radius += radius % 2 == 0
    residual = img - cv2.GaussianBlur(img, (radius, radius), 0).reshape(img.shape)
    mask = (np.abs(residual) * 255 > threshold).astype(np.float32)
    soft = cv2.GaussianBlur(mask, (radius, radius), 0).reshape(img.shape)
    sharp = np.clip(img + weight * residual, 0, 1)
    return np.asarray(soft * sharp + (1 - soft) * img, np.float32)
