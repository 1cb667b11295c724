"""Adversarial training: SRGAN, ESRGAN, and what both are cases of."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....archs import ARCHS, build_network
from ....losses import LOSSES
from ....losses.base import LossTraits
from ....losses.gan import logits, relativistic_d_loss, relativistic_g_loss
from ....losses.ldl import get_refined_artifact_map
from ....losses.penalties import gradient_penalty_loss, r1_penalty
from ...annotations import Count, Range, SomeIterations, declared, given_otherwise
from ...degradations.draws import seeds_of
from ...degradations.limits import Probabilities
from ...errors import UserError
from ...hub import unread
from ...inference.network import NetworkTraits
from ...inference.tiling import as_tuple
from ...ops.constants import uploaded
from ...ops.frozen import WithFrozenNetwork
from .. import MODELS
from ..base import Batch, Model, Update, flat_terms
from ..batch_mixing import DEFAULT, Augmentation, Mixing, mistakes_of_mixing
from ..draws import uniform_of

MAP_KEYS = ("ldl_opt", "artifacts_opt")
"""Losses on images multiplied by LDL's map; the second is the name in LDL's own files."""
NOT_OF_IMAGES = ("gan_opt", "gan_feat_opt", *MAP_KEYS)
"""Losses that are not called with an output and its target."""
Weight = Annotated[float, Range(least=0)]
"""Factor of a penalty; 0 leaves it out."""


@MODELS.register(aliases=("SRGANArtifactsDisModel",))
class SRGANModel(Model):
    """A generator and a discriminator that take turns in every step, as in SRGAN (Ledig et al., CVPR 2017); ESRGAN's by option.

    First ``network_g`` is trained on the losses of the options (``l_g_pix``, ``l_g_percep``, ...) and on ``gan_opt``
    (``l_g_gan``), with the discriminator frozen; then ``network_d`` on the output made before that, and on real images
    (``l_d_real``, ``l_d_fake``; mean logits ``out_d_real``, ``out_d_fake``). The discriminator is always in training mode, and
    each call moves the statistics of its batch normalisation and the vectors of its spectral normalisation, so the order of
    calls is part of the result. It is the originals'.

    ``ldl_opt`` (``l_g_ldl``) compares output and target where LDL's map sees artefacts, for which it needs the moving average.
    ``gan_feat_opt`` (``l_g_feat``) compares the features of a discriminator that returns some. With ``accumulate``, means and
    statistics are those of micro-batches.

    Args:
        net_d_iters: the generator is trained in steps that this divides.
        net_d_init_iters: the generator is trained in no step up to this.
        net_g_pretrain_iters: last step in which the generator is trained alone, without adversarial losses; then both are.
        relativistic: compare each logit with the average of the other kind; only `ESRGANModel` does when this is omitted.
        r1_reg_weight: weight of R1 (``l_d_r1``); 0 is none.
        net_d_reg_every: R1 is computed in steps that this divides, and counts so many times as much.
        gp_weight: weight of the gradient penalty of WGAN-GP (``l_d_gp``), computed in every step; 0 is none.
        mixing_augs: Restormer's mixup of whole batches, ``{mixup: true, mixup_beta: 1.2, use_identity: true}``.
        use_moa: change every batch by one augmentation of `moa_augs`, see `batch_mixing`.
        moa_augs: augmentations to choose from.
        moa_probs: probabilities of those augmentations; all alike when omitted.

    Raises:
        UserError: ``gan_opt`` is missing.
    """

    discriminators = ("d",)
    leading = "g"
    relativistic_by_default: ClassVar[bool] = False

    def __init__(
        self,
        networks: dict[str, nn.Module],
        losses: dict[str, nn.Module],
        *,
        net_d_iters: Count = 1,
        net_d_init_iters: SomeIterations = 0,
        net_g_pretrain_iters: SomeIterations = 0,
        relativistic: bool | None = None,
        r1_reg_weight: Weight = 0.0,
        net_d_reg_every: Count = 16,
        gp_weight: Weight = 0.0,
        mixing_augs: dict[str, bool | float] | None = None,
        use_moa: bool = False,
        moa_augs: list[Augmentation] = list(DEFAULT),  # noqa: B006 - not modified
        moa_probs: Probabilities | None = None,
    ) -> None:
        super().__init__(networks, losses)
        self.net_d_iters = net_d_iters
        self.net_d_init_iters = net_d_init_iters
        self.net_g_pretrain_iters = net_g_pretrain_iters
        self.relativistic = self.relativistic_by_default if relativistic is None else relativistic
        self.r1_reg_weight = r1_reg_weight
        self.net_d_reg_every = net_d_reg_every
        self.gp_weight = gp_weight
        self.mixing = Mixing(mixing_augs, use_moa, moa_augs, moa_probs)
        self.image_losses = [k for k in self.losses if k not in NOT_OF_IMAGES]
        self.map_losses = [k for k in self.losses if k in MAP_KEYS]
        discriminator = self.networks.get("d")
        self.conditional = discriminator is not None and declared(discriminator, "conditional", NetworkTraits)
        if losses and "gan" not in losses:
            raise UserError(f"train: {type(self).__name__} needs gan_opt, such as {{type: GANLoss, gan_type: vanilla}}")
        self._freezable = self._trained_parameters()

    def _trained_parameters(self) -> list[nn.Parameter]:
        """The parameters of the discriminator; a backbone may be frozen for good."""
        discriminator = self.networks.get("d")
        return [p for p in discriminator.parameters() if p.requires_grad] if discriminator is not None else []

    def begin(self, step: int) -> None:
        self._freezable = self._trained_parameters()  # sharding has made them anew

    # ---------------------------------------------------------------- one step
    def prepared(self, batch: Batch, step: int) -> Batch:
        """Its `images`, and for ``gp_weight`` where between real and generated ones they are judged, ``alpha``."""
        images = self.images(batch)
        if self.gp_weight > 0 and "seed" in batch:
            alpha = uploaded(uniform_of(seeds_of(batch), 1).float(), images["gt"].device)
            images["alpha"] = alpha.view(-1, 1, 1, 1)
        return {**batch, **images}

    def stage(self, step: int) -> Hashable:
        return step <= self.net_g_pretrain_iters, self.due(step), step % self.net_d_reg_every == 0

    def updates(self, batch: Batch, step: int) -> Iterator[Update]:
        images = self.ready(batch, step)
        if step <= self.net_g_pretrain_iters:
            output = self.generated(images["lq"])
            self.keep_pictures(input=images["lq"], output=output, target=images["gt"])
            yield Update("g", self.image_terms(output, images), self.loss_logs())
            return
        if self.due(step):
            self.train_discriminator(False)
            try:
                output = self.generated(images["lq"])
                yield Update("g", self.generator_terms(output, images), self.loss_logs())
            finally:
                self.train_discriminator(True)
        else:
            with torch.no_grad():
                output = self.generated(images["lq"])
        self.keep_pictures(input=images["lq"], output=output, target=images["gt"])
        terms, logs = self.discriminator_terms(output.detach(), images)
        yield Update("d", {**terms, **self.penalties(output.detach(), images, step)}, logs)

    def due(self, step: int) -> bool:
        """Whether the generator is trained in `step`."""
        return step % self.net_d_iters == 0 and step > self.net_d_init_iters

    def images(self, batch: Batch) -> dict[str, Tensor]:
        """``lq``, ``gt``, and where they differ from it the losses' targets ``l1``, ``percep``, ``gan``: (B, C, H, W)."""
        return self.mixing({"lq": batch["lq"], "gt": batch["gt"]}, batch)

    def generated(self, lq: Tensor) -> Tensor:
        """The generator's output (B, C, H, W)."""
        return as_tuple(self.networks["g"](lq))[0]

    def train_discriminator(self, trained: bool) -> None:
        """Whether gradients reach the discriminator's parameters from now on."""
        for p in self._freezable:
            p.requires_grad_(trained)

    def judge(self, image: Tensor, lq: Tensor) -> Any:
        """The discriminator's answer to an image (B, C, H, W), beside the enlarged input if it wants that."""
        if self.conditional:
            image = torch.cat([F.interpolate(lq, size=image.shape[-2:], mode="nearest").to(image), image], 1)
        return self.networks["d"](image)

    def generator_terms(self, output: Tensor, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the generator minimises, scalars by log name."""
        return {**self.image_terms(output, images), **self.adversarial_terms(output, images)}

    def image_terms(self, output: Tensor, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What it minimises without the discriminator, scalars by log name."""
        gt = images["gt"]
        values: dict[str, dict[str, Tensor]] = {}
        for key in self.image_losses:
            deep = isinstance(self.losses[key], WithFrozenNetwork)
            values.update(self.loss_values(output, images.get("percep" if deep else "l1", gt), [key]))
        terms = flat_terms(values, "l_g_")
        if self.map_losses:
            with torch.no_grad():
                average = as_tuple(self.averages["g"](images["lq"]))[0]
            weights = get_refined_artifact_map(gt, output, average)
            of_map = self.loss_values(weights * output, weights * gt, self.map_losses)
            first, *rest = terms.items()  # where BasicSR logs it
            terms = dict([first, *flat_terms(of_map, "l_g_").items(), *rest])
        return terms

    def adversarial_terms(self, output: Tensor, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The scalars ``l_g_gan``, and ``l_g_feat`` where the options have that."""
        loss, lq = self.losses["gan_opt"], images["lq"]
        real: Any = None
        if self.relativistic or "gan_feat_opt" in self.losses:
            with torch.no_grad():
                real = self.judge(images.get("gan", images["gt"]), lq)
        fake = self.judge(output, lq)
        terms = {
            "l_g_gan": relativistic_g_loss(loss, real, fake) if self.relativistic else loss(fake, True, is_disc=False)
        }
        if "gan_feat_opt" in self.losses:
            terms["l_g_feat"] = self.losses["gan_feat_opt"](fake, real)
        return terms

    def discriminator_terms(
        self, output: Tensor, images: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the discriminator minimises, and its mean logits, scalars by log name, for the output (B, C, H, W) and the
        batch's images.
        """
        loss, lq, target = self.losses["gan_opt"], images["lq"], images.get("gan", images["gt"])
        if self.relativistic:
            with torch.no_grad():
                before = self.judge(output, lq)
            real = self.judge(target, lq)
            of_real = relativistic_d_loss(loss, real, before, True)
            fake = self.judge(output, lq)
            of_fake = relativistic_d_loss(loss, fake, real, False)
        else:
            real = self.judge(target, lq)
            fake = self.judge(output, lq)
            of_real, of_fake = loss(real, True, is_disc=True), loss(fake, False, is_disc=True)
        return {"l_d_real": of_real, "l_d_fake": of_fake}, {"out_d_real": mean(real), "out_d_fake": mean(fake)}

    def penalties(self, output: Tensor, images: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """Penalties on the discriminator's gradients, scalars by log name, in float32."""
        terms: dict[str, Tensor] = {}
        lq, target = images["lq"], images.get("gan", images["gt"])
        with torch.autocast(lq.device.type, enabled=False):
            if self.r1_reg_weight > 0 and step % self.net_d_reg_every == 0:
                real = target.detach().float().requires_grad_()
                factor = self.r1_reg_weight / 2 * self.net_d_reg_every
                terms["l_d_r1"] = factor * r1_penalty(self.judge(real, lq.float()), real)
            if self.gp_weight > 0:
                judged, alpha = lambda x: self.judge(x, lq.float()), images.get("alpha")
                penalty = gradient_penalty_loss(judged, target.float(), output.float(), alpha=alpha, per="sample")
                terms["l_d_gp"] = self.gp_weight * penalty
        return terms

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        return {"output": as_tuple(self.inference(self.networks["g"], batch["lq"]))[0]}

    # ---------------------------------------------------------------- before training
    @classmethod
    def mistakes(cls, opt: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        train = opt.get("train")
        if train is None:
            return
        yield from mistakes_of_mixing(opt)
        if given_otherwise(train, "net_d_reg_every", SRGANModel) and not train.get("r1_reg_weight"):
            yield "train.net_d_reg_every", "has no effect without r1_reg_weight"
        alone, waits = train.get("net_g_pretrain_iters", 0), train.get("net_d_init_iters", 0)
        if isinstance(alone, int) and isinstance(waits, int) and 0 < waits <= alone:
            yield (
                "train.net_d_init_iters",
                f"{waits} has no effect within the {alone} iterations of net_g_pretrain_iters",
            )
        yield from mistakes_of_losses(
            cls.__name__,
            train,
            relativistic=bool(
                cls.relativistic_by_default if train.get("relativistic") is None else train["relativistic"]
            ),
        )
        size = (opt["datasets"].get("train") or {}).get("gt_size") or opt.get("gt_size")
        if opt.get("network_d") is not None and size:
            problem = unfit(opt["network_d"], int(size))
            if problem:
                yield "network_d", f"{problem} (gt_size is {size})"


def mistakes_of_losses(model: str, train: Mapping[str, Any], relativistic: bool) -> Iterator[tuple[str, str]]:
    """What is wrong with the losses of a ``train`` section, by key."""
    gan = train.get("gan_opt")
    if gan is None:
        yield "train", f"{model} needs gan_opt, such as {{type: GANLoss, gan_type: vanilla, loss_weight: 0.1}}"
    elif not declared(LOSSES.get(gan["type"]), "of_discriminator", LossTraits) or gan["type"] == "GANFeatLoss":
        yield "train.gan_opt.type", f"{gan['type']} is no adversarial loss; GANLoss and MultiScaleGANLoss are"
    else:
        kind = gan.get("gan_type")
        if kind == "hinge" and relativistic:
            yield (
                "train.gan_opt.gan_type",
                "with a relativistic model the generator's hinge loss is always 0; take vanilla",
            )
        if kind == "wgan" and not (train.get("gp_weight") or train.get("r1_reg_weight")):
            yield (
                "train.gan_opt.gan_type",
                "wgan diverges without a penalty; give gp_weight (10, say), or take wgan_softplus",
            )
    averaged = (train.get("ema_decay") or 0) > 0 or train.get("ema_halflife") is not None
    for key in MAP_KEYS:
        if train.get(key) is not None and not averaged:
            yield f"train.{key}", "LDL compares with the moving average; set ema_decay, such as 0.999"
    if all(k in train for k in MAP_KEYS):
        yield "train.artifacts_opt", "is another name of ldl_opt, which is given too; leave one out"
    if not any(k.endswith("_opt") and k not in NOT_OF_IMAGES for k in train):
        yield "train", f"{model} has no loss of the output itself; give one, such as pixel_opt: {{type: L1Loss}}"


def unfit(block: Mapping[str, Any], size: int) -> str | None:
    """Why the discriminator of `block` cannot take images of `size` pixels a side; None if it can. Nothing is computed."""
    if not ARCHS.get(block["type"]).__module__.startswith("relume.archs.discriminators."):
        return None  # of what it is made, and what it can do without memory, only its author knows
    try:
        with unread(), torch.device("meta"):  # a check refuses no file because weights are missing
            network = build_network(block)
            first = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
            channels = 3 if isinstance(network, WithFrozenNetwork) else first.in_channels
            network(torch.empty(2, channels, size, size))
    except UserError as e:
        return str(e)
    return None


def mean(prediction: Any) -> Tensor:
    """The mean logit of a discriminator's answer, a scalar."""
    return torch.cat([p.detach().float().flatten() for p in logits(prediction)]).mean()


@MODELS.register(aliases=("ESRGANArtifactsDisModel",))
class ESRGANModel(SRGANModel):
    """ESRGAN (Wang et al., ECCVW 2018): `SRGANModel` with a relativistic average discriminator, and the same options."""

    relativistic_by_default = True
