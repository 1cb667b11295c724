"""Straight lines: down to zero, down after a plateau, and down while vibrating."""

from __future__ import annotations

from torch.optim import Optimizer

from ..core.annotations import Steps
from ..core.errors import UserError
from . import SCHEDULERS
from .base import ClosedForm, positive


@SCHEDULERS.register()
class LinearLR(ClosedForm):
    """From the base rate to zero in `total_iter` steps, and zero after that (Restormer's).

    Torch has another LinearLR, with start_factor and end_factor; this name follows the BasicSR family. Torch's
    PolynomialLR and LambdaDecay describe other straight lines.

    Args:
        optimizer: optimizer, whose rates are the base rates.
        total_iter: steps to zero.
        last_epoch: steps taken minus one; -1 starts from the beginning.

    Raises:
        UserError: `total_iter` is not positive.
    """

    def __init__(self, optimizer: Optimizer, total_iter: Steps, last_epoch: int = -1) -> None:
        self.total_iter = positive("LinearLR", "total_iter", total_iter)
        super().__init__(optimizer, last_epoch)

    @property
    def length(self) -> int:
        return self.total_iter

    def rate(self, base: float, step: int) -> float:
        return base * (1 - step / self.total_iter)


@SCHEDULERS.register()
class LambdaDecay(ClosedForm):
    """The base rate for `niter` epochs, then a straight line over `niter_decay` more (Spectroformer's, Phaseformer's).

    In epoch e, counted from 0: ``base (1 - max(0, e + epoch_count - niter) / (niter_decay + 1))``, zero where negative. The
    rule is pix2pix's (Isola et al., CVPR 2017), which counts epochs from 1: its rates, whose descent begins one epoch earlier,
    are those of ``epoch_count: 1``.

    Args:
        optimizer: optimizer, whose rates are the base rates.
        niter: epochs at the base rate.
        niter_decay: epochs of the descent.
        epoch_count: epochs to count as done at the start.
        iters_per_epoch: iterations that make an epoch of this rule, usually samples / batch size, rounded up.
        last_epoch: see `ClosedForm`; a number of iterations.

    Raises:
        UserError: `iters_per_epoch` is not positive, or `niter_decay` is negative.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        niter: int = 50,
        niter_decay: int = 500,
        epoch_count: int = 0,
        iters_per_epoch: Steps = 1,
        last_epoch: int = -1,
    ) -> None:
        if niter_decay < 0:
            raise UserError(f"LambdaDecay: niter_decay must not be negative; got {niter_decay}")
        self.niter = niter
        self.niter_decay = niter_decay
        self.epoch_count = epoch_count
        self.iters_per_epoch = positive("LambdaDecay", "iters_per_epoch", iters_per_epoch)
        super().__init__(optimizer, last_epoch)

    @property
    def length(self) -> int:
        return (self.niter + self.niter_decay + 1 - self.epoch_count) * self.iters_per_epoch

    def rate(self, base: float, step: int) -> float:
        epoch = step // self.iters_per_epoch + self.epoch_count
        return base * (1 - max(0, epoch - self.niter) / (self.niter_decay + 1))


@SCHEDULERS.register()
class VibrateLR(ClosedForm):
    """A falling envelope times a triangle wave (Restormer's).

    With p the share of `total_iter` done, the envelope is ``1 - 8p/3`` up to p = 3/8, 0.2 up to 5/8, then 0.1. The wave
    rises from 0 to 1 and falls back within ``total_iter // 80`` steps; during its very first rise the product is at
    least 0.1.

    Args:
        optimizer: optimizer, whose rates are the base rates.
        total_iter: steps of training, at least 160.
        last_epoch: steps taken minus one; -1 starts from the beginning.

    Raises:
        UserError: `total_iter` is below 160, where the wave would be shorter than a step.
    """

    def __init__(self, optimizer: Optimizer, total_iter: Steps, last_epoch: int = -1) -> None:
        if total_iter < 160:
            raise UserError(f"VibrateLR: total_iter must be at least 160; got {total_iter}")
        self.total_iter = total_iter
        super().__init__(optimizer, last_epoch)

    @property
    def length(self) -> int:
        return self.total_iter

    def rate(self, base: float, step: int) -> float:
        progress = step / self.total_iter
        tail = 0.2 if progress < 5 / 8 else 0.1
        envelope = 1 - progress * 8 / 3 if progress < 3 / 8 else tail
        wave = self.total_iter // 80
        half = wave // 2
        t = step % wave
        factor = envelope * (t / half if t < half else 2 - t / half)
        return base * (max(factor, 0.1) if step < half else factor)
