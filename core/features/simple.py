"""Extractors that need no weights: averaged pixels, and a random convolutional network."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..annotations import Count, Levels
from . import FEATURES
from .base import FeatureExtractor


@FEATURES.register(name="pixel_avgpool")
class PixelAveragePool(FeatureExtractor):
    """Pixels averaged over a coarse grid: 192 numbers for an RGB image and the default grid.

    Args:
        size: cells of the grid in each direction.
        channels: channels of the images.
        projection: number of features, if given, to which a fixed random matrix projects them, which keeps distances in
            expectation.
        seed: seed of that matrix.
    """

    matrix: Tensor | None

    def __init__(self, size: Count = 8, channels: Count = 3, projection: Count | None = None, seed: int = 0) -> None:
        super().__init__()
        length = channels * size * size
        self.size = size
        self.dim = projection or length
        generator = torch.Generator().manual_seed(seed)
        random = None if projection is None else torch.randn(length, projection, generator=generator) / projection**0.5
        self.register_buffer("matrix", random)
        self.seal("pixel_avgpool", size=size)

    def features(self, images: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(images, self.size).flatten(1)
        return pooled if self.matrix is None else pooled @ self.matrix


@FEATURES.register(name="random_conv")
class RandomConvolutions(FeatureExtractor):
    """A convolutional network with random weights: blind to objects, sensitive to shapes, edges and texture at several scales.

    Each level is a 3x3 convolution, a leaky rectifier and halved resolution, twice as wide as the one before. The features
    are the averages of every level over a coarse grid; the standard deviations too, where `spread` asks for them.

    Args:
        width: channels of the first level.
        levels: how many. Images must be at least 2^levels pixels high and wide.
        grid: cells of the averages in each direction.
        spread: append the standard deviation of every channel over the image.
        channels: channels of the images.
        seed: seed of the weights, which are drawn on the CPU and the same everywhere.
    """

    def __init__(
        self,
        width: Count = 32,
        levels: Levels = 3,
        grid: Count = 2,
        spread: bool = False,
        channels: Count = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        widths = [channels, *(width * 2**level for level in range(levels))]
        self.kernels = nn.ParameterList(
            torch.randn(after, before, 3, 3, generator=generator) * math.sqrt(2 / (9 * before))
            for before, after in itertools.pairwise(widths)
        )
        self.grid = grid
        self.spread = spread
        self.dim = sum(widths[1:]) * (grid * grid + spread)
        self.seal("random_conv", grid=grid, spread=spread)

    def features(self, images: Tensor) -> Tensor:
        x, found = images, []
        for kernel in self.kernels:
            x = F.leaky_relu(F.conv2d(x, kernel, padding=1), 0.2)
            found.append(F.adaptive_avg_pool2d(x, self.grid).flatten(1))
            if self.spread:
                found.append(x.flatten(2).var(2, correction=0).add(1e-8).sqrt())
            x = F.avg_pool2d(x, 2)
        return torch.cat(found, 1)
