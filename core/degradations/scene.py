"""What goes wrong while a photograph is taken: the camera moves, it rains, there is little light."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..annotations import Share
from ..imaging.srgb import to_linear, to_srgb
from . import DEGRADATIONS
from .draws import Draws
from .engines import Engine
from .limits import Amounts, Factors, PartRange, ValueRange, hold
from .operations import Degradation, Target

STEPS_PER_PIXEL = 8
"""Points of a path for each pixel of its length."""


def path_kernel(length: float, angle: float, bend: float = 0.0) -> np.ndarray:
    """The kernel of a point that moves at constant speed: (k, k) float64, sum 1, k odd, the middle of the way at its centre.

    Args:
        length: length of the way in pixels, from 0, which is no motion.
        angle: direction at the middle, in radians, from the x axis towards the y axis.
        bend: angle by which the direction turns from end to end, in radians.
    """
    way = np.linspace(-0.5, 0.5, max(2, math.ceil(length * STEPS_PER_PIXEL)) | 1)
    direction = angle + bend * way
    x, y = (np.cumsum(f(direction)) * length / (len(way) - 1) for f in (np.cos, np.sin))
    x, y = x - x[len(way) // 2], y - y[len(way) // 2]
    reach = math.ceil(max(np.abs(x).max(), np.abs(y).max(), 0.5))
    kernel = np.zeros((2 * reach + 3, 2 * reach + 3))
    left, top = np.floor(x), np.floor(y)
    for dx in (0, 1):  # each point is shared by the four pixels around it
        for dy in (0, 1):
            share = (1 - abs(x - left - dx)) * (1 - abs(y - top - dy))
            np.add.at(kernel, ((top + dy).astype(int) + reach + 1, (left + dx).astype(int) + reach + 1), share)
    return np.asarray(kernel / kernel.sum())


@DEGRADATIONS.register(name="motion")
class Motion(Degradation):
    """The camera moves: a blur along an arc of random direction.

    Args:
        length: range of the way's length, in pixels.
        bend: range of the angle by which its direction turns, in degrees, to either side.
        prob: probability that it happens.
    """

    def __init__(self, length: Amounts = (5.0, 15.0), bend: Amounts = (0.0, 60.0), prob: Share = 1.0) -> None:
        hold(type(self), {**locals()})
        self.length, self.bend, self.prob = length, bend, prob

    def apply(self, image: Tensor, draws: Draws, engine: Engine, target: Target) -> Tensor:
        side = 1.0 if draws.coin("side", 0.5) else -1.0
        bend = side * math.radians(draws.uniform("bend", *self.bend))
        kernel = path_kernel(draws.uniform("length", *self.length), draws.uniform("angle", 0.0, math.pi), bend)
        return engine.blur(image, torch.from_numpy(kernel).float().to(image.device))


@DEGRADATIONS.register(name="rain")
class Rain(Degradation):
    """It rains: bright streaks of one direction are added, and the sum is clipped.

    The model is the additive one of Rain100H and Rain100L (Yang et al. 2017, arXiv:1609.07769): the image plus a layer of
    streaks, the same in all channels.

    Args:
        drops: range of the share of pixels at which a streak begins.
        length: range of the streaks' length, in pixels.
        angle: range of their direction, in degrees from the vertical.
        brightness: range of a streak's brightness, white being 1.
        prob: probability that it rains.
    """

    def __init__(
        self,
        drops: PartRange = (0.005, 0.03),
        length: Amounts = (8.0, 25.0),
        angle: ValueRange = (-30.0, 30.0),
        brightness: Amounts = (0.2, 0.6),
        prob: Share = 1.0,
    ) -> None:
        hold(type(self), {**locals()})
        self.drops, self.length, self.angle = drops, length, angle
        self.brightness, self.prob = brightness, prob

    def apply(self, image: Tensor, draws: Draws, engine: Engine, target: Target) -> Tensor:
        field = torch.rand(image.shape[-2:], generator=draws.generator("drops"))
        share = draws.uniform("share", *self.drops)
        # What the field has left below the share is uniform again, and makes each streak as bright as it is.
        drops = torch.where(field < share, field / max(share, 1e-9) * 0.5 + 0.5, torch.zeros(())).to(image)
        kernel = path_kernel(
            draws.uniform("length", *self.length), math.radians(90 + draws.uniform("angle", *self.angle))
        )
        streaks = engine.blur(drops.expand(3, -1, -1), torch.from_numpy(kernel / kernel.max()).float().to(image.device))
        return (image + streaks * draws.uniform("brightness", *self.brightness)).clamp(0, 1)


@DEGRADATIONS.register(name="darken")
class Darken(Degradation):
    """There is little light: linear light is multiplied, and the sensor's noise, which is not, stands out.

    Photons are counted, so that their noise grows with the root of the light, and reading them adds noise of its own
    (Foi et al. 2008, "Practical Poissonian-Gaussian noise modeling and fitting").

    Args:
        exposure: range of what linear light is multiplied by, drawn uniformly in stops.
        shot: range of the standard deviation of white's photon noise, white being 1.
        read: range of the standard deviation of the reading noise.
        prob: probability that it happens.
    """

    def __init__(
        self,
        exposure: Factors = (0.03, 0.2),
        shot: Amounts = (0.005, 0.02),
        read: Amounts = (0.0005, 0.002),
        prob: Share = 1.0,
    ) -> None:
        hold(type(self), {**locals()})
        self.exposure, self.shot, self.read, self.prob = exposure, shot, read, prob

    def apply(self, image: Tensor, draws: Draws, engine: Engine, target: Target) -> Tensor:
        stops = draws.uniform("exposure", *(math.log2(factor) for factor in self.exposure))
        light = torch.from_numpy(to_linear(image.clamp(0, 1).cpu().numpy())) * 2.0**stops
        shot, read = draws.uniform("shot", *self.shot), draws.uniform("read", *self.read)
        noise = draws.normal("field", image.shape) * torch.sqrt(shot**2 * light + read**2)
        return torch.from_numpy(to_srgb((light + noise).clamp(0, 1).numpy())).to(image)
