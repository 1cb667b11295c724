"""Real-ESRGAN's second-order degradation (Wang et al. 2021, arXiv:2107.10833): blur, resize, noise and JPEG, twice, and a sinc.

**Draws.** The original draws sizes, modes and most coins once for a batch, and mixes batches in a queue. Here every sample has
its own, from its own seed, with the same distribution: what the queue was for comes by itself, and the number of loading
processes, of ranks, or a restart change nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from torch import Tensor

from ..annotations import Share
from ..errors import UserError
from .draws import Draws, seeds_of
from .engines import Engine, quantise
from .kernels import padded, pulse, random_lowpass_kernel, random_mixed_kernels
from .limits import Amounts, Factors, KernelType, Mode, OddSizes, Probabilities, Qualities, Three, hold, one_each

MODES: tuple[Mode, ...] = ("area", "bilinear", "bicubic")
KERNEL_TYPES: tuple[KernelType, ...] = (
    "iso",
    "aniso",
    "generalized_iso",
    "generalized_aniso",
    "plateau_iso",
    "plateau_aniso",
)
KERNEL_PROB = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)


# ------------------------------------------------------------------ kernels of a sample
@dataclass(frozen=True)
class BlurOptions:
    """How one blur kernel of a sample is drawn.

    Attributes:
        kernel_range: least and largest size; odd sizes between them are equally likely. Kernels are padded to the largest.
        kernel_list: types of kernel, see `kernels.random_mixed_kernels`.
        kernel_prob: probabilities of those types.
        sinc_prob: probability of a sinc instead.
        blur_sigma: range of standard deviations, in pixels.
        betag_range: range of generalized Gaussians' exponents.
        betap_range: range of plateaus' exponents.
    """

    kernel_range: OddSizes = (7, 21)
    kernel_list: list[KernelType] = field(default_factory=lambda: list(KERNEL_TYPES))
    kernel_prob: Probabilities = field(default_factory=lambda: list(KERNEL_PROB))
    sinc_prob: Share = 0.1
    blur_sigma: Factors = (0.2, 3.0)
    betag_range: Factors = (0.5, 4.0)
    betap_range: Factors = (1.0, 2.0)

    def __post_init__(self) -> None:
        hold(type(self), vars(self))
        one_each("kernel_prob", self.kernel_list, self.kernel_prob, "kernel_list")

    def draw(self, draws: Draws) -> np.ndarray:
        """A kernel, (k, k) float64, k being the largest size."""
        least, largest = self.kernel_range
        size = least + 2 * draws.integer("size", 0, (largest - least) // 2)
        if draws.coin("sinc", self.sinc_prob):
            return random_lowpass_kernel(size, largest, draws)
        kernel = random_mixed_kernels(
            self.kernel_list,
            self.kernel_prob,
            size,
            self.blur_sigma,
            self.blur_sigma,
            betag_range=self.betag_range,
            betap_range=self.betap_range,
            draws=draws,
        )
        return padded(kernel, largest)


def draw_final_kernel(draws: Draws, probability: float, kernel_range: tuple[int, int]) -> np.ndarray:
    """The sinc at the end of the chain, or a pulse, with which nothing happens."""
    least, largest = kernel_range
    if not draws.coin("sinc", probability):
        return pulse(largest)
    size = least + 2 * draws.integer("size", 0, (largest - least) // 2)
    return random_lowpass_kernel(size, largest, draws, least=np.pi / 3)


def draw_kernels(draws: Draws, blurs: Sequence[BlurOptions], final_sinc_prob: float) -> list[Tensor]:
    """The kernels of a sample: one of each blur, and the sinc; (k, k) float32 each."""
    drawn = [blur.draw(draws.part(f"kernel{i}")) for i, blur in enumerate(blurs, start=1)]
    drawn.append(draw_final_kernel(draws.part("sinc"), final_sinc_prob, blurs[0].kernel_range))
    return [torch.from_numpy(kernel).float() for kernel in drawn]


# ------------------------------------------------------------------ the chain's options and draws
class Decisions(TypedDict, total=False):
    """What is drawn for one sample besides kernels; the numbers 1 and 2 are stages."""

    updown1: Literal["up", "down", "keep"]
    scale1: float
    mode1: Mode
    gaussian1: bool
    amount1: float
    gray1: bool
    quality1: float
    blur2: bool
    updown2: Literal["up", "down", "keep"]
    scale2: float
    mode2: Mode
    gaussian2: bool
    amount2: float
    gray2: bool
    sinc_first: bool
    mode3: Mode
    quality2: float
    seed: int


@dataclass(frozen=True)
class SecondOrder:
    """Real-ESRGAN's options, under its names and with its public values.

    Attributes:
        resize_prob: probabilities of enlarging, shrinking and keeping the size.
        resize_range: range of factors: shrinking draws from [least, 1], enlarging from [1, largest].
        gaussian_noise_prob: probability of normal noise; Poisson noise otherwise.
        noise_range: range of the standard deviation of normal noise, in steps of 1/255.
        poisson_scale_range: range of the factor of Poisson noise.
        gray_noise_prob: probability that the noise is the same in all channels.
        jpeg_range: range of JPEG qualities, from 1 to 100.
        second_blur_prob: probability of the second blur.
        resize_prob2: the second stage's probabilities of enlarging, shrinking and keeping the size.
        resize_range2: the second stage's range of factors.
        gaussian_noise_prob2: the second stage's probability of normal noise.
        noise_range2: the second stage's range of standard deviations of normal noise.
        poisson_scale_range2: the second stage's range of the factor of Poisson noise.
        gray_noise_prob2: the second stage's probability of gray noise.
        jpeg_range2: the second stage's range of JPEG qualities.
    """

    resize_prob: Three = field(default_factory=lambda: [0.2, 0.7, 0.1])
    resize_range: Factors = (0.15, 1.5)
    gaussian_noise_prob: Share = 0.5
    noise_range: Amounts = (1.0, 30.0)
    poisson_scale_range: Amounts = (0.05, 3.0)
    gray_noise_prob: Share = 0.4
    jpeg_range: Qualities = (30.0, 95.0)
    second_blur_prob: Share = 0.8
    resize_prob2: Three = field(default_factory=lambda: [0.3, 0.4, 0.3])
    resize_range2: Factors = (0.3, 1.2)
    gaussian_noise_prob2: Share = 0.5
    noise_range2: Amounts = (1.0, 25.0)
    poisson_scale_range2: Amounts = (0.05, 2.5)
    gray_noise_prob2: Share = 0.4
    jpeg_range2: Qualities = (30.0, 95.0)

    def __post_init__(self) -> None:
        hold(type(self), vars(self))

    @classmethod
    def of(cls, options: SecondOrder | Mapping[str, Any]) -> SecondOrder:
        """From a block of an option file.

        Raises:
            UserError: an unknown or a wrong option.
        """
        if isinstance(options, SecondOrder):
            return options
        known = [f.name for f in dataclasses.fields(cls)]
        strange = [k for k in options if k not in known]
        if strange:
            raise UserError(f"degradation: unknown key '{strange[0]}'. Accepted: {', '.join(known)}.")
        return cls(**options)

    def decide(self, draws: Draws) -> Decisions:
        """All numbers of one sample but its kernels."""
        # Every number has a name of its own, so that one more draw changes no other.
        updown1, scale1 = _drawn_scale(draws.part("resize1"), self.resize_prob, self.resize_range)
        updown2, scale2 = _drawn_scale(draws.part("resize2"), self.resize_prob2, self.resize_range2)
        gaussian1 = draws.coin("gaussian1", self.gaussian_noise_prob)
        gaussian2 = draws.coin("gaussian2", self.gaussian_noise_prob2)
        amounts1 = self.noise_range if gaussian1 else self.poisson_scale_range
        amounts2 = self.noise_range2 if gaussian2 else self.poisson_scale_range2
        return {
            "updown1": updown1,
            "scale1": scale1,
            "mode1": draws.choice("mode1", MODES),
            "gaussian1": gaussian1,
            "amount1": draws.uniform("amount1", *amounts1),
            "gray1": draws.coin("gray1", self.gray_noise_prob),
            "quality1": draws.uniform("quality1", *self.jpeg_range),
            "blur2": draws.coin("blur2", self.second_blur_prob),
            "updown2": updown2,
            "scale2": scale2,
            "mode2": draws.choice("mode2", MODES),
            "gaussian2": gaussian2,
            "amount2": draws.uniform("amount2", *amounts2),
            "gray2": draws.coin("gray2", self.gray_noise_prob2),
            "sinc_first": draws.coin("sinc_first", 0.5),
            "mode3": draws.choice("mode3", MODES),
            "quality2": draws.uniform("quality2", *self.jpeg_range2),
            "seed": draws.seed,
        }


def _drawn_scale(
    draws: Draws, weights: Sequence[float], factors: tuple[float, float]
) -> tuple[Literal["up", "down", "keep"], float]:
    choices: tuple[Literal["up", "down", "keep"], ...] = ("up", "down", "keep")
    updown = draws.choice("updown", choices, weights)
    low, high = {"up": (1.0, factors[1]), "down": (factors[0], 1.0), "keep": (1.0, 1.0)}[updown]
    return updown, draws.uniform("scale", low, high)


# ------------------------------------------------------------------ the chain
Noise = Callable[[int, int, Tensor], Tensor]
"""``noise(stage, sample, image)``: the noisy image, clipped to [0, 1], of an image (3, h, w) in stage 1 or 2."""


def degrade_one(
    image: Tensor, kernels: Sequence[Tensor], draws: Decisions, scale: int, engine: Engine, noise: Noise | None = None
) -> Tensor:
    """`degrade_all` of one image (3, H, W), by three kernels (k, k)."""
    return degrade_all([image], [[kernel] for kernel in kernels], [draws], scale, engine, noise)[0]


def degrade_all(
    images: Sequence[Tensor],
    kernels: Sequence[Sequence[Tensor]],
    draws: Sequence[Decisions],
    scale: int,
    engine: Engine,
    noise: Noise | None = None,
) -> list[Tensor]:
    """The chain on images, each with its own draws.

    Args:
        images: (3, H, W) RGB in [0, 1], sharpened already if that is wanted.
        kernels: kernels of all first blurs, of all second ones, and of all last ones, each (k, k).
        draws: decisions of each sample.
        scale: factor by which the results are smaller.
        engine: what computes it; it may take images that are of one size at the time together.
        noise: noise, instead of the noise that `draws` says.

    Returns:
        (3, H // scale, W // scale) each, on the 8-bit grid.
    """
    samples = range(len(images))
    sizes = [tuple(image.shape[-2:]) for image in images]

    def noisy(stage: int, i: int, x: Tensor) -> Tensor:
        if noise is not None:
            return noise(stage, i, x)
        own: Mapping[str, Any] = draws[i]
        add = engine.gaussian if own[f"gaussian{stage}"] else engine.poisson
        return add(x, own[f"amount{stage}"], own[f"gray{stage}"], Draws(own["seed"], f"noise{stage}."))

    def compressed(which: Sequence[int], key: Literal["quality1", "quality2"]) -> None:
        _replace(x, which, engine.jpegs([x[i] for i in which], [draws[i][key] for i in which]))

    # The first stage.
    x = engine.blur_all(images, kernels[0])
    x = [noisy(1, i, engine.rescale(x[i], draws[i]["scale1"], draws[i]["mode1"])) for i in samples]
    compressed(samples, "quality1")
    # The second stage, whose blur is left out for some.
    again = [i for i in samples if draws[i]["blur2"]]
    _replace(x, again, engine.blur_all([x[i] for i in again], [kernels[1][i] for i in again]))
    for i, (height, width) in enumerate(sizes):
        factor = draws[i]["scale2"]
        between = (max(1, int(height / scale * factor)), max(1, int(width / scale * factor)))
        x[i] = noisy(2, i, engine.resize(x[i], between, draws[i]["mode2"]))
    # JPEG before or after the last filter, as each sample has drawn.
    compressed([i for i in samples if not draws[i]["sinc_first"]], "quality2")
    x = [engine.resize(x[i], (h // scale, w // scale), draws[i]["mode3"]) for i, (h, w) in enumerate(sizes)]
    x = engine.blur_all(x, kernels[2])
    compressed([i for i in samples if draws[i]["sinc_first"]], "quality2")
    return [quantise(image) for image in x]


def _replace(images: list[Tensor], places: Sequence[int], new: Sequence[Tensor]) -> None:
    for place, image in zip(places, new, strict=True):
        images[place] = image


def degrade_second_order(
    gt: Tensor,
    kernel1: Tensor,
    kernel2: Tensor,
    sinc_kernel: Tensor,
    draws: Sequence[Decisions],
    scale: int,
    noise: Noise | None = None,
    engine: Engine | None = None,
) -> Tensor:
    """The chain on a batch, each sample with its own draws.

    Args:
        gt: (B, 3, H, W) RGB in [0, 1], sharpened already if that is wanted.
        kernel1: (B, k, k), of the first blur.
        kernel2: (B, k, k), of the second.
        sinc_kernel: (B, k, k), of the last.
        draws: one for each sample, see `SecondOrder.decide`.
        scale: factor by which the result is smaller.
        noise: function that replaces the noise.
        engine: what computes it; the tensor engine when omitted.

    Returns:
        (B, 3, H // scale, W // scale), on the 8-bit grid.
    """
    kernels = [list(k) for k in (kernel1, kernel2, sinc_kernel)]
    # Outside autocast: half precision would round what JPEG quantises, and is slower in the unsharp mask.
    with torch.no_grad(), torch.autocast(gt.device.type, enabled=False):
        return torch.stack(degrade_all(list(gt), kernels, draws, scale, engine or Engine(), noise))


# ------------------------------------------------------------------ cutting training patches
def cut_pair(lq: Tensor, targets: Sequence[Tensor], size: int, scale: int, draws: Draws) -> tuple[Tensor, list[Tensor]]:
    """A random window of one sample's input and targets.

    Args:
        lq: (3, h, w).
        targets: (3, H, W) each, `scale` times as large.
        size: side of the window in the targets' pixels, a multiple of `scale`.
        scale: size of targets / size of `lq`.
        draws: random numbers of the sample.

    Raises:
        UserError: the window is larger than the degraded image.
    """
    side = size // scale
    height, width = lq.shape[-2:]
    if min(height, width) < side:
        raise UserError(f"gt_size {size}: is larger than the degraded image, {height * scale}x{width * scale}")
    top = draws.integer("top", 0, height - side)
    left = draws.integer("left", 0, width - side)

    def window(image: Tensor, k: int) -> Tensor:
        return image[..., top * k : (top + side) * k, left * k : (left + side) * k]

    return window(lq, 1), [window(t, scale) for t in targets]


def synthesise(
    batch: Mapping[str, Any],
    options: SecondOrder,
    scale: int,
    gt_size: int,
    engine: Engine,
    degraded: Tensor | None = None,
) -> dict[str, Tensor]:
    """Training pairs from what `datasets.real_esrgan.RealESRGANDataset` gives, on the device of ``gt``.

    Args:
        batch: ``gt`` (B, 3, H, W), ``kernel1``, ``kernel2``, ``sinc_kernel`` (B, k, k), and seeds, see `seeds_of`.
        options: options of the chain.
        scale: factor of super-resolution.
        gt_size: side of the patch that is cut of each, at random.
        engine: engine that computes it.
        degraded: what is degraded instead of ``gt``, its sharpened copy, say.

    Returns:
        ``lq`` (B, 3, gt_size / scale, gt_size / scale), ``gt``, and ``degraded``, cut alike.
    """
    source = batch["gt"] if degraded is None else degraded
    draws = [Draws(seed) for seed in seeds_of(batch)]
    first, second, last = (batch[k].float() for k in ("kernel1", "kernel2", "sinc_kernel"))
    decisions = [options.decide(d) for d in draws]
    lq = degrade_second_order(source, first, second, last, decisions, scale, engine=engine)
    cut = [cut_pair(lq[i], [batch["gt"][i], source[i]], gt_size, scale, draws[i].part("crop")) for i in range(len(lq))]
    return {
        "lq": torch.stack([pair[0] for pair in cut]),
        "gt": torch.stack([pair[1][0] for pair in cut]),
        "degraded": torch.stack([pair[1][1] for pair in cut]),
    }
