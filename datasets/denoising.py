"""Clean images, to which Gaussian noise is added."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..core.annotations import Count, Positive
from ..core.errors import UserError
from ..core.imaging.image_io import to_float
from ..core.imaging.normalisation import normalise
from . import DATASETS
from .base import ImageDataset, Item, OnError
from .pairing import as_roots
from .sources import IOBackend, as_backend, open_source
from .transforms import gray, pad_to_patch, random_crop, random_symmetry, to_tensor


@DATASETS.register()
class Dataset_GaussianDenoising(ImageDataset):  # noqa: N801 - Restormer's name, which its option files use
    """Restormer's denoising data: ``gt`` is a clean image, ``lq`` the same plus white Gaussian noise (not clipped).

    Both are (C, H, W) float32, RGB or gray, in [0, 1] but for the noise. In training a random patch (of images continued by
    reflection where they are smaller), in one of its eight orientations; else whole images, each with the same fixed noise.

    Args:
        dataroot_gt: folder(s) of clean images.
        sigma_type: noise level in training: ``constant`` (sigma_range is it), ``random`` (uniform between the two values of
            sigma_range), ``choice`` (one of sigma_range's values).
        sigma_range: noise level(s), in 1/255.
        sigma_test: noise level of validation and test, in 1/255.
        in_ch: 3 for colour, 1 for gray.
        gt_size: side of the training patch; whole images when omitted.
        phase: ``train``, or ``val`` and ``test``.
        geometric_augs: use the eight orientations.
        io_backend: ``{type: disk}``, ``{type: lmdb}`` or ``{type: tar}``.
        mean: value subtracted from each channel.
        std: divisor of each channel.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next one.
        dataroot_lq: accepted for Restormer's files, which say ``none``.
        filename_tmpl: accepted for Restormer's files.
    """

    def __init__(
        self,
        dataroot_gt: str | list[str],
        sigma_type: Literal["constant", "random", "choice"] = "constant",
        sigma_range: float | list[float] = 25.0,
        sigma_test: float = 25.0,
        in_ch: Literal[1, 3] = 3,
        gt_size: Count | None = None,
        phase: Literal["train", "val", "test"] = "train",
        geometric_augs: bool = False,
        io_backend: IOBackend | None = None,
        mean: list[float] | None = None,
        std: list[Positive] | None = None,
        on_error: OnError = "raise",
        dataroot_lq: str | None = None,
        filename_tmpl: str = "{}",
    ) -> None:
        super().__init__(on_error)
        levels = [sigma_range] if isinstance(sigma_range, (int, float)) else list(sigma_range)
        needed = {"constant": len(levels) == 1, "random": len(levels) == 2, "choice": bool(levels)}
        if not needed[sigma_type] or min(levels) < 0:
            raise UserError(f"sigma_range: {sigma_range} does not suit sigma_type '{sigma_type}'")
        backend = as_backend(io_backend)
        sources = [open_source(root, backend, part="gt") for root in as_roots(dataroot_gt, "dataroot_gt")]
        self.images = [(source, name) for source in sources for name in source.files.values()]
        self.training = phase == "train"
        self.sigma_type = sigma_type
        self.levels = levels
        self.sigma_test = sigma_test
        self.in_ch = in_ch
        self.gt_size = gt_size
        self.geometric_augs = geometric_augs
        self.mean = mean
        self.std = std

    def __len__(self) -> int:
        return len(self.images)

    def result_path(self, index: int) -> str:
        """The clean image's file."""
        source, name = self.images[index]
        return source.path(name)

    def load(self, index: int) -> Item:
        source, name = self.images[index]
        path = self.result_path(index)
        images = [source.pixels(name)]
        if self.training and self.gt_size is not None:
            images = random_crop(pad_to_patch(images, self.gt_size, 1), self.gt_size, 1, path)
        if self.training and self.geometric_augs:
            images = random_symmetry(images)
        clean = to_float(images[0])
        gt = to_tensor(gray(clean) if self.in_ch == 1 else clean)
        lq = gt + self._noise(gt.shape)
        noisy, clear = normalise(lq, self.mean, self.std), normalise(gt, self.mean, self.std)
        return {"lq": noisy, "gt": clear, "lq_path": path, "gt_path": path}

    def _noise(self, shape: Sequence[int]) -> Tensor:
        if not self.training:
            return white_noise(shape, self.sigma_test, fixed=True)
        least, largest = min(self.levels), max(self.levels)
        level = random.uniform(least, largest) if self.sigma_type == "random" else random.choice(self.levels)  # noqa: S311
        return white_noise(shape, level)


def white_noise(shape: Sequence[int], level: float, fixed: bool = False) -> Tensor:
    """Gaussian noise (C, H, W) of standard deviation `level` / 255.

    Args:
        shape: shape of the image.
        level: standard deviation of the noise, in 1/255.
        fixed: the same for every image of a size, as BasicSR's forks draw it for validation: by NumPy after seeding with 0, in
            the order rows, columns, channels.
    """
    if not fixed:
        return torch.randn(tuple(shape)) * (level / 255)
    channels, height, width = shape
    return to_tensor(np.random.RandomState(0).normal(0, level / 255, (height, width, channels)))
