"""Real-ESRGAN: pairs made on the device from good photographs, and targets that are sharpened or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...annotations import Count
from ...degradations.engines import Engine, Fields, make_engine
from ...degradations.filters import USMSharp
from ...degradations.limits import JpegTable
from ...degradations.second_order import SecondOrder, synthesise
from ...errors import UserError
from .. import MODELS
from ..base import Batch
from ..restoration import RestorationModel
from .model import SRGANModel


@dataclass(frozen=True)
class Synthesis(SecondOrder):
    """Keys at the top level of the option file that say how pairs are made; those of the chain itself come before.

    Attributes:
        high_order_degradation: make ``lq`` from ``gt`` where the data set gives no pairs.
        gt_size: side of the patch that is cut of each degraded image.
        scale: factor of super-resolution.
        queue_size: accepted, without effect: every sample is degraded by draws of its own, so that no pool is needed to mix
            batches from.
        jpeg_table: ``basicsr`` as the public weights were trained with, or ``standard``.
        noise_fields: device on which noise is drawn: ``cpu``, the same numbers on every device, or ``device``, faster on a
            GPU, and the same for one kind of GPU only.
    """

    high_order_degradation: bool = True
    gt_size: Count | None = None
    scale: Count = 1
    queue_size: Count = 180
    jpeg_table: JpegTable = "basicsr"
    noise_fields: Fields = "cpu"


@dataclass(frozen=True)
class SharpenedTargets(Synthesis):
    """`RealESRGANModel`'s keys at the top level.

    Attributes:
        l1_gt_usm: losses of pixels see the sharpened target.
        percep_gt_usm: losses through a frozen network do.
        gan_gt_usm: the discriminator does.
    """

    l1_gt_usm: bool = True
    percep_gt_usm: bool = True
    gan_gt_usm: bool = False


@dataclass(frozen=True)
class SharpenedTarget(Synthesis):
    """`RealESRNetModel`'s keys at the top level.

    Attributes:
        gt_usm: sharpen what is degraded and what it is compared with.
    """

    gt_usm: bool = True


class PairMaker(nn.Module):
    """Makes training pairs of a batch, on its device and in float32, each from its own seed.

    Args:
        keys: the options.
    """

    def __init__(self, keys: Synthesis) -> None:
        super().__init__()
        self.keys = keys
        self.usm = USMSharp()
        self.engine: Engine = make_engine("tensor", keys.jpeg_table, keys.noise_fields)

    @torch.no_grad()
    def sharpened(self, image: Tensor) -> Tensor:
        """`image` (B, 3, H, W) through the unsharp mask."""
        result: Tensor = self.usm.to(image.device)(image)
        return result

    @torch.no_grad()
    def pair(self, batch: Batch, sharpen: bool) -> dict[str, Tensor]:
        """``lq``, ``gt``, and ``degraded``, the patch of ``gt`` that was degraded, sharpened or not: (B, 3, H, W) each.

        Raises:
            UserError: the batch has neither pairs nor what pairs are made from.
        """
        if "lq" in batch:
            gt: Tensor = batch["gt"]
            return {"lq": batch["lq"], "gt": gt, "degraded": self.sharpened(gt) if sharpen else gt}
        if not self.keys.high_order_degradation:
            raise UserError("high_order_degradation: false, but the training set gives no lq; give it pairs")
        if "kernel1" not in batch:
            raise UserError("the training set gives neither lq nor blur kernels; use RealESRGANDataset, or pairs")
        gt = batch["gt"]
        size = self.keys.gt_size or min(gt.shape[-2:])
        source = self.sharpened(gt) if sharpen else gt
        return synthesise(batch, self.keys, self.keys.scale, size, self.engine, source)


@MODELS.register(
    aliases=("RealESRGANArtifactsDisModel", "RealHATGANModel", "RealDRCTGANModel", "RealESRGANPairedModel")
)
class RealESRGANModel(SRGANModel):
    """Real-ESRGAN (Wang et al., ICCVW 2021): `SRGANModel` on pairs that are made in every step, with sharpened targets.

    What is degraded is always sharpened. Which targets are is said at the top level (`SharpenedTargets`), as is the degradation
    (`core.degradations.second_order.SecondOrder`). LDL's map sees the target as it is. Options under ``train`` are those of
    `SRGANModel`.
    """

    top_level: ClassVar[type | None] = SharpenedTargets

    def configure(self, keys: Any) -> None:
        self.keys: SharpenedTargets = keys
        self.maker = PairMaker(keys)

    def images(self, batch: Batch) -> dict[str, Tensor]:
        pair = self.maker.pair(batch, sharpen=True)
        images = self.mixing({"lq": pair["lq"], "gt": pair["gt"]}, batch)
        flags = {"l1": self.keys.l1_gt_usm, "percep": self.keys.percep_gt_usm, "gan": self.keys.gan_gt_usm}
        # Anew, as in the original: the patch was cut after the whole was sharpened, and may be mixed by now.
        sharp = self.maker.sharpened(images["gt"]) if any(flags.values()) else images["gt"]
        return {**images, **{target: sharp for target, flag in flags.items() if flag}}


@MODELS.register(aliases=("RealHATMSEModel", "RealDRCTMSEModel"))
class RealESRNetModel(RestorationModel):
    """Real-ESRNet (Wang et al., ICCVW 2021): `RestorationModel`, with its options, on pairs that are made in every step.

    Whether what is degraded, and thereby the target, is sharpened is said at the top level (`SharpenedTarget`), as is the
    degradation (`core.degradations.second_order.SecondOrder`).
    """

    top_level: ClassVar[type | None] = SharpenedTarget

    def configure(self, keys: Any) -> None:
        self.keys: SharpenedTarget = keys
        self.maker = PairMaker(keys)

    def prepared(self, batch: Batch, step: int) -> Batch:
        """The pairs made of it, changed as the options say."""
        pair = self.maker.pair(batch, sharpen=self.keys.gt_usm)
        return super().prepared({**batch, "lq": pair["lq"], "gt": pair["degraded"]}, step)
