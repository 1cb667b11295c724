"""Augmentations of whole batches that cut and mix samples, and the draw of one for every batch.

Each function takes ground truths (B, C, s H, s W) and inputs (B, C, H, W), and returns both changed alike; its arguments stay
as they are. A `box` is [row0, column0, row1, column1] in pixels of the input, `order` the partner of each sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..degradations.draws import Draws, seeds_of
from ..degradations.limits import one_each
from ..errors import UserError
from .augment import Mixup

Pair = tuple[Tensor, Tensor]
Augmentation = Literal["none", "mixup", "cutmix", "resizemix", "cutblur", "downup"]
DEFAULT: tuple[Augmentation, ...] = ("none", "mixup", "cutmix", "resizemix")
ALONE = ("cutblur", "downup")
"""Augmentations that need no partner."""
RESAMPLING = ("bilinear", "bicubic", "nearest-exact")


def _windows(box: Sequence[int], scale: int) -> list[tuple[slice, ...]]:
    """The box in batches of ground truths and of inputs."""
    row0, column0, row1, column1 = box
    every = slice(None)
    return [(every, every, slice(row0 * k, row1 * k), slice(column0 * k, column1 * k)) for k in (scale, 1)]


def mixup(gt: Tensor, lq: Tensor, scale: int, weight: float, order: Sequence[int]) -> Pair:
    """``weight x + (1 - weight) partner``, of images (B, C, H, W) and inputs (B, C, h, w) (Zhang et al., arXiv:1710.09412)."""
    partners = list(order)
    return weight * gt + (1 - weight) * gt[partners], weight * lq + (1 - weight) * lq[partners]


def cutmix(gt: Tensor, lq: Tensor, scale: int, box: Sequence[int], order: Sequence[int]) -> Pair:
    """The partner inside the box, of images (B, C, H, W) and inputs (B, C, h, w) (Yun et al., arXiv:1905.04899)."""
    mixed = gt.clone(), lq.clone()
    for image, source, window in zip(mixed, (gt, lq), _windows(box, scale), strict=True):
        image[window] = source[list(order)][window]
    return mixed


def resizemix(gt: Tensor, lq: Tensor, scale: int, box: Sequence[int], order: Sequence[int]) -> Pair:
    """The partner, shrunk, inside the box, of images (B, C, H, W) and inputs (B, C, h, w) (Qin et al., arXiv:2012.11101)."""
    mixed = gt.clone(), lq.clone()
    for image, source, window in zip(mixed, (gt, lq), _windows(box, scale), strict=True):
        inside = image[window]
        inside.copy_(_shrunk(source[list(order)], inside).clamp(0, 1))
    return mixed


def cutblur(gt: Tensor, lq: Tensor, scale: int, box: Sequence[int]) -> Pair:
    """The ground truth's box (B, C, H, W), shrunk, inside that of the input (B, C, h, w) (Yoo et al., arXiv:2004.00448)."""
    mixed, (large, small) = lq.clone(), _windows(box, scale)
    inside = mixed[small]
    inside.copy_(_shrunk(gt[large], inside))
    return gt.clone(), mixed


def downup(gt: Tensor, lq: Tensor, factor: float, down: str, up: str) -> Pair:
    """The input (B, C, h, w) shrunk by `factor` and enlarged again, by two of `RESAMPLING`; lossy, of the same ground truth."""
    height, width = lq.shape[-2:]
    small = (max(1, round(height * factor)), max(1, round(width * factor)))
    shrunk = F.interpolate(lq, small, mode=down, antialias=down != "nearest-exact")
    return gt.clone(), F.interpolate(shrunk, (height, width), mode=up).clamp(0, 1)


def _shrunk(image: Tensor, like: Tensor) -> Tensor:
    """To the size of another batch, bicubic with antialiasing."""
    size = (like.shape[-2], like.shape[-1])
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image, size, mode="bicubic", antialias=True)


class BatchMixing:
    """One augmentation for every batch, drawn with its parameters from the seed of the batch's first sample.

    Partners are within the micro-batch of one rank: what a sample is mixed with depends on ``batch_size_per_gpu``, and on
    nothing else. A batch of one has no partners, and is left as it is by all but `ALONE`. Of clips (B, T, C, H, W) all frames
    are changed alike.

    Args:
        names: augmentations to choose from.
        probabilities: probability of each; all alike when None.

    Raises:
        UserError: not one probability for each.
    """

    def __init__(self, names: Sequence[Augmentation] = DEFAULT, probabilities: Sequence[float] | None = None) -> None:
        if not names:
            raise UserError("moa_augs: give at least one augmentation, such as mixup")
        self.names = list(names)
        self.probabilities = list(probabilities) if probabilities is not None else [1 / len(names)] * len(names)
        one_each("moa_probs", self.names, self.probabilities, "moa_augs")

    def __call__(self, images: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
        """``lq`` and all targets, (B, C, H, W) or (B, T, C, H, W) by name, of sizes in whole proportion, changed alike.

        Raises:
            UserError: ``cutblur`` of a clip whose target is one frame.
        """
        draws = Draws(seed, "batch.")
        name = draws.choice("augmentation", self.names, self.probabilities)
        if name == "none" or (len(images["lq"]) == 1 and name not in ALONE):
            return dict(images)
        flat = {key: image.flatten(1, -3) for key, image in images.items()}  # frames as channels
        lq = flat["lq"]
        changed: dict[str, Tensor] = {}
        for key, target in flat.items():
            if key != "lq":
                if name == "cutblur" and target.shape[1] != lq.shape[1]:
                    raise UserError("moa_augs: cutblur needs a target of the input's shape; leave it out here")
                changed[key], changed["lq"] = apply(name, target, lq, target.shape[-1] // lq.shape[-1], draws)
        return {key: changed[key].reshape(image.shape) for key, image in images.items()}


class Mixing:
    """What ``use_moa`` and then ``mixing_augs`` do to the batches of a model.

    Args:
        mixing_augs: block of mixup, see `Mixup.from_options`.
        use_moa: change batches by `BatchMixing`.
        moa_augs: augmentations of `BatchMixing`.
        moa_probs: probabilities of those augmentations.

    Raises:
        UserError: unknown names, or other probabilities than one for each.
    """

    def __init__(
        self,
        mixing_augs: Mapping[str, bool | float] | None,
        use_moa: bool,
        moa_augs: Sequence[Augmentation],
        moa_probs: Sequence[float] | None,
    ) -> None:
        self.mixup = Mixup.from_options(mixing_augs)
        self.augmentation = BatchMixing(moa_augs, moa_probs) if use_moa else None

    def __call__(self, images: dict[str, Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """``lq`` and all targets by name, changed alike, by the draws of the batch that they are from."""
        if self.augmentation is not None:
            images = self.augmentation(images, seed_of(batch))
        return self.mixup(images) if self.mixup is not None else images


def mistakes_of_mixing(opt: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with ``use_moa`` and what belongs to it, by key."""
    train = opt.get("train") or {}
    if not train.get("use_moa"):
        return
    names = train.get("moa_augs", DEFAULT)
    try:
        BatchMixing(names, train.get("moa_probs"))
    except UserError as e:
        key, _, text = str(e).partition(": ")
        yield f"train.{key}", text
    block = opt["datasets"].get("train") or {}
    if block.get("batch_size_per_gpu") == 1 and not set(names) & set(ALONE):
        yield "train.use_moa", f"has no effect with batch_size_per_gpu: 1; of one sample there are {', '.join(ALONE)}"


def seed_of(batch: Mapping[str, Any]) -> int:
    """What a batch's own draws come from: the seed of its first sample, or torch's global generator where it has none."""
    return seeds_of(dict(batch))[0] if "seed" in batch else int(torch.randint(2**62, ()))


def apply(name: Augmentation, gt: Tensor, lq: Tensor, scale: int, draws: Draws) -> Pair:
    """One augmentation of images (B, C, H, W) and inputs (B, C, h, w) by name, its parameters drawn."""
    height, width = lq.shape[-2:]
    order = draws.order("partner", len(lq))
    if name == "mixup":
        return mixup(gt, lq, scale, draws.uniform("weight", 0.4, 0.6), order)
    if name == "cutmix":
        share = math.sqrt(1 - draws.uniform("share", 0, 0.9))
        return cutmix(gt, lq, scale, random_box(height, width, share, draws), order)
    if name == "resizemix":
        return resizemix(gt, lq, scale, random_box(height, width, draws.uniform("side", 0.5, 0.9), draws), order)
    if name == "downup":
        down, up = draws.choice("down", RESAMPLING), draws.choice("up", RESAMPLING)
        return downup(gt, lq, draws.uniform("factor", 0.5, 0.9), down, up)
    return cutblur(gt, lq, scale, random_box(height, width, draws.uniform("side", 0.2, 0.7), draws))


def random_box(height: int, width: int, share: float, draws: Draws) -> list[int]:
    """A box of `share` of both sides around a centre anywhere, cut at the borders; at least one pixel."""
    box = []
    for name, side in (("row", height), ("column", width)):
        centre, half = draws.integer(name, 0, side - 1), int(side * share) // 2
        first = max(0, centre - half)
        box.append((first, max(first + 1, min(side, centre + half))))
    return [box[0][0], box[1][0], box[0][1], box[1][1]]
