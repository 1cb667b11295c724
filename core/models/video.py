"""Restoration of videos: clips in, clips or their middle frames out."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from ...archs.video.layers import DCNv2Pack
from ..annotations import Count, NonNegative, Range, SomeIterations
from ..degradations.limits import Probabilities
from ..errors import UserError
from ..inference.network import network_trait
from ..inference.scenes import beginnings
from ..inference.windows import continued_by, in_windows, lengthened, run_clip
from ..runtime import distributed
from . import MODELS
from .base import Batch, Update
from .batch_mixing import DEFAULT, Augmentation
from .restoration import RestorationModel

log = logging.getLogger("relume")
Factor = Annotated[float, Range(least=0)]
OFFSETS = "offsets"
"""The log's name of the mean length of the offsets of deformable convolutions, in pixels, of the one where it is largest."""


@MODELS.register(aliases=("VideoBaseModel", "VideoRecurrentModel", "EDVRModel"))
class VideoModel(RestorationModel):
    """The losses of the options on every frame that the network gives.

    Batches have ``lq``, (B, T, 3, h, w), and ``gt``: (B, T, 3, H, W) for networks that give all frames, or (B, 3, H, W) for
    those that give one of them. Scores are averaged over the frames of a clip, then over clips.

    Args:
        fix_flow: iterations before which the flow estimator and the features of key frames (parameters with ``spynet`` or
            ``edvr`` in their name) are not trained; they are from this iteration on.
        flow_lr_mul: factor of the learning rate of parameters with ``spynet`` in their name.
        tsa_iter: iterations before which only parameters with ``fusion`` in their name are trained; all are from this one on.
        dcn_lr_mul: factor of the learning rate of parameters with ``dcn`` in their name.
        center_frame_only: score and save the middle frame only of a clip.
        flip_seq: the mean of what the network makes of a clip followed by itself backwards.
        window_frames: frames of a clip that the network gets at a time, for long clips; all when omitted. The state of a
            network that goes through a clip from its beginning (BasicVSR) is carried from one window to the next.
        window_overlap: frames that neighbouring windows share.
        use_moa: change every batch by one augmentation of `moa_augs`, see `batch_mixing`.
        moa_augs: augmentations to choose from.
        moa_probs: probabilities of those augmentations; all alike when omitted.

    Raises:
        UserError: no parameter has such a name.
    """

    inference_options = ("center_frame_only", "flip_seq", "window_frames", "window_overlap")
    find_unused_parameters = True

    def __init__(
        self,
        networks: dict[str, nn.Module],
        losses: dict[str, nn.Module],
        *,
        fix_flow: SomeIterations | None = None,
        flow_lr_mul: Factor = 1.0,
        tsa_iter: SomeIterations | None = None,
        dcn_lr_mul: Factor = 1.0,
        center_frame_only: bool = False,
        flip_seq: bool = False,
        window_frames: Count | None = None,
        window_overlap: NonNegative = 4,
        use_moa: bool = False,
        moa_augs: list[Augmentation] = list(DEFAULT),  # noqa: B006 - not modified
        moa_probs: Probabilities | None = None,
    ) -> None:
        super().__init__(networks, losses, use_moa=use_moa, moa_augs=moa_augs, moa_probs=moa_probs)
        self.fix_flow, self.tsa_iter = fix_flow or 0, tsa_iter or 0
        self.multipliers = {"spynet": flow_lr_mul, "dcn": dcn_lr_mul}
        self.center_frame_only, self.flip_seq = center_frame_only, flip_seq
        self.window_frames, self.window_overlap = window_frames, window_overlap
        self.named = dict(networks["g"].named_parameters())
        for option, given, parts in (
            ("fix_flow", self.fix_flow, ("spynet", "edvr")),
            ("tsa_iter", self.tsa_iter, ("fusion",)),
        ):
            if given and not any(part in name for name in self.named for part in parts):
                wanted = " or ".join(parts)
                raise UserError(
                    f"train.{option}: {type(networks['g']).__name__} has no parameter with {wanted} in its name"
                )
        self.deformable = [m for m in networks["g"].modules() if isinstance(m, DCNv2Pack)]
        self._strayed = False
        self.phase: tuple[bool, bool] | None = None
        self._passed: tuple[tuple[str, int], Any] | None = None  # of the part before: who comes next, and the state

    def begin(self, step: int) -> None:
        """Train what iteration `step` wants trained, which follows from the iteration alone."""
        if not (self.fix_flow or self.tsa_iter):
            return
        phase = step < self.fix_flow, step < self.tsa_iter
        if phase == self.phase:
            return
        self.phase = phase
        for name, parameter in self.named.items():
            of_flow = "spynet" in name or "edvr" in name
            parameter.requires_grad_(not (phase[0] and of_flow) and not (phase[1] and "fusion" not in name))
        if distributed.is_main():
            until = [f"{n} until iteration {i}" for n, i in self._waiting(step)]
            log.info("Trained from iteration %d: %s", step, "; ".join(until) or "all parameters")

    def _waiting(self, step: int) -> Iterator[tuple[str, int]]:
        if step < self.fix_flow:
            yield "all but the flow estimator", self.fix_flow
        if step < self.tsa_iter:
            yield "only the fusion", self.tsa_iter

    def training_blocks(self, train: Mapping[str, Any]) -> Mapping[str, Any]:
        """As of any model; parts with a factor of their own are a group of the optimizer."""
        blocks = dict(super().training_blocks(train))
        groups = [
            {"params": part, "lr_scale": factor}
            for part, factor in self.multipliers.items()
            if factor != 1 and any(part in name for name in self.named)
        ]
        if groups and "optim_g" in blocks:
            given = dict(blocks["optim_g"])
            blocks["optim_g"] = {**given, "param_groups": [*(given.get("param_groups") or ()), *groups]}
        return blocks

    def prepared(self, batch: Batch, step: int) -> Batch:
        """Its clips mixed as the options say."""
        return {**batch, **self.mixing({"lq": batch["lq"], "gt": batch["gt"]}, batch)}

    def stage(self, step: int) -> Hashable:
        return step < self.fix_flow, step < self.tsa_iter

    def updates(self, batch: Batch, step: int) -> Iterator[Update]:
        """See `Model.updates`.

        Raises:
            UserError: the output and ``gt`` differ in shape.
        """
        self.begin(step)
        images = self.ready(batch, step)
        for layer in self.deformable:
            layer.moved = None
        output = self.networks["g"](images["lq"])
        target = images["gt"]
        if output.shape != target.shape:
            raise UserError(
                f"the network makes {tuple(output.shape)} of {tuple(batch['lq'].shape)}, and gt is {tuple(target.shape)}: "
                "recurrent networks need a data set of whole clips, those of a middle frame one of windows; or scale is wrong"
            )
        self.keep_pictures(input=middle(images["lq"]), output=middle(output), target=middle(target))
        values = self.loss_values(frames_of(output), frames_of(target), self.loss_keys)
        moved = [layer.moved for layer in self.deformable if layer.moved is not None]
        logs = {OFFSETS: torch.stack(moved).max()} if moved else {}
        yield Update("g", self.objective([values]), {**self.loss_logs(), **logs})

    def remarks(self, line: Mapping[str, float]) -> Iterator[str]:
        if line.get(OFFSETS, 0.0) > DCNv2Pack.LARGE and not self._strayed:
            self._strayed = True
            pixels = f"{line[OFFSETS]:.0f} pixels"
            yield f"offsets of a deformable convolution are {pixels} in the mean: training has gone astray"

    def imagined(self, count: int, side: int, scale: int, frames: int = 1) -> Batch:
        clip = torch.rand(count, frames, 3, side // scale, side // scale)
        with torch.no_grad():  # of all frames, or of the middle one
            target = torch.rand_like(self.networks["g"](clip))
        return {**super().imagined(count, side, scale), "lq": clip, "gt": target}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """The restored frames of the clip ``lq`` (B, T, C, H, W), or of its middle frame; see `Model.predict`.

        Raises:
            UserError: ``val.center_frame_only`` is on, and the batch has parts of clips.
        """
        clip = batch["lq"]
        if clip.dim() == 4:
            clip = clip[:, None]
        places = places_of(batch, len(clip))
        if places and self.center_frame_only:
            raise UserError("val.center_frame_only: is of whole clips; leave max_frames of the data set out")
        if places:
            return {"output": torch.cat([self._part(clip[i : i + 1], place) for i, place in enumerate(places)])}
        output = self._both_ways(self._run, clip)
        return {"output": middle(output) if self.center_frame_only else output}

    def baselines(self, batch: Batch) -> dict[str, Tensor]:
        found = super().baselines(batch)
        return {name: own_frames(clip, places_of(batch, len(clip))) for name, clip in found.items()}

    def _both_ways(self, run: Callable[[Tensor], Tensor], clip: Tensor) -> Tensor:
        """What `run` makes of clips; with `flip_seq`, the mean of both directions of time."""
        if not self.flip_seq or network_trait(self.networks["g"], "takes_frames"):
            return run(clip)
        both, count = run(torch.cat([clip, clip.flip(1)], 1)), clip.shape[1]
        return (both[:, :count] + both[:, count:].flip(1)) / 2

    def _run(self, clip: Tensor) -> Tensor:
        """Clips in one piece; those longer than `window_frames`, which may have several scenes, in scenes and windows."""
        takes = network_trait(self.networks["g"], "takes_frames")
        if takes or self.window_frames is None or clip.shape[1] <= self.window_frames:
            return run_clip(self.inference, self.networks["g"], clip)
        return torch.cat([self._by_scenes(clip[i : i + 1]) for i in range(len(clip))])

    def _by_scenes(self, clip: Tensor) -> Tensor:
        """The frames of a clip (1, T, C, H, W); no window reaches across a cut."""
        return torch.cat([self._scene(clip[:, begin:end]) for begin, end in scenes_of(clip)], 1)

    def _scene(self, clip: Tensor) -> Tensor:
        if self.carries:
            return self._continued_by(clip, None, clip.shape[1])[0]
        network = self.networks["g"]
        run = partial(run_clip, self.inference, network)
        least = network_trait(network, "least_frames")
        return in_windows(lengthened(run, least), clip, self.window_frames, self.window_overlap)

    def _part(self, clip: Tensor, place: Place) -> Tensor:
        """The own frames of a part (1, T, C, H, W) of a long clip; neither state nor context reaches across a cut.

        The state after them is kept for the next part, which knows then what came before as in one clip without end.
        """
        until = clip.shape[1] - place.right
        if not self.carries:
            return self._both_ways(self._by_scenes, clip)[:, place.left : until]
        scenes = scenes_of(clip)
        cut_before = place.left > 0 and place.left in dict(scenes)
        goes_on = self._passed is not None and self._passed[0] == place.before and not cut_before
        begin, state = (place.left, self._passed[1]) if goes_on and self._passed else (0, None)
        results = []
        for start, end in ((max(start, begin), end) for start, end in scenes if start < until and end > begin):
            known = state if start == begin else None
            made, state = self._continued_by(clip[:, start:end], known, min(end, until) - start)
            results.append(made)
        self._passed = (place.folder, place.first + until - place.left), state
        return torch.cat(results, 1)[:, place.left - begin :]

    def _continued_by(self, scene: Tensor, state: Any, count: int) -> tuple[Tensor, Any]:
        return continued_by(self.continued, scene, state, count, self.window_frames, self.window_overlap)

    @property
    def carries(self) -> bool:
        """Whether the network's state can go from one window to the next: it has one, and sees frames whole and once."""
        whole = self.inference.tile is None and self.inference.cut is None and self.inference.window_size is None
        return whole and not self.flip_seq and network_trait(self.networks["g"], "continued") is not None

    def continued(self, clip: Tensor, state: Any, count: int) -> tuple[Tensor, Any]:
        """The first `count` results of the clip (B, T, C, H, W), and the state after those; see `NetworkTraits.continued`."""
        result: tuple[Tensor, Any] = network_trait(self.networks["g"], "continued")(clip, state, count)
        return result


class Place(NamedTuple):
    """Where a part of a clip stands in it.

    Attributes:
        folder: the clip's name.
        first: number of the first of its own frames.
        left, right: how many frames before and after those are there as context.
    """

    folder: str
    first: int
    left: int
    right: int

    @property
    def before(self) -> tuple[str, int]:
        """What the part before it leaves its state under."""
        return self.folder, self.first


def places_of(batch: Batch, count: int) -> list[Place]:
    """Where the `count` clips of a batch stand in longer ones, if they are parts of such (see `VideoRecurrentTestDataset`)."""
    if "left" not in batch:
        return []
    folders = batch.get("folder", "")
    folders = [folders] * count if isinstance(folders, str) else list(folders)
    first, left, right = (
        torch.as_tensor(batch.get(key, 0)).reshape(-1).expand(count).tolist() for key in ("first", "left", "right")
    )
    return [Place(*place) for place in zip(folders, first, left, right, strict=True)]


def own_frames(clip: Tensor, places: Sequence[Place]) -> Tensor:
    """The frames, of parts of clips (B, T, C, H, W), that are not there as context."""
    if not places or clip.dim() != 5:
        return clip
    return torch.stack([c[p.left : clip.shape[1] - p.right] for c, p in zip(clip, places, strict=True)])


def scenes_of(clip: Tensor) -> list[tuple[int, int]]:
    """Where the scenes of a clip (1, T, C, H, W) begin and end."""
    begins = beginnings(clip[0])
    return list(itertools.pairwise([*begins, clip.shape[1]]))


def middle(clip: Tensor) -> Tensor:
    """The middle frame of (B, T, C, H, W); an image (B, C, H, W) as it is."""
    return clip[:, clip.shape[1] // 2] if clip.dim() == 5 else clip


def frames_of(clip: Tensor) -> Tensor:
    """The frames of (B, T, C, H, W) as a batch of images, as losses take them; a batch of images as it is."""
    return clip.flatten(0, 1) if clip.dim() == 5 else clip
