"""Frame interpolation: two frames in, the one between them out."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...archs.vfi.flow import backwarp
from ...losses.base import LossTraits
from ..annotations import Iterations, Range, SomeIterations, declared
from ..errors import UserError
from ..inference.halving import frame_at
from ..inference.network import NetworkTraits
from ..inference.self_ensemble import Ensemble, self_ensemble
from ..inference.tiling import size_multiple
from ..runtime import distributed
from . import MODELS
from .base import Batch, Model, Update, flat_terms

log = logging.getLogger("relume")


@MODELS.register()
class InterpolationModel(Model):
    """The losses of the options on the frame in between, and those that look at flow on the flow.

    Batches have ``img0``, ``img1`` and ``gt``, (B, 3, H, W) in [0, 1], unless it is always 0.5, ``timestep``, (B), and, for
    losses that compare with it, ``flow``, the true one in the form of the network's. The network is called as ``net(frames,
    timestep)`` with frames (B, 6, H, W), and returns the frame, or a pair of it and the flow from it to both frames,
    (B, 4, H, W) in pixels, which may be None.

    A later phase starts from the weights of an earlier one with ``path.grow_network_g: true``. What the network has in addition
    may then be trained alone for a while (`freeze_backbone`), and the backbone more gently after that
    (``optim_g.param_groups: [{params: '^backbone', lr_scale: 0.1}]``).

    Args:
        flow_first: epochs, before all else, in which only ``network_g.flow_estimator`` is trained, on what it makes of the
            frames by itself (``warp_only`` of the network), which costs little. Beside a synthesis, flow is slow to learn:
            what it does not place is made good elsewhere.
        freeze_backbone: epochs during which ``network_g.backbone`` is not trained.
        iters_per_epoch: iterations that make such an epoch; with 1, `flow_first` and `freeze_backbone` count iterations.
        warp_weight: factor of the image losses, on both frames warped by the flow, that are added; logged as ``l_warp``.
            Without it a synthesis that has learned to do without flow (phase 1) leaves flow little to learn from; RIFE and
            EMA-VFI look at warped frames too.
        tta: average over symmetries of the frames: ``hflip`` with the mirror image (fast_TTA of HybridVFI's original),
            ``rot180`` with the frames turned by 180 degrees (EMA-VFI, VFIMamba), ``dihedral`` all eight (its full TTA).
        recursive: reach times other than 1/2 by halving the interval again and again, as networks without timestep must and
            VFIMamba does on X-TEST, instead of asking the network for that time.
        flow_scale: size at which flow is estimated, relative to the frames: 0.5 for 2K, 0.25 for 4K. All else is at full size.

    Raises:
        UserError: the network has no backbone to freeze, or no flow estimator to train first.
    """

    inference_options = ("tta", "flow_scale", "recursive")

    def __init__(
        self,
        networks: dict[str, nn.Module],
        losses: dict[str, nn.Module],
        *,
        flow_first: SomeIterations = 0,
        freeze_backbone: SomeIterations = 0,
        iters_per_epoch: Iterations = 1,
        warp_weight: Annotated[float, Range(least=0)] = 0.0,
        tta: Ensemble = "none",
        flow_scale: Annotated[float, Range(above=0, most=1)] = 1.0,
        recursive: bool = False,
    ) -> None:
        super().__init__(networks, losses)
        self.tta = tta
        self.flow_scale = flow_scale
        self.recursive = recursive
        self.warp_weight = warp_weight
        self.flow_steps, self.frozen_steps = flow_first * iters_per_epoch, freeze_backbone * iters_per_epoch
        for option, epochs, part in (
            ("flow_first", flow_first, "flow_estimator"),
            ("freeze_backbone", freeze_backbone, "backbone"),
        ):
            if epochs and not isinstance(declared(networks["g"], part, NetworkTraits), nn.Module):
                raise UserError(f"train.{option}: {type(networks['g']).__name__} has no part called '{part}'")
        if iters_per_epoch != 1 and not (flow_first or freeze_backbone):
            say_without_effect("train.iters_per_epoch", "there is no flow_first or freeze_backbone that counts in it")
        if flow_scale != 1 and declared(networks["g"], "flow_estimator", NetworkTraits) is None:
            say_without_effect("val.flow_scale", "network_g has no flow estimator")
        self.parts = dict(networks["g"].named_children())
        self.trained: set[str] | None = None
        if (
            losses
            and not (flow_first or warp_weight)
            and declared(networks["g"], "flow_estimator", NetworkTraits) is not None
        ):
            say_that_flow_hardly_learns()
        self.flow_losses = [key for key, loss in self.losses.items() if declared(loss, "looks_at_flow", LossTraits)]

    def begin(self, step: int) -> None:
        """Train those parts of the network that iteration `step` wants trained, and freeze the others."""
        if not (self.flow_steps or self.frozen_steps):
            return
        if step <= self.flow_steps:
            trained = {"flow_estimator"}
        else:
            trained = set(self.parts) - ({"backbone"} if step <= self.frozen_steps else set())
        if trained == self.trained:
            return
        self.trained = trained
        for name, part in self.parts.items():
            part.requires_grad_(name in trained)
        if distributed.is_main():
            last = self.flow_steps if step <= self.flow_steps else self.frozen_steps
            until = f", up to iteration {last}" if step <= last else " from now on"
            log.info("Trained%s: %s", until, "all" if len(trained) == len(self.parts) else ", ".join(sorted(trained)))

    def stage(self, step: int) -> Hashable:
        return step <= self.flow_steps, step <= self.frozen_steps

    def updates(self, batch: Batch, step: int) -> Iterator[Update]:
        """See `Model.updates`.

        Raises:
            UserError: a loss needs flow, and the network estimates none.
        """
        self.begin(step)
        alone = {"warp_only": True} if step <= self.flow_steps else {}
        pred, flow = frame_and_flow(self.networks["g"](frames(batch), batch.get("timestep", 0.5), **alone))
        self.keep_pictures(first=batch["img0"], output=pred, target=batch["gt"], second=batch["img1"])
        on_frames = [key for key in self.losses if key not in self.flow_losses]
        values = self.loss_values(pred, batch["gt"], on_frames)
        needy = [*self.flow_losses, *(["warp_weight"] if self.warp_weight else [])]
        if needy and flow is None:
            raise UserError(f"train.{needy[0]}: network_g estimates no flow (use_flow: true makes it)")
        terms = flat_terms(values)
        if flow is not None:
            for key in self.flow_losses:
                terms.update(flat_terms(self.loss_values(flow, self.flow_target(key, batch), [key])))
            if self.warp_weight:
                warped = torch.cat([backwarp(batch["img0"], flow[:, :2]), backwarp(batch["img1"], flow[:, 2:])])
                parts = flat_terms(self.loss_values(warped, torch.cat([batch["gt"]] * 2), on_frames))
                terms["l_warp"] = self.warp_weight * torch.stack(list(parts.values())).sum()
        yield Update("g", terms, self.loss_logs())

    def flow_target(self, key: str, batch: Batch) -> Tensor:
        """What the loss `key` compares flow with: the true one (B, 2, H, W), or the first frame (B, 3, H, W).

        Raises:
            UserError: the training set gives no flow.
        """
        if not declared(self.losses[key], "wants_true_flow", LossTraits):
            return cast(Tensor, batch["img0"])
        if "flow" not in batch:
            raise UserError(
                f"train.{key}: the training set gives no flow to compare with; SyntheticMotionDataset does, with_flow: true"
            )
        return cast(Tensor, batch["flow"])

    def imagined(self, count: int, side: int, scale: int, frames: int = 1) -> Batch:
        images = {name: torch.rand(count, 3, side, side) for name in ("img0", "img1", "gt")}
        return {**images, "timestep": torch.full((count,), 0.5), "flow": torch.zeros(count, 4, side, side)}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """The frame (B, 3, H, W) at the batch's ``timestep`` between ``img0`` and ``img1``; see `Model.predict`.

        Raises:
            UserError: a batch has frames at different times, and ``val.recursive`` is on.
        """
        timestep = batch.get("timestep", 0.5)
        if not self.recursive:
            return {"output": self.between(batch["img0"], batch["img1"], timestep)}
        times = set(torch.as_tensor(timestep).reshape(-1).tolist())
        if len(times) > 1:
            raise UserError("val.recursive: a batch of frames at different times; set batch_size_per_gpu: 1")
        made = {0.0: batch["img0"], 1.0: batch["img1"]}
        return {"output": frame_at(times.pop(), lambda a, b: self.between(a, b, 0.5), made)}

    def flow(self, batch: Batch) -> Tensor | None:
        """Flow (B, 4, H, W) from the frame in between to both others, of the whole picture, untiled and unrotated."""
        stacked = frames(batch)
        network, (height, width) = self.networks["g"], stacked.shape[-2:]
        multiple = size_multiple(network)
        padded = F.pad(stacked, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        scale = {} if self.flow_scale == 1 else {"flow_scale": self.flow_scale}
        flow = frame_and_flow(network(padded, batch.get("timestep", 0.5), **scale))[1]
        return None if flow is None else flow[..., :height, :width]

    def at(self, time: float, made: dict[float, Tensor]) -> Tensor:
        """The frame (B, 3, H, W) at a time between two.

        Args:
            time: time above 0 and below 1.
            made: frames by time, with those at 0 and 1; with `recursive`, those on the way are added, and each is made once.
        """
        if self.recursive:
            return frame_at(time, lambda a, b: self.between(a, b, 0.5), made)
        return self.between(made[0.0], made[1.0], time)

    def between(self, img0: Tensor, img1: Tensor, timestep: float | Tensor) -> Tensor:
        """The frame (B, 3, H, W) at a time, asked of the network as the inference options say."""
        call = Call(self.networks["g"], timestep, self.tta, self.flow_scale)
        output = self.inference(call, torch.cat([img0, img1], 1))
        assert isinstance(output, Tensor)
        return output

    def baselines(self, batch: Batch) -> dict[str, Tensor]:
        """``input``, both frames blended by nearness in time, and ``copy``, the nearer frame; (B, 3, H, W) each."""
        time = torch.as_tensor(batch.get("timestep", 0.5)).to(batch["img0"]).reshape(-1, 1, 1, 1)
        nearer = torch.where(time > 0.5, batch["img1"], batch["img0"])
        return {"input": torch.lerp(batch["img0"], batch["img1"], time), "copy": nearer}


def say_without_effect(option: str, reason: str) -> None:
    """Warn of an option that nothing looks at here."""
    if distributed.is_main():
        log.warning("%s has no effect: %s", option, reason)


def say_that_flow_hardly_learns() -> None:
    """Warn that a synthesis that does without flow leaves it little to learn from."""
    if distributed.is_main():
        log.warning(
            "flow hardly learns beside a synthesis that does without it (docs/interpolation.md); train.flow_first and "
            "train.warp_weight change that: options/vfi/phase2_flow_first.yml"
        )


@dataclass(frozen=True)
class Call:
    """A network as a function from both frames to the one in between."""

    network: nn.Module
    timestep: float | Tensor
    tta: Ensemble
    flow_scale: float

    @property
    def size_multiple(self) -> int:
        """That of the network."""
        return size_multiple(self.network)

    def __call__(self, stacked: Tensor) -> Tensor:
        """(B, 6, H, W) to (B, 3, H, W)."""
        scale = {} if self.flow_scale == 1 else {"flow_scale": self.flow_scale}
        return self_ensemble(lambda x: frame_and_flow(self.network(x, self.timestep, **scale))[0], stacked, self.tta)


def frames(batch: Batch) -> Tensor:
    """Both frames of a batch, (B, 6, H, W)."""
    return torch.cat([batch["img0"], batch["img1"]], 1)


def frame_and_flow(output: Any) -> tuple[Tensor, Tensor | None]:
    """A network's output as a frame (B, 3, H, W) and its flow (B, 2 k, H, W), None where there is none."""
    return (output, None) if isinstance(output, Tensor) else (output[0], output[1])
