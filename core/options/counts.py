"""Numbers of iterations that option files give in epochs: what they are once the training set and the batch are known.

An epoch is one pass over the training set, repeats (``dataset_enlarge_ratio``) included, at the batch over all ranks and
micro-batches. It is taken as the nearest whole number of iterations, and N epochs as N times that, so that
``val_freq: 1 epoch`` divides ``total_epoch: 300``. (Samples come in one endless stream here, so no batch is short, and none is
dropped.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...datasets.base import DatasetTraits
from ...datasets.loading.loader import plan_of, product
from ...datasets.loading.sampler import Plan
from ..annotations import Epochs, declared
from . import check
from .schema import Options


@dataclass(frozen=True)
class Epoch:
    """How long an epoch is.

    Attributes:
        samples: samples of an epoch.
        plan: samples that a rank takes, by iteration.
        ranks: processes that train together.
    """

    samples: int
    plan: Plan
    ranks: int = 1

    @classmethod
    def of(cls, opt: Options, length: int, ranks: int = 1) -> Epoch:
        """That of checked options, whose training set has so many samples (`length_of`); its ``iters`` are resolved by now."""
        block = opt.datasets["train"]
        plan = plan_of(block, opt.train.accumulate if opt.train else 1)
        return cls(length * block.dataset_enlarge_ratio, plan, ranks)

    @property
    def batch(self) -> int:
        """Samples of the first iteration."""
        return self.plan.taken(1) * self.ranks

    @property
    def changes(self) -> bool:
        """Whether later iterations have other numbers of samples."""
        return len(set(map(self.plan.taken, self.plan.firsts))) > 1

    @property
    def iterations(self) -> int:
        """Iterations of the first epoch."""
        return nearest(self.samples / self.batch)

    def iterations_of(self, epochs: float) -> int:
        """What so many epochs, from the first iteration on, are; 0 for none."""
        if epochs == 0:
            return 0
        if not self.changes:
            return nearest(epochs * self.iterations)
        left, done = epochs * self.samples / self.ranks, 0
        for length in (self.plan.iters or ())[:-1]:
            batch = self.plan.taken(done + 1)
            if left <= length * batch:
                return done + nearest(left / batch)
            left, done = left - length * batch, done + length
        return done + nearest(left / self.plan.taken(done + 1))

    def epochs_of(self, iterations: int) -> float:
        """How many epochs so many iterations are."""
        return self.plan.samples(iterations) * self.ranks / self.samples

    def said_of(self, total_iter: int) -> str:
        """So many iterations of a whole run in words."""
        return f"{total_iter:,} iterations in all: {self.epochs_of(total_iter):,.2f} epochs"

    @property
    def sentence(self) -> str:
        """The length of an epoch in words."""
        exact = self.samples / self.batch
        batch = product(self.plan.at(1).batch, self.ranks, self.plan.micro_batches(1))
        whole = "" if exact == self.iterations else f" (not {exact:,.2f}: the batch does not divide it)"
        first = "The first epoch" if self.changes else "An epoch"
        return f"{first} is {self.samples:,} samples at {batch} an iteration: {self.iterations:,} iterations{whole}"


def length_of(dataset: Any) -> int:
    """Samples of an epoch of a training set, before repeats."""
    return declared(dataset, "epoch_length", DatasetTraits) or len(dataset)


def nearest(number: float) -> int:
    """The nearest whole number, of two the larger one, but at least 1."""
    return max(1, math.floor(number + 0.5))


def rounded(epochs: float) -> str:
    """A number of epochs, to two decimals, of less than one to four.

    >>> rounded(300.0), rounded(12.345), rounded(0.00125)
    ('300', '12.35', '0.0013')
    """
    return f"{epochs:.{2 if epochs >= 1 else 4}f}".rstrip("0").rstrip(".")


def given(opt: Options) -> bool:
    """Whether some number of iterations is given in epochs."""
    return any(True for _ in spans(opt)) or (opt.train is not None and opt.train.total_epoch is not None)


def spans(values: Any) -> Iterator[Epochs]:
    """The `Epochs` in options, at any depth."""
    if isinstance(values, Epochs):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from spans(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from spans(value)


def resolved(opt: Options, length: int, ranks: int = 1) -> Options:
    """Checked options in which every number of iterations is one.

    Args:
        opt: checked options with a training set.
        length: samples of the training set (`length_of`).
        ranks: processes that train together.

    Raises:
        OptionError: a number that came out so is not possible where it stands.
    """
    if not given(opt):
        return opt
    values = opt.to_dict()
    block = values["datasets"]["train"]
    if block["iters"]:
        stages = len(block["iters"])
        sizes = block["mini_batch_sizes"] or [block["batch_size_per_gpu"]] * stages
        micro = block["accumulates"] or [values["train"]["accumulate"]] * stages
        samples = length * block["dataset_enlarge_ratio"]
        alone = [Epoch(samples, Plan(n * m), ranks) for n, m in zip(sizes, micro, strict=True)]
        block["iters"] = [in_iterations(n, epoch) for n, epoch in zip(block["iters"], alone, strict=True)]
        opt = check(values)
        values = opt.to_dict()
    epoch = Epoch.of(opt, length, ranks)
    values = in_iterations(values, epoch)
    if values["train"]["total_epoch"] is not None:
        values["train"]["total_iter"] = epoch.iterations_of(values["train"].pop("total_epoch"))
    return check(values)


def in_iterations(values: Any, epoch: Epoch) -> Any:
    """Plain values with iterations in place of `Epochs`."""
    if isinstance(values, Epochs):
        return epoch.iterations_of(values.count)
    if isinstance(values, dict):
        return {k: in_iterations(v, epoch) for k, v in values.items()}
    return [in_iterations(v, epoch) for v in values] if isinstance(values, list) else values
