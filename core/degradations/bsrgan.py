"""BSRGAN's recipe (Zhang et al., ICCV 2021, arXiv:2103.14006), with order, ranges and probabilities of its published code."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..annotations import Share
from . import DEGRADATIONS
from .draws import Draws
from .engines import Engine
from .kernels import bivariate_Gaussian, mesh_grid
from .limits import Amounts, Mode, Qualities, hold
from .operations import Degradation, Target

MODES: tuple[Mode, ...] = ("bilinear", "bicubic", "area")
SHRINKING = 2
"""Place of the step that shrinks, which always comes before `FITTING`."""
FITTING = 3
"""Place of the step that leads to the final size."""
STEPS = 6
SHIFTED = 25
"""Side of the kernel before every n-th pixel is taken."""
COVARIANCE = 25 / 255
"""Scale of the covariance of coloured noise; in the published code it is always at this level."""


@DEGRADATIONS.register(name="bsrgan")
class BSRGAN(Degradation):
    """Two blurs, a random and the final resize, normal noise and JPEG in random order, and JPEG at the end.

    At scale 4 a quarter of the images is halved first. Left out is the camera pipeline, which needs a model of its own.

    Args:
        quality: range of JPEG qualities, whole numbers.
        noise: range of the noise's standard deviation, in whole steps of 1/255.
        prob: probability that it happens.
    """

    def __init__(self, quality: Qualities = (30.0, 95.0), noise: Amounts = (2.0, 25.0), prob: Share = 1.0) -> None:
        hold(type(self), {**locals()})
        self.quality, self.noise, self.prob = quality, noise, prob

    def apply(self, image: Tensor, draws: Draws, engine: Engine, target: Target) -> Tensor:
        scale = target.scale
        if scale == 4 and draws.coin("halved", 0.25):
            image, scale = halved(image, draws.part("half"), engine), 2
        order = draws.order("order", STEPS)
        first, last = sorted((order.index(SHRINKING), order.index(FITTING)))
        order[first], order[last] = SHRINKING, FITTING
        for place in order:
            own = draws.part(str(place))
            if place in (0, 1):
                image = blurred(image, own, engine, scale)
            elif place == SHRINKING:
                image = shrunk(image, own, engine, scale)
            elif place == FITTING:
                image = engine.resize(image, target.size, own.choice("mode", MODES))
            elif place == 4:
                image = noisy(image, own, engine, whole(own, "sigma", self.noise))
            elif own.coin("happens", 0.9):
                image = self.coded(image, own, engine)
            image = image.clamp(0, 1)
        return self.coded(image, draws.part("last"), engine)

    def coded(self, image: Tensor, draws: Draws, engine: Engine) -> Tensor:
        """The image (3, H, W) after JPEG."""
        return engine.compress(image, "jpeg", whole(draws, "quality", self.quality))


def whole(draws: Draws, name: str, limits: tuple[float, float]) -> int:
    """A whole number within limits."""
    return draws.integer(name, math.ceil(limits[0]), math.floor(limits[1]))


def halved(image: Tensor, draws: Draws, engine: Engine) -> Tensor:
    """The image at half its size, (3, H // 2, W // 2), antialiased or not."""
    size = (max(1, image.shape[-2] // 2), max(1, image.shape[-1] // 2))
    if draws.coin("antialias", 0.5):
        return engine.resize(image, size, "bicubic", antialias=True)
    return engine.resize(image, size, draws.choice("mode", MODES))


def blurred(image: Tensor, draws: Draws, engine: Engine, scale: int) -> Tensor:
    """The image (3, H, W) under a Gaussian: half of them isotropic; of the others, variances are uniform."""
    size = 2 * draws.integer("size", 2, 11) + 3
    if draws.coin("anisotropic", 0.5):
        along, across = (math.sqrt(max(draws.uniform(n, 0, 4 + scale), 1e-2)) for n in ("first", "second"))
        kernel = bivariate_Gaussian(size, along, across, draws.uniform("angle", 0, math.pi), isotropic=False)
    else:
        sigma = max(draws.uniform("sigma", 0, 2 + 0.2 * scale), 0.1)
        kernel = bivariate_Gaussian(size, sigma, sigma, 0)
    return engine.blur(image, torch.from_numpy(kernel).float().to(image.device))


def shrunk(image: Tensor, draws: Draws, engine: Engine, scale: int) -> Tensor:
    """An image (3, H, W) shrunk by a divisor from 1 to twice the scale; or every n-th pixel of it after a Gaussian blur."""
    height, width = image.shape[-2:]
    if draws.coin("resized", 0.75):
        divisor = draws.uniform("divisor", 1, 2 * scale)
        size = (max(1, int(height / divisor)), max(1, int(width / divisor)))
        return engine.resize(image, size, draws.choice("mode", MODES))
    sigma = draws.uniform("sigma", 0.1, 0.6 * scale)
    grid = mesh_grid(SHIFTED) - (scale - 1) / 2
    kernel = bivariate_Gaussian(SHIFTED, sigma, sigma, 0, grid)
    return engine.blur(image, torch.from_numpy(kernel).float().to(image.device))[..., ::scale, ::scale]


def noisy(image: Tensor, draws: Draws, engine: Engine, sigma: float) -> Tensor:
    """The image (3, H, W) with normal noise: 40 % are independent in each channel, 40 % gray, 20 % of a random covariance."""
    kind = draws.uniform("kind")
    if kind > 0.6 or kind < 0.4:
        return engine.gaussian(image, sigma, kind < 0.4, draws)
    return engine.coloured(image, torch.from_numpy(mixing(draws)).float(), draws)


def mixing(draws: Draws) -> np.ndarray:
    """(3, 3) float64, by which independent normal numbers become noise of a random covariance."""
    eigenvalues = np.array([draws.uniform(f"eigenvalue{i}") for i in range(3)])
    entries = np.array([draws.uniform(f"entry{i}") for i in range(9)]).reshape(3, 3)
    axes = np.linalg.svd(entries)[0]
    covariance = np.abs(COVARIANCE**2 * axes.T @ np.diag(eigenvalues) @ axes)
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(
        vectors * np.sqrt(values.clip(min=0))
    )  # moduli of entries may not be a covariance; the nearest is
