"""What memory a training takes, by what one small sample leaves behind for its gradient; and which batch that allows."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .. import options
from ..errors import UserError
from ..hub import unread
from ..inference.network import channels_taken
from ..inference.tiling import next_multiple, size_multiple
from ..models.base import Batch, Model
from ..options.schema import Options
from ..runtime.activations import recomputed
from ..runtime.memory import kept_for_gradients
from ..runtime.precision import autocast, in_words, usable
from ..runtime.state import held_memory_gib, whole_memory_gib
from .networks import build_model

GB = 1e9
USABLE = 0.92
"""Share of a device's memory that can be counted on."""
FEW = 4
"""Samples of a model that has no patches, which are tried together: some of them are called twice, others once."""
SIDES = (64, 96)
"""Sides of the patches that are tried; what a sample leaves behind grows as a line with its pixels."""
LARGE = (192,)
"""Side of patches for losses that refuse small ones (MS-SSIM of five scales)."""
OVERHEAD = 1.05
"""What the backward pass makes besides, as a factor: so estimates for the recipes of HDR, interpolation and underwater pictures
are within a tenth of what processes on a CPU took, and those for generation at most a fifth above."""
LATE = 10**9
"""An iteration in which everything is trained that is trained by phases."""
COPIES = 4
"""Copies of a network's weights: themselves, gradients, and Adam's two."""


@dataclasses.dataclass(frozen=True)
class Footprint:
    """What a training takes.

    Args:
        sample: bytes of a sample in its largest patch.
        fixed: bytes besides: weights, gradients, the optimizer's state and averages; on a CPU the process itself, too.
        side: side of that patch in the ground truth, in pixels.
        batch: samples on one device that make an iteration, whatever they are divided into.
        precision: what is computed in.
        together: samples of a micro-batch at most, where it means something else with more.
    """

    sample: int
    fixed: int
    side: int
    batch: int
    precision: str
    together: int | None = None

    def sentence(self, memory: float, where: str) -> str:
        """The estimate, and the division into micro-batches that fits into so many bytes of memory."""
        what = (
            f"Memory: about {in_gb(self.sample)} for a sample of {self.side} x {self.side} in {self.precision}, and "
            f"{in_gb(self.fixed)} besides (estimated)"
        )
        fits = divided(self.batch, self.sample, memory - self.fixed, self.together)
        if fits is None:
            return f"{what}; {where} has {in_gb(memory)} to count on, too little for one"
        return f"{what}; {where} has {in_gb(memory)} to count on: batch x accumulate {fits} x {self.batch // fits}"


def in_gb(count: float) -> str:
    """Bytes in GB.

    >>> in_gb(16.8e9), in_gb(4.2e7), in_gb(4.2e6)
    ('16.8 GB', '0.04 GB', '4.2 MB')
    """
    if count < GB / 100:
        return f"{count / 1e6:.1f} MB"
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / GB:.2f} GB"


def divided(batch: int, sample: float, memory: float, together: int | None = None) -> int | None:
    """The largest part of a batch, of `together` samples at most, that fits and divides it without a remainder.

    Returns:
        None where not one sample fits.

    >>> divided(8, 16.8, 0.92 * 24), divided(8, 16.8, 0.92 * 80), divided(8, 16.8, 12)
    (1, 4, None)
    """
    most = min(batch, together or batch)
    return max((n for n in range(1, most + 1) if batch % n == 0 and n * sample <= memory), default=None)


def memory_line(opt: Options) -> str:
    """The estimate for a training on the machine at hand: its GPU, or its own memory, in which the process itself is, too.

    Raises:
        UserError: it cannot be estimated.
    """
    gpu = opt.num_gpu != 0 and torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    where = torch.cuda.get_device_name(device) if gpu else "this machine"
    itself = 0 if gpu else int(held_memory_gib(device) * 2**30)
    found = footprint(opt)
    found = dataclasses.replace(found, fixed=found.fixed + itself)
    return found.sentence(USABLE * whole_memory_gib(device) * 2**30, where)


def footprint(opt: Options) -> Footprint:
    """What a training takes, from a forward pass with one small sample on the CPU. No weights and no data are read.

    Raises:
        UserError: it trains on whole images, or needs more than `Model.imagined` gives.
    """
    if opt.train is None or "train" not in opt.datasets:
        raise UserError("it trains nothing")
    with silent(), unread():
        model, networks = build_model(without_weights(opt), torch.device("cpu"), for_training=True)
        model.averages = {k: networks[k] for k in model.averaged if k in networks}
        amp = usable(opt.train.amp, torch.device("cpu"))
        side, batch = largest_step(opt, model.own_side)
        frames = opt.datasets["train"].get("num_frame") or 1
        with autocast(torch.device("cpu"), amp):
            trial = Trial(model, opt.train.checkpoint_activations)
            sample = trial.of_own_images() if model.own_side else trial.of_patches(side, opt.scale, frames)
    trained = sum(p.numel() * p.element_size() for n in networks.values() for p in n.parameters() if p.requires_grad)
    whole = sum(p.numel() * p.element_size() for p in weights_of(model))
    averages = trained if opt.train.ema_decay or opt.train.ema_halflife else 0
    return Footprint(
        sample=int(OVERHEAD * max(sample, 1)),
        fixed=whole + (COPIES - 1) * trained + averages,
        side=side,
        batch=batch,
        precision=in_words(amp),
        together=opt.datasets["train"].batch_size_per_gpu if model.mixes_samples else None,
    )


class Trial:
    """What samples leave behind of a model for its gradients, in bytes.

    Args:
        model: the model. Its networks are changed if `again`.
        again: whether repeated blocks keep only what goes in, as ``train.checkpoint_activations`` has it: what the largest of
            them keeps is then there once, while it is computed again.
    """

    def __init__(self, model: Model, again: bool) -> None:
        self.model = model
        self.inside = 0
        """Bytes of the largest block of those that are computed again."""
        if again:
            for key in model.networks.keys() - set(model.frozen):
                recomputed(model.networks[key], lambda: (self.block(), nullcontext()))

    @contextmanager
    def block(self) -> Iterator[None]:
        """Inside, a block is computed, nothing of which is kept."""
        with kept_for_gradients(weights_of(self.model)) as kept:
            yield
        self.inside = max(self.inside, size_of(kept))

    def of_own_images(self) -> float:
        """Bytes of a sample of a model that trains on images of one size.

        Raises:
            UserError: a sample cannot be tried.
        """
        try:
            return self.left_behind(self.model.imagined(FEW, 0, 1)) / FEW
        except Exception as e:
            raise UserError(f"some samples cannot be tried ({e})") from e

    def of_patches(self, side: int, scale: int, frames: int) -> float:
        """Bytes of a sample with patches of so many pixels a side, by smaller patches.

        Raises:
            UserError: a small sample cannot be tried.
        """
        multiple = math.lcm(*(size_multiple(n) for n in self.model.networks.values())) * scale
        for sides in (SIDES, LARGE):
            rounded = sorted({next_multiple(min(s, side), multiple) for s in sides})
            try:
                left = [self.left_by_images(self.model.imagined(1, s, scale, frames)) for s in rounded]
                break
            except Exception as e:
                if sides is LARGE:
                    raise UserError(f"one small sample cannot be tried ({e})") from e
        slope = left[0] / rounded[0] ** 2
        if len(left) > 1:
            slope = (left[-1] - left[0]) / (rounded[-1] ** 2 - rounded[0] ** 2)
        return left[-1] + slope * (side**2 - rounded[-1] ** 2)

    def left_by_images(self, batch: Batch) -> int:
        """`left_behind`, with images of as many channels as the network takes: gray ones, or both views of a stereo pair."""
        try:
            return self.left_behind(batch)
        except (RuntimeError, UserError) as e:
            wanted = channels_taken(e)
            if wanted is None:
                raise
        return self.left_behind({k: of_channels(v, wanted) for k, v in batch.items()})

    def left_behind(self, batch: Batch) -> int:
        """Bytes that the forward passes of an iteration keep for the gradient, the weights themselves aside."""
        self.inside = 0
        with kept_for_gradients(weights_of(self.model)) as kept:
            next(iter(self.model.updates(batch, LATE)))
        return size_of(kept) + self.inside


def size_of(kept: Mapping[int, torch.UntypedStorage]) -> int:
    """Bytes of all storages."""
    return sum(storage.nbytes() for storage in kept.values())


def largest_step(opt: Options, own: int | None = None) -> tuple[int, int]:
    """The side of the patches that take the most memory together, and how many make an iteration on one device.

    Args:
        own: the side of all images, where there are no patches.

    Raises:
        UserError: images are trained on as large as they are.
    """
    block, accumulate = opt.datasets["train"], opt.train.accumulate if opt.train else 1
    if own:
        return own, block.batch_size_per_gpu * accumulate
    if block.gt_sizes:
        batches = block.mini_batch_sizes or [block.batch_size_per_gpu] * len(block.gt_sizes)
        parts = block.accumulates or [accumulate] * len(block.gt_sizes)
        stages = [(n * side**2, side, n * k) for side, n, k in zip(block.gt_sizes, batches, parts, strict=True)]
        return max(stages)[1:]
    patch = block.get("gt_size") or opt.get("gt_size")
    sides = (block.get("gt_size_h"), block.get("gt_size_w")) if block.get("gt_size_h") else block.get("resize")
    if not patch and not sides:
        raise UserError("it trains on images as large as they are")
    return patch or math.isqrt(sides[0] * sides[1]), block.batch_size_per_gpu * accumulate


def without_weights(opt: Options) -> Options:
    """Options that name no weights of networks."""
    values = opt.to_dict()
    values["path"] = {k: v for k, v in values["path"].items() if not k.startswith("pretrain_network_")}
    return options.check(values)


def of_channels(value: Any, count: int) -> Any:
    """An image of three channels with so many; anything else as it is."""
    if not isinstance(value, Tensor) or value.dim() < 4 or value.shape[-3] != 3:
        return value
    return value.repeat_interleave(-(-count // 3), -3)[..., :count, :, :]


def weights_of(model: Model) -> list[Tensor]:
    """The weights, of any shape, of a model's networks and of its other modules: losses, an extractor of features."""
    besides = [m for m in vars(model).values() if isinstance(m, nn.Module)]
    return [p for m in (*model.networks.values(), *besides) for p in m.parameters()]


@contextmanager
def silent() -> Iterator[None]:
    """Inside, building says nothing."""
    log = logging.getLogger("relume")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
