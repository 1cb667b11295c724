"""DiffIR (Xia et al., ICCV 2023): stage 1 learns with a prior from the ground truth, stage 2 makes that prior by itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...archs.diffir import PRIOR, DiffIRS1, DiffIRS2
from ...losses.base import Distillation
from ..annotations import Steps
from ..degradations.limits import Probabilities
from ..errors import UserError
from ..inference.network import network_trait
from ..inference.tiling import as_tuple, pad_to_multiple, size_multiple
from . import MODELS
from .base import Batch, Model, Update, flat_terms
from .batch_mixing import DEFAULT, Augmentation, Mixing, mistakes_of_mixing
from .draws import standard_normal

log = logging.getLogger("relume")


@MODELS.register()
class DiffIRS1Model(Model):
    """Stage 1: restoration whose prior comes from the input and the ground truth. It is stage 2's teacher, and not for use.

    All losses compare the output with ``gt``. `predict` takes the prior from the ground truth as well, so its scores are an
    upper bound of what stage 2 can reach; where there is no ``gt``, it takes ``gt_recover``, another estimate of it.

    Args:
        mixing_augs: Restormer's mixup of whole batches, ``{mixup: true, mixup_beta: 1.2, use_identity: true}``.
        use_moa: change every batch by one augmentation of `moa_augs`, see `batch_mixing`.
        moa_augs: augmentations to choose from.
        moa_probs: probabilities of those augmentations; all alike when omitted.

    Raises:
        UserError: `network_g` is no DiffIRS1; in `predict`, there is nothing to take the prior from.
    """

    prior_from: ClassVar[str] = "gt"
    """The entry of a batch that the prior is taken from, besides ``lq``."""

    def __init__(
        self,
        networks: dict[str, nn.Module],
        losses: dict[str, nn.Module],
        *,
        mixing_augs: dict[str, bool | float] | None = None,
        use_moa: bool = False,
        moa_augs: list[Augmentation] = list(DEFAULT),  # noqa: B006 - not modified
        moa_probs: Probabilities | None = None,
    ) -> None:
        super().__init__(networks, losses)
        check_kind("network_g", self.networks["g"], DiffIRS1)
        self.mixing = Mixing(mixing_augs, use_moa, moa_augs, moa_probs)
        self._said = False

    @classmethod
    def mistakes(cls, opt: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        yield from mistakes_of_mixing(opt)

    def prepared(self, batch: Batch, step: int) -> Batch:
        """Its images mixed as the options say."""
        images = {"lq": batch["lq"], "gt": batch["gt"], self.prior_from: self.guide(batch)}
        return {**batch, **self.mixing(images, batch)}

    def stage(self, step: int) -> Hashable:
        return None

    def updates(self, batch: Batch, step: int) -> Iterator[Update]:
        images = self.ready(batch, step)
        restored, _ = self.networks["g"](images["lq"], images[self.prior_from])
        self.keep_pictures(input=images["lq"], output=restored, target=images["gt"])
        yield Update("g", self.loss_terms(restored, images["gt"]), self.loss_logs())

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        guide = self.guide(batch)
        if guide is batch.get("gt") and not self._said:
            self._said = True
            log.info("DiffIRS1Model sees the ground truth: its scores are a teacher's, an upper bound and no result")
        network = self.networks["g"]
        scale = int(network_trait(network, "scale"))
        if scale == 1:
            return {"output": as_tuple(self.inference(network, batch["lq"], guide))[0]}
        # Both are continued here, so that they correspond; as channels, the larger one is padded and tiled like the other.
        height, width = batch["lq"].shape[-2:]
        multiple = math.lcm(size_multiple(network), self.inference.window_size or 1)
        padded, _ = pad_to_multiple(batch["lq"], multiple)
        larger, _ = pad_to_multiple(guide[..., : scale * height, : scale * width], scale * multiple)
        output = as_tuple(self.inference(Unfolding(network, scale), padded, F.pixel_unshuffle(larger, scale)))[0]
        return {"output": output[..., : scale * height, : scale * width]}

    def guide(self, batch: Batch) -> Tensor:
        """What the prior is taken from, besides the input: (B, C, H, W).

        Raises:
            UserError: the batch has nothing of the kind.
        """
        for key in (self.prior_from, "gt_recover"):
            if batch.get(key) is not None:
                image: Tensor = batch[key]
                return image
        raise UserError(
            f"{type(self).__name__} takes its prior from '{self.prior_from}', which this dataset does not give. Give the "
            "dataset dataroot_gt, or dataroot_gt_recover with another estimate, or use DiffIRS2Model, which needs neither"
        )


@MODELS.register()
class DiffIRS1HDRModel(DiffIRS1Model):
    """Stage 1 of HDR reconstruction from another method's estimate: the prior sees ``gt_recover`` instead of the ground truth.

    It needs that estimate in use too, and nothing else, so its scores are results. Losses compare with ``gt``.

    Args:
        mixing_augs: Restormer's mixup of whole batches, ``{mixup: true, mixup_beta: 1.2, use_identity: true}``.
        use_moa: change every batch by an augmentation.
        moa_augs: augmentations to choose from.
        moa_probs: probabilities of those augmentations.
    """

    prior_from = "gt_recover"


@MODELS.register()
class DiffIRS2Model(Model):
    """Stage 2: the prior is diffused from the input alone, at first learning from stage 1's, then together with the restorer.

    In iterations below `encoder_iter` ``optim_e`` trains what makes the prior (``condition`` and ``denoise``), on ``kd_opt``
    alone; from then on ``optim_g`` trains everything, on ``kd_opt`` and the losses of the image. The teacher, frozen, is
    ``network_S1``. The original's keys for rates become blocks (see `training_blocks`), which may as well be given:
    ``optim_e``, ``scheduler_e``, ``scheduler_g``. The noise that a sample's prior is made from depends on (manual_seed, epoch,
    draw) alone, so several ranks equal one. Testing needs no teacher and no ground truth.

    Args:
        encoder_iter: the first iteration of joint training; 0 trains everything from the start.
        lr_encoder: learning rate of ``optim_e``, in place of its own.
        gamma_encoder: factor of that rate after every `lr_decay_encoder` iterations.
        lr_decay_encoder: iterations after which the rate of the encoder is multiplied by `gamma_encoder`, again and again.
        lr_sr: learning rate of ``optim_g``, in place of its own.
        gamma_sr: factor of that rate after every `lr_decay_sr` iterations from `encoder_iter` on.
        lr_decay_sr: iterations after which the rate of the restorer is multiplied by `gamma_sr`, again and again.
        mixing_augs: Restormer's mixup of whole batches, ``{mixup: true, mixup_beta: 1.2, use_identity: true}``.
        use_moa: change every batch by an augmentation.
        moa_augs: augmentations to choose from.
        moa_probs: probabilities of those augmentations.

    Raises:
        UserError: `network_g` is no DiffIRS2 or `network_S1` no DiffIRS1; ``kd_opt`` is missing or no KDLoss; keys of a rate
            lack their others, or compete with a block.
    """

    frozen = ("S1",)
    parts_of_stages = ("condition", "denoise", "diffusion", "E")
    optimizers = ("e",)
    find_unused_parameters = True  # in the first phase; in the second torch remarks, once, that it finds none

    def __init__(
        self,
        networks: dict[str, nn.Module],
        losses: dict[str, nn.Module],
        *,
        encoder_iter: Steps = 0,
        lr_encoder: float | None = None,
        gamma_encoder: float | None = None,
        lr_decay_encoder: Steps | None = None,
        lr_sr: float | None = None,
        gamma_sr: float | None = None,
        lr_decay_sr: Steps | None = None,
        mixing_augs: dict[str, bool | float] | None = None,
        use_moa: bool = False,
        moa_augs: list[Augmentation] = list(DEFAULT),  # noqa: B006 - not modified
        moa_probs: Probabilities | None = None,
    ) -> None:
        super().__init__(networks, losses)
        check_kind("network_g", self.networks["g"], DiffIRS2)
        if "S1" in self.networks:
            check_kind("network_S1", self.networks["S1"], DiffIRS1)
        if losses and not isinstance(losses.get("kd"), Distillation):
            raise UserError(
                "train: DiffIRS2Model needs kd_opt: {type: KDLoss}, by which the prior learns from stage 1's"
            )
        self.image_losses = [key for key in self.losses if key != "kd_opt"]
        self.encoder_iter = encoder_iter
        self.stairs = {
            "e": Stairs("encoder", 0, lr_encoder, gamma_encoder, lr_decay_encoder),
            "g": Stairs("sr", encoder_iter, lr_sr, gamma_sr, lr_decay_sr),
        }
        self.mixing = Mixing(mixing_augs, use_moa, moa_augs, moa_probs)

    @classmethod
    def mistakes(cls, opt: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        yield from mistakes_of_mixing(opt)
        train = opt["train"] or {}
        if train.get("encoder_iter", 0) in (0, 1):
            for key in ("optim_e", "scheduler_e"):
                if train.get(key) is not None:
                    yield f"train.{key}", "has no effect where no iteration is below encoder_iter; leave it out"

    def training_blocks(self, train: Mapping[str, Any]) -> dict[str, Any]:
        """``optim_e`` is like ``optim_g`` unless given; the original's keys set rates, and their schedules.

        Raises:
            UserError: `train` has no ``optim_g``.
        """
        blocks = dict(super().training_blocks(train))
        if "optim_g" not in blocks:
            raise UserError("train: DiffIRS2Model needs optim_g, such as {type: Adam, lr: 2e-4}")
        if self.encoder_iter > 1:  # there is a first phase
            blocks.setdefault("optim_e", blocks["optim_g"])
        for name, stairs in self.stairs.items():
            if f"optim_{name}" in blocks:
                stairs.complete(blocks, name, given=name == "e" and "optim_e" in train)
        if blocks.get("scheduler") and all(f"scheduler_{name}" in blocks for name in self.stairs):
            log.info("train.scheduler has no effect: each optimizer has a schedule of its own, as in the original")
        return blocks

    def named_parameters(self, optimizer: str) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters of "e": those that make the prior; of "g": all."""
        if optimizer != "e":
            yield from super().named_parameters(optimizer)
            return
        for name, parameter in self.networks["g"].named_parameters():
            if name.startswith(("condition.", "denoise.")):
                yield name, parameter

    def prepared(self, batch: Batch, step: int) -> Batch:
        """Its images mixed as the options say, and the ``noise`` of its priors."""
        images = self.mixing({"lq": batch["lq"], "gt": batch["gt"]}, batch)
        return {**batch, **images, "noise": standard_normal(batch, PRIOR)}

    def stage(self, step: int) -> Hashable:
        return step < self.encoder_iter

    def updates(self, batch: Batch, step: int) -> Iterator[Update]:
        images = self.ready(batch, step)
        teacher: Any = self.networks["S1"]
        with torch.no_grad():
            prior = teacher.prior(images["lq"], images["gt"])
        alone = step < self.encoder_iter
        # One call of the whole network in both phases, or DistributedDataParallel would not see the first.
        restored, iterates = self.networks["g"](images["lq"], prior, only_prior=alone, noise=images["noise"])
        distillation: Any = self.losses["kd_opt"]
        last = len(iterates) - 1
        terms = {f"l_abs_{last}": distillation(iterates[-1], prior)}
        logs = {f"l_kd_{last}": distillation.divergence(iterates[-1].detach(), prior), **self.loss_logs()}
        if alone:
            yield Update("e", terms, logs)
        else:
            self.keep_pictures(input=images["lq"], output=restored, target=images["gt"])
            yield Update(
                "g", {**flat_terms(self.loss_values(restored, images["gt"], self.image_losses)), **terms}, logs
            )

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        noise = standard_normal(batch, PRIOR)
        return {"output": as_tuple(self.inference(self.networks["g"], batch["lq"], noise=noise))[0]}

    def drawn(self) -> dict[str, Tensor]:
        return {"noise": standard_normal({"seed": torch.zeros(1, dtype=torch.int64)}, PRIOR)}


class Unfolding:
    """A network of an image and a larger one, as a function of images of one size, the larger one's pixels as channels."""

    def __init__(self, network: nn.Module, scale: int) -> None:
        self.network, self.scale = network, scale
        self.size_multiple = size_multiple(network)

    def __call__(self, image: Tensor, folded: Tensor) -> Any:
        return self.network(image, F.pixel_shuffle(folded, self.scale))


class Stairs:
    """The original's three keys for one optimizer: ``lr_<key>``, ``gamma_<key>``, ``lr_decay_<key>``.

    Args:
        key: ``encoder`` or ``sr``.
        start: iteration from which the rate's decay counts.
        lr: the rate, or None for the optimizer's own.
        gamma: factor of a decay.
        every: iterations between decays.

    Raises:
        UserError: one of `gamma` and `every` lacks the other.
    """

    def __init__(self, key: str, start: int, lr: float | None, gamma: float | None, every: int | None) -> None:
        if (gamma is None) != (every is None):
            raise UserError(f"train: gamma_{key} and lr_decay_{key} need each other")
        self.key, self.start, self.lr, self.gamma, self.every = key, start, lr, gamma, every

    def complete(self, blocks: dict[str, Any], name: str, given: bool) -> None:
        """Write the rate and the schedule into ``optim_<name>`` and ``scheduler_<name>`` of `blocks`.

        Args:
            given: whether the options have that optimizer themselves, and thus a rate.

        Raises:
            UserError: the options say a rate or a schedule in both ways.
        """
        if self.lr is not None:
            if given:
                raise UserError(f"train: optim_{name} and lr_{self.key} both give a learning rate; leave one out")
            blocks[f"optim_{name}"] = {**blocks[f"optim_{name}"], "lr": self.lr}
        if self.every is not None:
            if f"scheduler_{name}" in blocks:
                raise UserError(f"train: scheduler_{name} and lr_decay_{self.key} both give a schedule; leave one out")
            settings = {"every": self.every, "gamma": self.gamma, "start": self.start}
            blocks[f"scheduler_{name}"] = {"type": "StairsLR", **settings}


def check_kind(key: str, network: nn.Module, kind: type[nn.Module]) -> None:
    """Check that a network is of the kind that a model is for.

    Raises:
        UserError: it is not.
    """
    if not isinstance(network, kind):
        raise UserError(f"{key}: this model is for {kind.__name__}, not for {type(network).__name__}")
