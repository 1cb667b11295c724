"""Paired restoration: one image in, one or several images out (SR, denoising, deblurring, underwater enhancement, ...)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from . import MODELS
from .base import Batch, Model, Update


@MODELS.register(aliases=("SRModel", "ImageCleanModel", "ImageRestorationModel"))
class RestorationModel(Model):
    """Every loss of the options on every output of the network.

    A network with one output is trained on ``gt``. One with several returns a tuple, the first being *the* output; each is
    compared with ``gt_<i>`` of the batch (i counted from 2) where the dataset gives one, else with ``gt`` resized bilinearly
    to the output's size (Phaseformer's second output is twice as large as its input).

    Args:
        output_weights: weight of each output's losses; 1 each when omitted.
        mixing_augs: Restormer's mixup of whole batches, ``{mixup: true, mixup_beta: 1.2, use_identity: true}``.
    """

    def __init__(
        self,
        networks: dict[str, nn.Module],
        losses: dict[str, nn.Module],
        *,
        output_weights: list[float] | None = None,
        mixing_augs: dict[str, bool | float] | None = None,
    ) -> None:
        super().__init__(networks, losses)
        self.output_weights = output_weights
        self.mixup = Mixup.from_options(mixing_augs)

    def updates(self, batch: Batch, step: int) -> Iterator[Update]:
        lq, gt = batch["lq"], batch["gt"]
        if self.mixup is not None:
            lq, gt = self.mixup(lq, gt)
        outputs = as_tuple(self.networks["g"](lq))
        if len(outputs) == 1:
            yield Update("g", self.loss_terms(outputs[0], gt), self.loss_logs())
            return
        weights = self.output_weights or [1.0] * len(outputs)
        if len(weights) != len(outputs):
            raise UserError(f"train.output_weights has {len(weights)} entries, the network {len(outputs)} outputs")
        terms: dict[str, Tensor] = {}
        for i, (output, weight) in enumerate(zip(outputs, weights, strict=True), start=1):
            target = batch.get(f"gt_{i}", resized(gt, output))
            terms.update({k: weight * v for k, v in self.loss_terms(output, target, prefix=f"l_{i}_").items()})
        yield Update("g", terms, self.loss_logs())

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        outputs = as_tuple(self.inference(self.networks["g"], batch["lq"]))
        return {"output" if i == 1 else f"output_{i}": y for i, y in enumerate(outputs, start=1)}


def as_tuple(output: Tensor | tuple[Tensor, ...] | list[Tensor]) -> tuple[Tensor, ...]:
    """A network's output as a tuple of tensors."""
    return (output,) if isinstance(output, Tensor) else tuple(output)


def resized(target: Tensor, like: Tensor) -> Tensor:
    """`target` (B, C, H, W) bilinearly resized to the height and width of `like`."""
    if target.shape[-2:] == like.shape[-2:]:
        return target
    return F.interpolate(target, size=like.shape[-2:], mode="bilinear", align_corners=False)


class Mixup:
    """Convex mixtures of each sample with a random partner of the same batch, inputs and targets alike.

    Args:
        beta: both parameters of the Beta distribution that the mixing weight is drawn from, one draw per batch.
        use_identity: leave half of the batches as they are.
    """

    def __init__(self, beta: float = 1.2, use_identity: bool = False) -> None:
        self.beta = beta
        self.use_identity = use_identity

    @classmethod
    def from_options(cls, options: dict[str, bool | float] | None) -> Mixup | None:
        """Restormer's ``mixing_augs`` block; None unless it says ``mixup: true``."""
        if not options or not options.get("mixup"):
            return None
        unknown = set(options) - {"mixup", "mixup_beta", "use_identity"}
        if unknown:
            accepted = "mixup, mixup_beta, use_identity"
            raise UserError(f"train.mixing_augs: unknown key '{sorted(unknown)[0]}'. Accepted: {accepted}.")
        return cls(float(options.get("mixup_beta", 1.2)), bool(options.get("use_identity", False)))

    def __call__(self, lq: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
        if self.use_identity and torch.rand(()) < 0.5:
            return lq, gt
        weight = float(torch.distributions.Beta(self.beta, self.beta).sample())
        partner = torch.randperm(len(lq), device=lq.device)
        return weight * lq + (1 - weight) * lq[partner], weight * gt + (1 - weight) * gt[partner]
