"""``basicsr.data.degradations``, from numpy's global generator, which is seeded for every sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...degradations.kernels import (
    bivariate_Gaussian,
    bivariate_generalized_Gaussian,
    bivariate_plateau,
    circular_lowpass_kernel,
    random_mixed_kernels,
)
from ...imaging.opencv import cv2

__all__ = [
    "add_gaussian_noise",
    "add_jpg_compression",
    "add_poisson_noise",
    "bivariate_Gaussian",
    "bivariate_generalized_Gaussian",
    "bivariate_plateau",
    "circular_lowpass_kernel",
    "random_add_gaussian_noise",
    "random_add_gaussian_noise_pt",
    "random_add_jpg_compression",
    "random_add_poisson_noise",
    "random_add_poisson_noise_pt",
    "random_mixed_kernels",
]

Range = tuple[float, float]


def _rounded(image: Any, clip: bool, rounds: bool) -> Any:
    if rounds:
        scaled = (image * 255.0).round()
        image = (scaled.clip(0, 255) if clip else scaled) / 255.0
    elif clip:
        image = image.clip(0, 1)
    return image.astype(np.float32) if isinstance(image, np.ndarray) else image


def add_gaussian_noise(
    img: np.ndarray, sigma: float = 10, clip: bool = True, rounds: bool = False, gray_noise: bool = False
) -> np.ndarray:
    """An image (H, W, C) in [0, 1] with noise of `sigma` / 255."""
    shape = img.shape[:2] if gray_noise else img.shape
    noise = np.random.randn(*shape).astype(np.float32) * sigma / 255.0
    return np.asarray(_rounded(img + (noise[..., None] if gray_noise else noise), clip, rounds))


def random_add_gaussian_noise(
    img: np.ndarray, sigma_range: Range = (0, 1.0), gray_prob: float = 0, clip: bool = True, rounds: bool = False
) -> np.ndarray:
    """As `add_gaussian_noise`, with a sigma from a range."""
    sigma = np.random.uniform(*sigma_range)
    return add_gaussian_noise(img, sigma, clip, rounds, np.random.uniform() < gray_prob)


def add_poisson_noise(
    img: np.ndarray, scale: float = 1.0, clip: bool = True, rounds: bool = False, gray_noise: bool = False
) -> np.ndarray:
    """An image (H, W, 3), BGR in [0, 1], with shot noise times `scale`."""
    image = cv2.cvtColor(img, cv2.COLOR_BGR2GRAY)[..., None] if gray_noise else img
    image = np.clip((image * 255.0).round(), 0, 255) / 255.0
    levels = 2 ** np.ceil(np.log2(len(np.unique(image))))
    noise = (np.random.poisson(image * levels) / float(levels) - image).astype(np.float32)
    return np.asarray(_rounded(img + noise * scale, clip, rounds))


def random_add_poisson_noise(
    img: np.ndarray, scale_range: Range = (0, 1.0), gray_prob: float = 0, clip: bool = True, rounds: bool = False
) -> np.ndarray:
    """As `add_poisson_noise`, with a scale from a range."""
    scale = np.random.uniform(*scale_range)
    return add_poisson_noise(img, scale, clip, rounds, np.random.uniform() < gray_prob)


def add_jpg_compression(img: np.ndarray, quality: float = 90) -> np.ndarray:
    """An image (H, W, C), BGR in [0, 1], through JPEG."""
    pixels = np.clip(img, 0, 1) * 255.0
    _, coded = cv2.imencode(".jpg", pixels, [int(cv2.IMWRITE_JPEG_QUALITY), int(quality)])
    return np.float32(cv2.imdecode(coded, cv2.IMREAD_COLOR)) / 255.0  # type: ignore[no-any-return]


def random_add_jpg_compression(img: np.ndarray, quality_range: Range = (90, 100)) -> np.ndarray:
    """As `add_jpg_compression`, with a quality from a range."""
    return add_jpg_compression(img, np.random.uniform(*quality_range))


def _drawn(count: int, limits: Range, like: Tensor) -> Tensor:
    low, high = limits
    return torch.rand(count, dtype=like.dtype, device=like.device)[:, None, None, None] * (high - low) + low


def random_add_gaussian_noise_pt(
    img: Tensor, sigma_range: Range = (0, 1.0), gray_prob: float = 0, clip: bool = True, rounds: bool = False
) -> Tensor:
    """Images (B, C, H, W) in [0, 1] with noise, each of a sigma from a range / 255; gray in some of them."""
    sigma = _drawn(len(img), sigma_range, img)
    gray = (torch.rand(len(img), dtype=img.dtype, device=img.device) < gray_prob).to(img.dtype)[:, None, None, None]
    noise = torch.randn_like(img)
    noise = noise * (1 - gray) + torch.randn_like(img[:, :1]) * gray
    found: Tensor = _rounded(img + noise * sigma / 255.0, clip, rounds)
    return found


def random_add_poisson_noise_pt(
    img: Tensor, scale_range: Range = (0, 1.0), gray_prob: float = 0, clip: bool = True, rounds: bool = False
) -> Tensor:
    """Images (B, 3, H, W), RGB in [0, 1], with shot noise, each times a scale from a range; gray in some of them."""
    scale = _drawn(len(img), scale_range, img)
    gray = (torch.rand(len(img), dtype=img.dtype, device=img.device) < gray_prob).to(img.dtype)[:, None, None, None]
    luma = (img * img.new_tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)

    def shot(image: Tensor) -> Tensor:
        image = (image * 255.0).round().clamp(0, 255) / 255.0
        levels = [2 ** float(np.ceil(np.log2(len(torch.unique(one))))) for one in image]
        factor = img.new_tensor(levels)[:, None, None, None]
        return torch.poisson(image * factor) / factor - image

    noise = shot(img) * (1 - gray) + shot(luma) * gray
    found: Tensor = _rounded(img + noise * scale, clip, rounds)
    return found
