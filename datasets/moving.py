r"""Scenes of known motion: textured layers that glide, turn and grow, rendered at any time with pixels that integrate.

A layer has a texture q -> colour, given by a photograph, and a motion over the interval t in [0, 1]. With u = t - 1/2,
the frame's pixel p shows the texture at

.. math::
    q = a + e^{-z u} R(-\omega u) (p - c - v u),

so that at t = 1/2 the texture's point a lies at the frame's point c; between t = 0 and t = 1 that point moves by v pixels,
and the texture turns by the angle omega about it and grows by the factor e^z. Velocity, turning and growth are constant. All
frames are renderings of the same scene, so the one at any t is known as exactly as those at both ends. Layers in front hide
those behind through an opacity that moves with them; what is uncovered at one end is covered at the other.

A pixel is the mean of OVERSAMPLE x OVERSAMPLE bicubic samples of its square, of the display values (not of linear light).
Outside the photograph its mirror image goes on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

OVERSAMPLE = 2

HARMONICS = 4
"""Waves of an object's outline."""


@dataclass(frozen=True)
class Motion:
    """What happens to a layer between t = 0 and t = 1.

    Attributes:
        shift: (down, right) in pixels.
        turn: angle in radians, from the y axis towards the x axis.
        growth: natural logarithm of the magnification.
    """

    shift: tuple[float, float]
    turn: float = 0.0
    growth: float = 0.0


@dataclass(frozen=True)
class Layer:
    """A moving texture.

    Attributes:
        texture: (3, H, W) float32, a photograph.
        anchor: the texture's point (y, x), in its pixels, that is at `centre` when t = 1/2.
        centre: point of the frame at which the anchor is then.
        motion: motion of the layer.
        outline: None for a layer without end. Else the object's radius in texture pixels, and amplitudes (relative to the
            radius) and phases of the waves 2, 3, ... of its outline around the anchor.
    """

    texture: Tensor
    anchor: tuple[float, float]
    centre: tuple[float, float]
    motion: Motion
    outline: tuple[float, tuple[tuple[float, float], ...]] | None = None

    def position(self, time: float) -> tuple[float, float]:
        """Where in the frame the anchor is at a time: (y, x)."""
        return self.centre[0] + self.motion.shift[0] * (time - 0.5), self.centre[1] + self.motion.shift[1] * (
            time - 0.5
        )

    def box(self, size: tuple[int, int], time: float) -> tuple[slice, slice]:
        """Rows and columns of the frame outside which nothing of the layer is seen."""
        if self.outline is None:
            return slice(0, size[0]), slice(0, size[1])
        radius, waves = self.outline
        reach = (radius * (1 + sum(a for a, _ in waves)) + 1) * math.exp(self.motion.growth * (time - 0.5)) + 1
        spans = [
            slice(max(0, math.floor(p - reach)), max(0, min(side, math.ceil(p + reach) + 1)))
            for p, side in zip(self.position(time), size, strict=True)
        ]
        return spans[0], spans[1]

    def sources(self, points: Tensor, time: float) -> Tensor:
        """Where in the texture the frame's `points` (..., 2) lie at a time: (..., 2) as (y, x), float64."""
        u = time - 0.5
        moved = points - torch.tensor(self.position(time), dtype=torch.float64)
        angle, factor = -self.motion.turn * u, math.exp(-self.motion.growth * u)
        cos, sin = factor * math.cos(angle), factor * math.sin(angle)
        y, x = moved.unbind(-1)
        return torch.stack([self.anchor[0] + cos * y - sin * x, self.anchor[1] + sin * y + cos * x], -1)

    def seen_at(self, sources: Tensor, time: float) -> Tensor:
        """Where in the frame the texture's points `sources` (..., 2) are at a time: (..., 2) as (y, x); inverts `sources`."""
        u = time - 0.5
        y, x = (sources - torch.tensor(self.anchor, dtype=torch.float64)).unbind(-1)
        angle, factor = self.motion.turn * u, math.exp(self.motion.growth * u)
        cos, sin = factor * math.cos(angle), factor * math.sin(angle)
        at = self.position(time)
        return torch.stack([at[0] + cos * y - sin * x, at[1] + sin * y + cos * x], -1)

    def opacity(self, sources: Tensor) -> Tensor:
        """(...,) in [0, 1] at points of the texture: 1 inside the outline, 0 outside, a ramp of one pixel between."""
        assert self.outline is not None
        radius, waves = self.outline
        y, x = (sources - torch.tensor(self.anchor, dtype=torch.float64)).unbind(-1)
        angle = torch.atan2(y, x)
        edge = torch.full_like(angle, radius)
        for k, (amplitude, phase) in enumerate(waves, start=2):
            edge += radius * amplitude * torch.cos(k * angle + phase)
        return (0.5 + edge - torch.hypot(y, x)).clamp(0, 1)


def sample(texture: Tensor, sources: Tensor) -> Tensor:
    """(3, h, w): a texture (3, H, W) at the points (h, w, 2), bicubic, mirrored outside."""
    height, width = texture.shape[1:]
    scale = torch.tensor([2 / max(1, height - 1), 2 / max(1, width - 1)], dtype=torch.float64)
    grid = (sources * scale - 1).flip(-1).float()
    return F.grid_sample(texture[None], grid[None], "bicubic", "reflection", align_corners=True)[0]


def render(layers: Sequence[Layer], size: tuple[int, int], time: float) -> Tensor:
    """The frame at a time: (3, height, width) float32 in [0, 1].

    Args:
        layers: layers of the scene, from the back to the front; the first has no outline.
        size: (height, width) of the frame, whose pixel centres are (0, 0) to (height - 1, width - 1).
        time: 0 and 1 are the ends of the motion; any time can be asked for.
    """
    frame = torch.zeros(3, *size)
    for layer in layers:
        box = layer.box(size, time)
        if any(span.start >= span.stop for span in box):
            continue  # out of sight
        sources = layer.sources(pixel_samples(box), time)
        colour = sample(layer.texture, sources)
        part = frame[:, box[0], box[1]]
        if layer.outline is None:
            part.copy_(pixel_means(colour))
        else:
            # Colour and opacity are averaged together, so that an edge is as smooth as a camera sees it.
            opacity = layer.opacity(sources).float()[None]
            part.mul_(1 - pixel_means(opacity)).add_(pixel_means(colour * opacity))
    return frame.clamp(0, 1)


def motion_field(layers: Sequence[Layer], size: tuple[int, int], time: float, others: Sequence[float]) -> Tensor:
    """(2 n, height, width) float32: where each pixel of the frame at `time` is at n other times, relative to the pixel.

    Displacements in pixels, to the right, then down, of the foremost layer that covers at least half of the pixel's centre.
    """
    points = torch.stack(torch.meshgrid(*[torch.arange(side, dtype=torch.float64) for side in size], indexing="ij"), -1)
    field = torch.zeros(2 * len(others), *size, dtype=torch.float64)
    for layer in layers:
        sources = layer.sources(points, time)
        moved = [(layer.seen_at(sources, other) - points).flip(-1).movedim(-1, 0) for other in others]
        covers = torch.ones(size) if layer.outline is None else layer.opacity(sources)
        field = torch.where(covers >= 0.5, torch.cat(moved), field)
    return field.float()


def pixel_samples(box: tuple[slice, slice]) -> Tensor:
    """(rows * OVERSAMPLE, columns * OVERSAMPLE, 2) points (y, x) in the pixels of a box."""
    axes = [
        span.start + (torch.arange((span.stop - span.start) * OVERSAMPLE, dtype=torch.float64) + 0.5) / OVERSAMPLE - 0.5
        for span in box
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def pixel_means(samples: Tensor) -> Tensor:
    """(C, h, w): the mean of each pixel's samples."""
    return F.avg_pool2d(samples[None], OVERSAMPLE)[0]


def random_scene(
    rng: np.random.RandomState,
    textures: Sequence[Tensor],
    size: tuple[int, int],
    motion: tuple[float, float],
    rotation: float,
) -> list[Layer]:
    """A camera's motion over the first texture, and an object of each further texture moving its own way before it.

    Textures are (3, h, w). Camera and objects move by distances (in pixels, from t = 0 to t = 1, at their centres) drawn from
    the range `motion`, each object's direction at least 45 degrees off the camera's. On top, turning and growth displace what
    is half a frame's shorter side away (the rim, for objects) by up to `rotation` times that distance each.
    """
    shorter = min(size)
    heading = rng.uniform(0, 2 * math.pi)
    layers = [_layer(rng, textures[0], size, heading, motion, rotation, shorter / 2)]
    for texture in textures[1:]:
        own_heading = heading + rng.uniform(math.pi / 4, 7 * math.pi / 4)
        radius = shorter * rng.uniform(0.12, 0.28)
        waves = tuple((rng.uniform(0, 0.25 / k), rng.uniform(0, 2 * math.pi)) for k in range(1, HARMONICS + 1))
        layers.append(_layer(rng, texture, size, own_heading, motion, rotation, radius, (radius, waves)))
    return layers


def _layer(
    rng: np.random.RandomState,
    texture: Tensor,
    size: tuple[int, int],
    heading: float,
    motion: tuple[float, float],
    rotation: float,
    reach: float,
    outline: tuple[float, tuple[tuple[float, float], ...]] | None = None,
) -> Layer:
    """A layer whose motion displaces points at the distance `reach` from its centre as `random_scene` says."""
    distance = rng.uniform(*motion)
    shift = (distance * math.sin(heading), distance * math.cos(heading))
    turn, growth = rng.uniform(-1, 1, 2) * rotation * distance / reach
    if outline is None:
        centre = ((size[0] - 1) / 2, (size[1] - 1) / 2)
        margins = [side / 2 + abs(v) / 2 + rotation * distance for side, v in zip(size, shift, strict=True)]
    else:
        centre = (rng.uniform(0.1, 0.9) * (size[0] - 1), rng.uniform(0.1, 0.9) * (size[1] - 1))
        margins = [reach, reach]
    # Frames stay inside the photograph as far as it is large enough; else at its middle.
    anchor = [
        rng.uniform(min(m, side / 2), max(side - m, side / 2))
        for m, side in zip(margins, texture.shape[1:], strict=True)
    ]
    limit = math.log(2.0)  # small frames under large motion would otherwise turn somersaults
    motion_ = Motion(shift, float(np.clip(turn, -limit, limit)), float(np.clip(growth, -limit, limit)))
    return Layer(texture, (anchor[0], anchor[1]), centre, motion_, outline)
