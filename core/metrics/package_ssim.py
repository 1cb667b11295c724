"""The package pytorch-msssim as the engine of SSIM and MS-SSIM, where its definition applies and it runs at speed.

In float64 it agrees with what is written out beside this to the last digits. Above a quarter of a million pixels PyTorch's
depthwise convolutions in float64 leave the caches, and take more than ten times as long as OpenCV's (4.8 s against 0.2 s at
640 x 640, one thread); in float32, scores of bright even pictures are off by 1e-4. Hence ``engine: auto``: the package for
images up to `PIXELS`, our own code for larger ones and for those that five scales do not fit into.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..errors import UserError

SSIMEngine = Literal["auto", "pytorch_msssim", "own"]
PIXELS = 512 * 512
"""Largest images for which ``auto`` takes the package."""
LEAST = 161
"""Side of the smallest images that its MS-SSIM takes."""


def chosen(owner: str, engine: SSIMEngine, image: np.ndarray, obstacle: str = "") -> bool:
    """Whether the package shall score an image (H, W, C).

    Args:
        obstacle: reason why it cannot; empty where it can.

    Raises:
        UserError: it must and cannot, or there is no such engine.
    """
    if engine not in ("auto", "pytorch_msssim", "own"):
        raise UserError(f"{owner}: engine: '{engine}' is not possible; auto, pytorch_msssim and own are")
    if engine == "pytorch_msssim" and obstacle:
        raise UserError(f"{owner}: engine: pytorch_msssim {obstacle}; engine: auto takes our own code there")
    fits = not obstacle and image.shape[0] * image.shape[1] <= PIXELS
    return engine == "pytorch_msssim" or (engine == "auto" and fits)


def score(x: np.ndarray, y: np.ndarray, taps: np.ndarray, several_scales: bool = False) -> float:
    """Its SSIM or MS-SSIM of two images (H, W, C) in [0, 255], in float64, with a window of these taps."""
    import pytorch_msssim
    import torch

    a, b = (torch.from_numpy(np.ascontiguousarray(z.transpose(2, 0, 1)[None], np.float64)) for z in (x, y))
    window = torch.from_numpy(taps).view(1, 1, 1, -1).repeat(a.shape[1], 1, 1, 1)
    compute = pytorch_msssim.ms_ssim if several_scales else pytorch_msssim.ssim
    return float(compute(a, b, 255, size_average=False, win=window))
