"""What data sets do to colours and light, for whole batches and on any device: ``on_device: true``.

A sample then brings what was drawn for it, and a batch is finished where it has been put (`DatasetTraits.finish`). The numbers
drawn are those of the loading processes, so that the pictures are the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .water import FORWARD, SPREAD, Scene

WIDEST = 64
"""Radius in pixels up to which kernels may be larger than an image."""
UNFINISHED = ("distance", "field", "water")
"""Items of a sample that `submerged` takes."""


def to_linear(image: Tensor) -> Tensor:
    """Linear light from sRGB (IEC 61966-2-1), both in [0, 1]; elementwise, any shape."""
    return torch.where(image <= 0.04045, image / 12.92, ((image.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Tensor) -> Tensor:
    """sRGB from linear light, both in [0, 1]; elementwise, any shape."""
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def linearised(picture: Tensor, curve: Tensor, peak: float) -> Tensor:
    """`camera.Curve.linearise` of a batch: radiance in [0, peak].

    Args:
        picture: (B, 3, H, W) in [0, 1].
        curve: (B, 2) gain and exponent of each.
        peak: radiance.
    """
    dgain, gamma = curve[:, :, None, None, None].unbind(1)
    return (picture**gamma / dgain).clamp(0, 1) * peak


def gaussian_blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Each image blurred by a Gaussian of its own, cut at four deviations, borders reflected: as ``cv2.GaussianBlur``.

    The kernels' sizes are known to the device alone, so that it is a product of spectra: a reflected image is periodic.

    Args:
        image: (B, C, H, W).
        sigma: (B,) standard deviations in pixels.
    """
    for dim in (-2, -1):
        side = image.shape[dim]
        if side == 1:
            continue
        mirrored = torch.cat([image, image.narrow(dim, 1, max(0, side - 2)).flip(dim)], dim)
        period = mirrored.shape[dim]
        times = 1 + WIDEST // period  # that a kernel goes around an image that is smaller than it
        around = period * torch.arange(-times - 1, times + 1, device=image.device)
        distance = torch.arange(period, device=image.device) + around[:, None]
        radius = ((sigma * 8 + 1).round().long() | 1) // 2  # of the kernel that OpenCV takes for floats
        weight = torch.exp(-0.5 * (distance / sigma[:, None, None]) ** 2) * (distance.abs() <= radius[:, None, None])
        kernel = weight.sum(1) / weight.sum((1, 2))[:, None]
        shape = [len(image), 1, 1, 1]
        shape[dim] = -1
        spectrum = torch.fft.rfft(kernel, dim=1).reshape(shape)
        blurred = torch.fft.irfft(torch.fft.rfft(mirrored, dim=dim) * spectrum, n=period, dim=dim)
        image = blurred.narrow(dim, 0, side)
    return image


def scene_parameters(scene: Scene, z: np.ndarray, side: int) -> np.ndarray:
    """What `submerged` must know of a scene besides distances and noise, (12,) float32; arguments as of `water.submerge`."""
    sigma = max(0.1, SPREAD * side * float(z.mean()))
    numbers = [*scene.daylight, *scene.absorption, *scene.scattering, scene.brightness, scene.noise, sigma]
    return np.array(numbers, np.float32)


def submerged(batch: Mapping[str, Any]) -> Tensor:
    """`water.submerge` of a batch on its device: ``lq`` (B, 3, H, W).

    Args:
        batch: ``gt`` (B, 3, H, W) sRGB in [0, 1], ``distance`` (B, 1, H, W) in metres, ``field`` (B, 3, H, W) standard normal
            numbers, ``water`` (B, 12) from `scene_parameters`.
    """
    image, z, field = (batch[key].float() for key in ("gt", "distance", "field"))
    water = batch["water"].float()[:, :, None, None]
    daylight, a, b = water[:, 0:3], water[:, 3:6], water[:, 6:9]
    brightness, noise, sigma = water[:, 9:10], water[:, 10:11], batch["water"][:, 11].float()
    c, g = a + b, a + (1 - FORWARD) * b
    lit = daylight * to_linear(image)
    unscattered, kept = torch.exp(-c * z), torch.exp(-g * z)
    light = lit * unscattered + gaussian_blur(lit * (kept - unscattered), sigma)
    light = light + daylight * brightness * b / c * (1 - kept)
    light = light + noise * (light + 0.01).clamp(min=0).sqrt() * field
    return to_srgb(light.clamp(0, 1))
