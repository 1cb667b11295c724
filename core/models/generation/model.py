"""One-step image generation: a generator learns to turn noise into the training images that optimal transport assigns to it."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....losses.base import LossTraits
from ...annotations import Range, declared
from ...degradations.draws import seeds_of
from ...errors import UserError
from ...features import FEATURES, FeatureExtractor, build_features
from ...inference.network import NetworkTraits
from ...ops.constants import uploaded
from ...runtime import distributed, parallel
from ...runtime.step_graph import Unrepeatable
from .. import MODELS
from ..base import Batch, Model, Update, flat_terms, log_name
from ..draws import standard_normal, uniforms_of
from .bank import BankOptions, MemoryBank, build_bank
from .checks import check_classes, mistakes_of_modes
from .matching import BankSample, Matching, MatchingOptions, Scheduled, Targets
from .times import Times

log = logging.getLogger("relume")
IMAGINED_ROWS = 64
"""Rows of a memory bank where only a step's memory is looked at, of which matching keeps nothing for gradients."""
Options = TypeVar("Options", BankOptions, MatchingOptions, Times)


class Micro(NamedTuple):
    """What is known of a micro-batch before the generator sees it."""

    noise: Tensor
    """z (B, C, H, W)."""
    labels: Tensor | None
    """(B,) int64, -1 for no class; None for an unconditional generator."""
    uniforms: np.ndarray
    """(B, 4), float64, on the host: the coin of t = 0, the time, the choice of a target, the gap of consistency."""
    batch: Batch

    def uniform(self, column: int, device: torch.device) -> Tensor:
        """One of the uniform numbers, (B,), float64, on a device."""
        return uploaded(torch.from_numpy(self.uniforms[:, column].copy()), device)


class Aims(NamedTuple):
    """What the samples of a micro-batch are to become."""

    images: Tensor
    """x* (B, C, H, W)."""
    features: Tensor | None
    """Features of x*, (B, d), where a loss wants them."""
    context: dict[str, Tensor]
    """What losses of features want besides."""
    logs: dict[str, Tensor | float]


@dataclass
class Step:
    """What the micro-batches of one iteration share."""

    iteration: int
    micros: list[Micro]
    settings: Scheduled
    memory: BankSample | None
    begun: bool = False
    """Whether some micro-batch is under way."""
    shared: list[tuple[Targets, dict[str, Tensor | float]]] | None = None
    """Targets of every micro-batch, found together (matching.scope: global)."""


@MODELS.register()
class GenerationModel(Model):
    """A one-step generator trained by flow matching towards matched images (GFGW-FM: a generator and fused Gromov-Wasserstein).

    For each micro-batch of noise z: generate x0 = G(z, 0); match the features of x0 with those of rows of the memory bank by
    (fused Gromov-Wasserstein) optimal transport; take targets x* from the plan; put some of the samples on the path, at
    x_t = (1 - t) z + t x*, and let G predict x* from there too; compare predictions with targets by the losses of the options.
    The forward pass to x0 serves the matching and, for samples that stay at t = 0, the losses.

    The network is called as ``net(x, t, class_labels=...)`` (see `OneStepGenerator`). Losses are called with images in [-1, 1],
    or with unit features if they say ``in_features``; see `losses.generation`, also for `ConsistencyLoss`, which compares with
    the averaged generator. All that a sample is made from, its noise, time,
    and choices, depends on (manual_seed, epoch, draw) alone, so ranks and micro-batches do not matter to it. Bank rows depend
    on (manual_seed, iteration).

    `predict` makes an image from each seed of a batch, and from its ``label`` if the network has classes (else: if it lacks
    one, the seed's remainder).

    Args:
        features: extractor in which images are matched and feature losses computed, ``{type: dinov2_vits14, weights: ...}``.
        bank: options of the memory bank, see `BankOptions`.
        matching: options of the matching, see `MatchingOptions`.
        times: distribution of the training time, see `Times`.
        legacy_schedule: schedules of `matching` and `times` count iterations instead of samples, as the original's reported
            run did. (A learning rate has ``unit: iterations`` for that.)
        steps: network evaluations of `predict`.

    Raises:
        UserError: the network is no such generator; features are needed and not given.
    """

    counts_images = True
    loss_context = ("t", "point", "gap", "distances")

    def __init__(
        self,
        networks: dict[str, nn.Module],
        losses: dict[str, nn.Module],
        *,
        features: Annotated[Any, FEATURES] | None = None,
        bank: BankOptions | None = None,
        matching: MatchingOptions | None = None,
        times: Times | None = None,
        legacy_schedule: bool = False,
        steps: Annotated[int, Range(least=1, most=1000)] = 1,
    ) -> None:
        super().__init__(networks, losses)
        net: Any = self.networks["g"]
        for name in ("img_resolution", "img_channels", "label_dim"):
            if declared(net, name, NetworkTraits) is None:
                kind = type(net).__name__
                raise UserError(f"network_g: {kind} is no generator (it has no {name}); use OneStepGenerator")
        self.shape: tuple[int, int, int] = (net.img_channels, net.img_resolution, net.img_resolution)
        self.own_side = net.img_resolution
        self.classes: int = net.label_dim
        # The options, and what each loss looks at.
        self.feature_options = features
        self.bank_options = options_of(BankOptions, bank)
        self.matching = Matching(options_of(MatchingOptions, matching))
        self.times = options_of(Times, times)
        self.legacy_schedule = legacy_schedule
        self.steps = steps
        self.matched = self.matching.options.pairing == "ot"
        self.mixes_samples = self.matched and self.matching.options.scope != "global"
        self.feature_losses = [k for k, loss in self.losses.items() if declared(loss, "in_features", LossTraits)]
        contexts = {k: declared(loss, "context", LossTraits) for k, loss in self.losses.items()}
        self.consistency_losses = [k for k, wanted in contexts.items() if "gap" in wanted]
        self.image_losses = [k for k in self.losses if k not in (*self.feature_losses, *self.consistency_losses)]
        self.plan_losses = [k for k in self.feature_losses if "distances" in contexts[k]]
        # Refuse options that do not go together.
        if losses and (self.matched or self.feature_losses) and features is None:
            wanting = "matching" if self.matched else ", ".join(self.feature_losses)
            raise UserError(f"train: {wanting} needs features, such as features: {{type: random_conv}}")
        if self.matched and self.matching.options.labels == "same_class" and not self.classes:
            raise UserError("matching.labels: same_class needs classes: network_g.label_dim is 0")
        if self.plan_losses and not self.matched:
            raise UserError(
                f"train: {self.plan_losses[0]} is against a plan, which matching.pairing random does not make"
            )
        # What `prepare` and training fill.
        self.extractor: FeatureExtractor | None = None
        self.bank: MemoryBank | None = None
        self.bank_id = ""
        self._step: Step | None = None

    @classmethod
    def mistakes(cls, opt: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        train, block = opt.get("train") or {}, opt.get("datasets", {}).get("train", {})
        matched = (train.get("matching") or {}).get("pairing", "ot") == "ot"
        flips = (train.get("bank") or {}).get("flips", False)
        if train and matched and block.get("use_hflip") and not flips:
            yield (
                "datasets.train.use_hflip",
                "has no effect where images are matched (matching.pairing: ot), since targets come from the bank; "
                "train.bank: {flips: true} has every image mirrored, too",
            )
        yield from mistakes_of_modes("times", Times, train.get("times") or {})
        if matched:
            yield from mistakes_of_modes("matching", MatchingOptions, train.get("matching") or {})

    # ------------------------------------------------------------ before training
    def prepare(self, dataset: Any, device: torch.device) -> None:
        """See `Model.prepare`: check the training set, and make the memory bank.

        Raises:
            UserError: the training images are not of the generator's size.
        """
        item = dataset[0]
        found = tuple(item["gt"].shape)
        if found != self.shape:
            raise UserError(
                f"the training images are {'x'.join(map(str, found))}, but network_g makes {'x'.join(map(str, self.shape))} "
                "(img_channels, img_resolution, img_resolution)"
            )
        if self.classes:
            check_classes(dataset, "label" in item, self.classes)
        self._take_extractor(device)
        if self.matched:
            assert self.extractor is not None
            self.bank = build_bank(dataset, self.extractor, self.bank_options, device)
            self.bank_id = self.bank.id

    def _take_extractor(self, device: torch.device) -> None:
        if self.feature_options is not None:
            given = self.feature_options
            extractor: FeatureExtractor = build_features(given) if isinstance(given, Mapping) else given
            self.extractor = extractor.to(device)

    def imagined(self, count: int, side: int, scale: int, frames: int = 1) -> Batch:
        self._take_extractor(torch.device("cpu"))
        labels = torch.zeros(count, dtype=torch.int64)
        if self.matched:
            assert self.extractor is not None
            rows = (IMAGINED_ROWS, self.extractor.dim)
            images, classes = torch.zeros(IMAGINED_ROWS, *self.shape), labels.new_zeros(IMAGINED_ROWS)
            self.bank = MemoryBank("imagined", torch.rand(rows), images, classes, IMAGINED_ROWS, False, 0)
        return {"gt": torch.zeros(count, *self.shape), "label": labels, "seed": torch.arange(count)}

    def begin(self, step: int) -> None:
        """See `Model.begin`.

        Raises:
            UserError: a consistency loss is asked for, and no averaged generator is there.
        """
        if self.consistency_losses and "g" not in self.averages:
            raise UserError(
                f"train: {self.consistency_losses[0]} compares with the averaged generator: set ema_halflife, or ema_decay"
            )

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "bank": self.bank_id, "bank_seed": self.bank.seed if self.bank else 0}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Model.load_state_dict`.

        Raises:
            UserError: the state is that of a run with another memory bank.
        """
        super().load_state_dict(state)
        if state["bank"] != self.bank_id:
            raise UserError(
                f"this run was begun with the memory bank '{state['bank']}', these options make '{self.bank_id}': resume with "
                "the extractor, dataset and bank.flips of that run, or start anew from its weights with path.pretrain_network_g"
            )
        if self.bank is not None:
            self.bank.seed = state["bank_seed"]

    # ------------------------------------------------------------ training
    def stage(self, step: int) -> Hashable:
        """See `Model.stage`.

        Raises:
            Unrepeatable: always.
        """
        raise Unrepeatable(
            f"{type(self).__name__} draws a part of its memory, noise and times on the host in every step"
        )

    def updates(self, batch: Batch, step: int) -> Iterator[Update]:
        # The trainer asks for every micro-batch's updates before it takes the first: by then all are known here.
        if self._step is None or self._step.iteration != step or self._step.begun:
            self._step = self._begin(step)
        self._step.micros.append(self._micro(batch))
        return self._updates(self._step, len(self._step.micros) - 1)

    def _begin(self, iteration: int) -> Step:
        done = iteration if self.legacy_schedule else self.samples_seen
        memory = None
        if self.bank is not None:
            memory = BankSample(self.bank, self.bank.draw(iteration, self.bank_options.subset))
        return Step(iteration, [], self.matching.settings(done), memory)

    def _micro(self, batch: Batch) -> Micro:
        labels = batch.get("label") if self.classes else None
        noise = standard_normal(batch, *self.shape)
        return Micro(noise, labels, uniforms_of(seeds_of(batch), 4), batch)

    def _updates(self, step: Step, place: int) -> Iterator[Update]:
        step.begun = True
        micro = step.micros[place]
        z, device = micro.noise, micro.noise.device
        images = self._generate(z, torch.zeros(len(z), device=device), micro.labels)
        features = self._features(images) if self.matched or self.feature_losses else None
        aims = self._aims(step, place, features)
        done = step.iteration if self.legacy_schedule else self.samples_seen
        times = self.times.draw(micro.uniforms[:, :2], done)
        t = uploaded(torch.from_numpy(times).float(), device)
        point = on_path(z, aims.images, t)
        if self.times.one_step < 1:
            # Also where no sample moved: every rank must call the network equally often.
            chosen = times.nonzero()[0]
            rows = uploaded(torch.from_numpy(chosen if len(chosen) else np.zeros(1, np.int64)), device)
            later = self._generate(point[rows], t[rows], None if micro.labels is None else micro.labels[rows])
            images = images.index_copy(0, rows, later)
            if features is not None and self.feature_losses:
                features = features.index_copy(0, rows, self._features(later))
        self.keep_pictures(output=(images + 1) / 2, target=(aims.images + 1) / 2)
        terms = self._losses(self.image_losses, images, aims.images, {"t": t, "point": point})
        if features is not None and aims.features is not None:
            terms.update(self._losses(self.feature_losses, features, aims.features, aims.context))
        for key in self.consistency_losses:
            gap = declared(self.losses[key], "gaps", LossTraits)(micro.uniform(3, t.device)).to(t)
            taught = self._average_at(micro, aims.images, (t + gap).clamp(0, 1))
            terms.update(self._losses([key], images, taught, {"t": t, "point": point, "gap": gap}))
        yield Update("g", flat_terms(terms), {**aims.logs, **self.loss_logs(), "kimg": self.samples_seen / 1000})

    def _generate(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        image: Tensor = self.networks["g"](x, t, class_labels=one_hot(labels, self.classes))
        return image

    @torch.no_grad()
    def _average_at(self, micro: Micro, target: Tensor, t: Tensor) -> Tensor:
        """What the averaged generator predicts at times t (B,) of the paths to `target`."""
        average = self.averages["g"]
        image: Tensor = average(on_path(micro.noise, target, t), t, class_labels=one_hot(micro.labels, self.classes))
        parallel.reshard(average)
        return image

    def _features(self, images: Tensor) -> Tensor:
        """Unit features (B, d), with gradients if a loss wants them."""
        assert self.extractor is not None
        with torch.set_grad_enabled(bool(self.feature_losses) and torch.is_grad_enabled()):
            return F.normalize(self.extractor(images), dim=1)

    def _losses(
        self, keys: list[str], pred: Tensor, target: Tensor, context: dict[str, Tensor]
    ) -> dict[str, dict[str, Tensor]]:
        """Terms by log name, of losses by option key."""
        values = {}
        for key in keys:
            loss = self.losses[key]
            wanted = {name: context[name] for name in declared(loss, "context", LossTraits)}
            value = loss(pred, target, **wanted)
            values[key] = {log_name(key): value} if isinstance(value, Tensor) else dict(value)
        return values

    def _aims(self, step: Step, place: int, features: Tensor | None) -> Aims:
        """What the images of a micro-batch are to become, and what the matching wants logged."""
        micro, memory = step.micros[place], step.memory
        if memory is None or features is None:
            real: Tensor = micro.batch["gt"]
            wanted = None
            if self.feature_losses:
                with torch.no_grad():
                    wanted = self._features(real)
            return Aims(real, wanted, {}, {})
        if self.matching.options.scope == "global":
            if step.shared is None:
                step.shared = self._match_all(step, memory)
            chosen, logs = step.shared[place]
        else:
            chosen, logs = self._match(
                features.detach(), micro.labels, micro.uniform(2, features.device), memory, step.settings
            )
        wanted = chosen.features(memory) if self.feature_losses else None
        context = {"distances": chosen.distances(memory)} if self.plan_losses else {}
        return Aims(chosen.images(memory), wanted, context, logs)

    def _match(
        self, features: Tensor, labels: Tensor | None, uniforms: Tensor, memory: BankSample, settings: Scheduled
    ) -> tuple[Targets, dict[str, Tensor | float]]:
        # Where features are NaN or infinite, so are the losses: the guard takes the step back on every rank.
        features = torch.where(features.isfinite().all(), features, 0)
        coupling = self.matching.solve(features, labels, memory, settings)
        chosen = self.matching.choose(coupling.plan, settings.temperature, uniforms)
        logs: dict[str, Tensor | float] = {
            "row_err": coupling.row_err,
            "col_err": coupling.col_err,
            "perplexity": coupling.perplexity.mean(),
            "distinct": chosen.distinct,
            "epsilon": settings.epsilon,
            "fgw_lambda": settings.fgw_lambda,
        }
        if self.matching.options.tol > 0:
            logs["ot_iters"] = coupling.iters
        return chosen, logs

    def _match_all(self, step: Step, memory: BankSample) -> list[tuple[Targets, dict[str, Tensor | float]]]:
        """Match everything that this iteration generates, on all ranks; targets of this rank's micro-batches."""
        rows, labels, uniforms = [], [], []
        for micro in step.micros:
            with torch.no_grad():
                image = self._generate(
                    micro.noise, torch.zeros(len(micro.noise), device=micro.noise.device), micro.labels
                )
                rows.append(distributed.concatenated(self._features(image)))
            uniforms.append(distributed.concatenated(micro.uniform(2, image.device).float()))
            if micro.labels is not None:
                labels.append(distributed.concatenated(micro.labels))
        chosen, logs = self._match(
            torch.cat(rows), torch.cat(labels) if labels else None, torch.cat(uniforms), memory, step.settings
        )
        size, rank, world = len(step.micros[0].noise), distributed.rank(), distributed.world_size()
        mine = [slice((i * world + rank) * size, (i * world + rank + 1) * size) for i in range(len(step.micros))]
        return [(chosen.part(s), logs) for s in mine]

    # ------------------------------------------------------------ generating
    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Images (B, C, H, W) from the seeds of a batch.

        Raises:
            UserError: the batch has no seeds.
        """
        if "seed" not in batch:
            raise UserError("GenerationModel makes images from seeds: use NoiseDataset for validation and test")
        labels = batch.get("label")
        if self.classes and labels is None:
            labels = batch["seed"] % self.classes
        return {"output": self._sample(standard_normal({"seed": batch["seed"]}, *self.shape), labels)}

    def _sample(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Images in [0, 1]."""
        net: Any = self.networks["g"]
        images: Tensor = net.sample(noise, one_hot(labels, self.classes), self.steps)
        return ((images.float() + 1) / 2).clamp(0, 1)


def options_of(kind: type[Options], given: Options | Mapping[str, Any] | None) -> Options:
    """The dataclass that an option block describes; its defaults for None."""
    return given if isinstance(given, kind) else kind(**(given or {}))  # type: ignore[arg-type]


def on_path(noise: Tensor, image: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 - t) z + t x, (B, C, H, W), for times (B,)."""
    along = t.view(-1, 1, 1, 1)
    return (1 - along) * noise + along * image


def one_hot(labels: Tensor | None, classes: int) -> Tensor | None:
    """(B, classes) for labels (B,), all zero for label -1; None without labels or classes."""
    if labels is None or not classes:
        return None
    return F.one_hot(labels.clamp_min(0), classes).float() * (labels >= 0).float()[:, None]
