"""Degradations as a list, for experiments beyond a fixed recipe.

Each operation of the list draws under its own place in the list: one that is added behind others leaves their draws as they
were. ``{type: shuffle}`` puts those before it, back to the previous one, in random order. BSRGAN's recipe is `bsrgan`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from ..annotations import Share
from ..errors import UserError
from . import DEGRADATIONS
from .codecs import Codec
from .draws import Draws
from .engines import Engine, of_frame, quantise
from .kernels import circular_lowpass_kernel, random_mixed_kernels
from .limits import Amounts, Factors, KernelType, Mode, OddSizes, Probabilities, Qualities, Three, hold, one_each

Spectrum = Literal["sinc"]


@dataclass(frozen=True)
class Target:
    """What an operation may ask of the whole: where it shall end.

    Attributes:
        size: (height, width) of the result.
        scale: size of the ground truth / size of the result.
    """

    size: tuple[int, int]
    scale: int


class Degradation:
    """One operation. Subclasses give `apply`, and are registered under a short name.

    Args:
        prob: probability that it happens at all.
    """

    prob: float = 1.0

    def apply(self, image: Tensor, draws: Draws, engine: Engine, target: Target) -> Tensor:
        """The image, (3, H, W) RGB in [0, 1], degraded; its size may change.

        Args:
            image: image, which this does not change.
            draws: whatever is random comes from here.
            engine: engine that computes it.
            target: what the list as a whole leads to.

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError

    def apply_to_clip(self, frames: list[Tensor], draws: Draws, engine: Engine, target: Target) -> list[Tensor]:
        """The frames of a clip, all degraded in the same way; only noise is another in each.

        Args:
            frames: (3, H, W) each, as for `apply`.
            draws, engine, target: see `apply`.
        """
        return [self.apply(frame, draws, of_frame(engine, n), target) for n, frame in enumerate(frames)]


@DEGRADATIONS.register(name="blur")
class Blur(Degradation):
    """Correlation with a random kernel.

    Args:
        kernel: type of the kernel, or several to choose from: those of `kernels.random_mixed_kernels`, and ``sinc``, which
            rings.
        kernel_prob: probabilities of those types; all alike when omitted.
        size: least and largest side in pixels; odd sides between them are equally likely.
        sigma: range of standard deviations, in pixels.
        beta: range of the exponent of generalized Gaussians and plateaus.
        cutoff: range of the sinc's cutoff, in radians per pixel.
        prob: probability of a blur.
    """

    def __init__(
        self,
        kernel: KernelType | Spectrum | list[KernelType | Spectrum] = "iso",
        kernel_prob: Probabilities | None = None,
        size: OddSizes = (7, 21),
        sigma: Factors = (0.2, 3.0),
        beta: Factors = (0.5, 4.0),
        cutoff: Factors = (math.pi / 3, math.pi),
        prob: Share = 1.0,
    ) -> None:
        hold(type(self), {**locals()})
        self.kinds = [kernel] if isinstance(kernel, str) else list(kernel)
        self.weights = kernel_prob or [1 / len(self.kinds)] * len(self.kinds)
        one_each("kernel_prob", self.kinds, self.weights, "kernel")
        self.size, self.sigma, self.beta, self.cutoff, self.prob = size, sigma, beta, cutoff, prob

    def apply(self, image: Tensor, draws: Draws, engine: Engine, target: Target) -> Tensor:
        least, largest = self.size
        size = least + 2 * draws.integer("size", 0, (largest - least) // 2)
        kind = draws.choice("kernel", self.kinds, self.weights)
        if kind == "sinc":
            kernel = circular_lowpass_kernel(draws.uniform("cutoff", *self.cutoff), size)
        else:
            kernel = random_mixed_kernels(
                [kind], [1], size, self.sigma, self.sigma, betag_range=self.beta, betap_range=self.beta, draws=draws
            )
        return engine.blur(image, torch.from_numpy(kernel).float().to(image.device))


@DEGRADATIONS.register(name="resize")
class Resize(Degradation):
    """A random change of size; the list ends at the size that it must whatever happens here.

    Args:
        factor: range of the factor; shrinking draws from [least, 1], enlarging from [1, largest].
        updown_prob: probabilities of enlarging, shrinking and keeping the size.
        mode: way to interpolate, or several to choose from.
        mode_prob: probabilities of those ways; all alike when omitted.
        to_target: go to `factor` times the size that the list shall end at, instead of the present one.
        antialias: blur as far as an image shrinks.
        prob: probability that this happens.
    """

    def __init__(
        self,
        factor: Factors = (0.5, 1.0),
        updown_prob: Three | None = None,
        mode: Mode | list[Mode] = "bicubic",
        mode_prob: Probabilities | None = None,
        to_target: bool = False,
        antialias: bool = False,
        prob: Share = 1.0,
    ) -> None:
        hold(type(self), {**locals()})
        self.modes: list[Mode] = [mode] if isinstance(mode, str) else list(mode)
        self.weights = mode_prob or [1 / len(self.modes)] * len(self.modes)
        one_each("mode_prob", self.modes, self.weights, "mode")
        self.factor, self.updown_prob, self.to_target = factor, updown_prob, to_target
        self.antialias, self.prob = antialias, prob

    def apply(self, image: Tensor, draws: Draws, engine: Engine, target: Target) -> Tensor:
        low, high = self.factor
        if self.updown_prob is not None:
            updown = draws.choice("updown", ("up", "down", "keep"), self.updown_prob)
            low, high = {"up": (1.0, high), "down": (low, 1.0), "keep": (1.0, 1.0)}[updown]
        factor = draws.uniform("factor", low, high)
        base = target.size if self.to_target else tuple(image.shape[-2:])
        height, width = (max(1, round(side * factor)) for side in base)
        return engine.resize(image, (height, width), draws.choice("mode", self.modes, self.weights), self.antialias)


@DEGRADATIONS.register(name="noise")
class Noise(Degradation):
    """Normal or Poisson noise.

    Args:
        kind: kind of noise, or both to choose from.
        kind_prob: probabilities of both kinds; all alike when omitted.
        sigma: range of the normal noise's standard deviation, in steps of 1/255.
        scale: range of what Poisson noise is multiplied by.
        gray_prob: probability that it is the same in all channels.
        prob: probability of noise.
    """

    def __init__(
        self,
        kind: Literal["gaussian", "poisson"] | list[Literal["gaussian", "poisson"]] = "gaussian",
        kind_prob: Probabilities | None = None,
        sigma: Amounts = (1.0, 30.0),
        scale: Amounts = (0.05, 3.0),
        gray_prob: Share = 0.4,
        prob: Share = 1.0,
    ) -> None:
        hold(type(self), {**locals()})
        self.kinds = [kind] if isinstance(kind, str) else list(kind)
        self.weights = kind_prob or [1 / len(self.kinds)] * len(self.kinds)
        one_each("kind_prob", self.kinds, self.weights, "kind")
        self.sigma, self.scale, self.gray_prob, self.prob = sigma, scale, gray_prob, prob

    def apply(self, image: Tensor, draws: Draws, engine: Engine, target: Target) -> Tensor:
        gray = draws.coin("gray", self.gray_prob)
        if draws.choice("kind", self.kinds, self.weights) == "gaussian":
            return engine.gaussian(image, draws.uniform("sigma", *self.sigma), gray, draws)
        return engine.poisson(image, draws.uniform("scale", *self.scale), gray, draws)


@DEGRADATIONS.register(name="compress")
class Compress(Degradation):
    """Lossy compression.

    Args:
        codec: codec, or several to choose from. The tensor engine has ``jpeg`` alone; ``h264`` and ``h265`` need PyAV.
        codec_prob: probabilities of those codecs; all alike when omitted.
        quality: range of the quality, from 1 to 100.
        prob: probability that this happens.
    """

    def __init__(
        self,
        codec: Codec | list[Codec] = "jpeg",
        codec_prob: Probabilities | None = None,
        quality: Qualities = (30.0, 95.0),
        prob: Share = 1.0,
    ) -> None:
        hold(type(self), {**locals()})
        self.codecs: list[Codec] = [codec] if isinstance(codec, str) else list(codec)
        self.weights = codec_prob or [1 / len(self.codecs)] * len(self.codecs)
        one_each("codec_prob", self.codecs, self.weights, "codec")
        self.quality, self.prob = quality, prob

    def apply(self, image: Tensor, draws: Draws, engine: Engine, target: Target) -> Tensor:
        codec = draws.choice("codec", self.codecs, self.weights)
        return engine.compress(image, codec, draws.uniform("quality", *self.quality))

    def apply_to_clip(self, frames: list[Tensor], draws: Draws, engine: Engine, target: Target) -> list[Tensor]:
        codec = draws.choice("codec", self.codecs, self.weights)
        return engine.compress_clip(frames, codec, draws.uniform("quality", *self.quality))


@DEGRADATIONS.register(name="shuffle")
class Shuffle(Degradation):
    """Operations in random order.

    Args:
        of: the operations; those before this one in its list, back to the previous shuffle, when omitted.
        prob: probability that their order is random; else it is the given one.
    """

    def __init__(self, of: list[Annotated[Any, DEGRADATIONS]] | None = None, prob: Share = 1.0) -> None:
        hold(type(self), {"prob": prob})
        self.of: list[Degradation] | None = of
        self.shuffled = prob

    def apply(self, image: Tensor, draws: Draws, engine: Engine, target: Target) -> Tensor:
        for i, operation in self._ordered(draws):
            image = happen(operation, image, draws.part(f"{i}"), engine, target)
        return image

    def apply_to_clip(self, frames: list[Tensor], draws: Draws, engine: Engine, target: Target) -> list[Tensor]:
        for i, operation in self._ordered(draws):
            frames = happen_to_clip(operation, frames, draws.part(f"{i}"), engine, target)
        return frames

    def _ordered(self, draws: Draws) -> list[tuple[int, Degradation]]:
        """The operations in their order, each with its place in the list."""
        operations = self.of or []
        shuffled = draws.coin("shuffled", self.shuffled)
        places = draws.order("order", len(operations)) if shuffled else range(len(operations))
        return [(i, operations[i]) for i in places]


def happen(operation: Degradation, image: Tensor, draws: Draws, engine: Engine, target: Target) -> Tensor:
    """`operation` on the image (3, H, W), with its probability."""
    if not draws.coin("happens", operation.prob):
        return image
    return operation.apply(image, draws, engine, target)


def happen_to_clip(
    operation: Degradation, frames: list[Tensor], draws: Draws, engine: Engine, target: Target
) -> list[Tensor]:
    """`operation` on all frames (3, H, W) of a clip, with its probability."""
    if not draws.coin("happens", operation.prob):
        return frames
    return operation.apply_to_clip(frames, draws, engine, target)


class DegradationList:
    """Operations one after the other, and what closes every list: the final size, and 8 bits.

    Args:
        operations: operations, built already.

    Raises:
        UserError: there are none, or a ``shuffle`` has nothing to shuffle.
    """

    def __init__(self, operations: Sequence[Degradation]) -> None:
        self.steps: list[Degradation] = []
        waiting: list[Degradation] = []
        for i, operation in enumerate(operations):
            if not isinstance(operation, Shuffle) or operation.of is not None:
                waiting.append(operation)
                continue
            if len(waiting) < 2:
                raise UserError(f"degradations[{i}]: shuffle needs two operations before it, or its own list 'of'")
            self.steps.append(Shuffle(waiting, operation.shuffled))
            waiting = []
        self.steps += waiting
        if not self.steps:
            raise UserError("degradations: give at least one, such as {type: blur}")

    def __call__(self, image: Tensor, draws: Draws, engine: Engine, scale: int) -> Tensor:
        """The degraded image (3, H // scale, W // scale), on the 8-bit grid, of (3, H, W) RGB in [0, 1].

        An image that the operations leave at another size is brought to it by bicubic resizing with antialiasing.
        """
        height, width = image.shape[-2:]
        target = Target((height // scale, width // scale), scale)
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            for i, operation in enumerate(self.steps):
                image = happen(operation, image, draws.part(f"{i}"), engine, target)
            return quantise(engine.resize(image, target.size, "bicubic", antialias=True))

    def of_clip(self, frames: Sequence[Tensor], draws: Draws, engine: Engine, scale: int) -> list[Tensor]:
        """The degraded frames (3, h, w) of a clip (3, H, W) each: the operations draw the same numbers in each frame, except
        for noise.
        """
        height, width = frames[0].shape[-2:]
        target = Target((height // scale, width // scale), scale)
        degraded = list(frames)
        with torch.no_grad(), torch.autocast(frames[0].device.type, enabled=False):
            for i, operation in enumerate(self.steps):
                degraded = happen_to_clip(operation, degraded, draws.part(f"{i}"), engine, target)
            return [quantise(engine.resize(frame, target.size, "bicubic", antialias=True)) for frame in degraded]
