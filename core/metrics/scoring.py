"""Scores of a model's outputs: which metrics see what, image by image and of whole sets, and their means."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...datasets.base import LoaderTraits, Rounding
from ..annotations import declared
from ..errors import UserError
from ..imaging import visual
from ..imaging.transfer import Transfer, radiance
from ..runtime.gate import gate
from . import (
    METRICS,
    SetMetric,
    calculate_metric,
    mean_score,
    metric_direction,
    metric_options,
    metric_space,
    needs_reference,
    scores_sets,
)

ScoreRow = dict[str, Any]
"""One image's scores: ``{"index": 3, "image": "bees", "psnr": 31.2}``."""


@dataclass
class Scorer:
    """The metrics of ``val.metrics``, each given the images that it takes.

    Args:
        metrics: blocks by free name.
        loaders: loaders of what will be scored; see `LoaderTraits`.
        best_metric: the one that chooses the best weights; the first when None.
        score_input: also score baselines, as ``<metric>_<baseline>``, unless the ground truth is of another size.
        eight_bit: round images to 8 bits before the metrics, as BasicSR does.
        rounding: what each dataset's published figures round, by name, in place of `eight_bit`.
        transfers: transfer functions by name of the datasets that hold HDR images, to decode what metrics on linear
            radiance are given.

    Raises:
        UserError: no such metric, or one that nothing here suits.
    """

    metrics: Mapping[str, Mapping[str, Any]]
    loaders: Mapping[str, Any]
    best_metric: str | None = None
    score_input: bool = False
    eight_bit: bool = True
    rounding: Mapping[str, Rounding] = field(default_factory=dict)
    transfers: Mapping[str, Transfer] = field(default_factory=dict)
    better: dict[str, str] = field(init=False)
    """Whether, for each metric, a ``higher`` or a ``lower`` score beats another."""
    best: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.better = {k: str(m.get("better") or metric_direction(m["type"])) for k, m in self.metrics.items()}
        self.best = self.best_metric or next(iter(self.metrics), None)
        if self.best is not None and self.best not in self.metrics:
            raise UserError(f"val.best: no metric is called '{self.best}'. Known: {', '.join(self.metrics)}.")
        self._full_reference = {k for k, m in self.metrics.items() if needs_reference(m["type"])}
        spaces = {k: m.get("space") or metric_space(m["type"]) for k, m in self.metrics.items()}
        spans = ({k for k, s in spaces.items() if s == space} for space in ("linear", "flow", "clip"))
        self._linear, self._flow, self._clip = spans
        for name, block in self.metrics.items():
            if "." in block["type"] and spaces[name] != "encoded":
                raise UserError(
                    f"val.metrics.{name}: {block['type']} scores images as networks see them (space: encoded)"
                )
        if self._linear and self.loaders and not self.transfers:
            name = min(self._linear)
            asked = " (space: linear)" if self.metrics[name].get("space") else ""
            raise UserError(
                f"val.metrics.{name}: scores linear radiance{asked}, which no dataset here has; give it one with a "
                "transfer function, such as LDR_HDR_PairedDataset"
            )
        self._of_sets = {k: self._set_metric(k, m) for k, m in self.metrics.items() if scores_sets(m["type"])}

    def _set_metric(self, name: str, block: Mapping[str, Any]) -> SetMetric:
        """The metric of a block, which all datasets suit. Raises UserError, naming the block."""
        try:
            metric: SetMetric = METRICS.build(metric_options(block))
            for loader in self.loaders.values():
                if (images := declared(loader, "images", LoaderTraits)) is not None:
                    metric.check(declared(loader, "reference", LoaderTraits), images)
        except UserError as e:
            raise UserError(f"val.metrics.{name}: {e}") from e
        return metric

    # ------------------------------------------------------------ metrics of whole sets
    def start(self, reference: Any, device: torch.device) -> None:
        """A new dataset begins: metrics of whole sets forget the last one."""
        for metric in self._of_sets.values():
            metric.start(reference, device)

    def update(self, images: Tensor, indices: Sequence[int]) -> None:
        """Let metrics of whole sets see images (B, C, H, W), whose numbers in the dataset are `indices`."""
        for metric in self._of_sets.values():
            metric.update(images, indices)

    def of_set(self) -> dict[str, float]:
        """The scores of what was seen since `start`, over all ranks, by name.

        Raises:
            UserError: one cannot be computed; the message names its block.
        """
        found = {}
        for name, metric in self._of_sets.items():
            with gate(f"val.metrics.{name}", self.metrics[name]):
                found.update({f"{name}{part}": value for part, value in metric.compute().items()})
        return found

    # ------------------------------------------------------------ metrics of one image
    @property
    def scores_flow(self) -> bool:
        """Whether some metric scores the flow that a network estimates."""
        return bool(self._flow)

    def of_flow(self, flow: Tensor | None, truth: Tensor | None) -> tuple[dict[str, float], dict[str, Exception]]:
        """The scores of one image's flow (1, 2 k, H, W), in pixels, where it and the true one are there; and what failed."""
        scores: dict[str, float] = {}
        failures: dict[str, Exception] = {}
        lacking = "network_g estimates no flow" if flow is None else "the dataset gives no true flow (with_flow: true)"
        for name in (n for n in self.metrics if n in self._flow):
            if flow is None or truth is None:
                failures[name] = UserError(lacking)
                continue
            try:
                scores[name] = calculate_metric({"img": flow, "img2": truth}, metric_options(self.metrics[name]))
            except Exception as e:
                failures[name] = e
        return scores, failures

    def of_motion(
        self, dataset: str, outputs: Tensor, targets: Tensor | None, baselines: Mapping[str, Tensor], i: int, frame: int
    ) -> tuple[dict[str, float], dict[str, Exception]]:
        """The scores of a frame with the one before it, of clip `i` of a batch (B, T, C, H, W), and of its baselines where that
        is asked for; and what failed. The first frame of a clip has none. Without ground truth nothing is scored."""
        scores: dict[str, float] = {}
        failures: dict[str, Exception] = {}
        if not self._clip or targets is None or (outputs.dim() == 5 and not frame and outputs.shape[1] > 1):
            return scores, failures
        rounding = self.rounding.get(dataset, "8bit" if self.eight_bit else "none")
        shown = {"": outputs}
        if self.score_input:
            shown |= {f"_{label}": given for label, given in baselines.items() if given.shape == targets.shape}
        for label, given in shown.items():
            for name in (n for n in self.metrics if n in self._clip):
                try:
                    pair = [_pair(clip, i, frame, rounding, clip is not targets) for clip in (given, targets)]
                    if any(p is None for p in pair):
                        scores[name + label] = math.nan
                        continue
                    data = dict(zip(("img", "img2"), pair, strict=True))
                    scores[name + label] = calculate_metric(data, self._options(self.metrics[name], None))
                except Exception as e:
                    failures[name + label] = e
        return scores, failures

    @property
    def scores_images(self) -> bool:
        """Whether some metric scores single images."""
        return len(self._of_sets) < len(self.metrics)

    def of_image(
        self, dataset: str, output: Tensor, target: Tensor | None, baselines: Mapping[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Exception]]:
        """The scores of one image, and of its baselines where that is asked for; all (1, C, H, W). And the metrics that
        failed, which may be anybody's code, by name.

        Raises:
            UserError: output and ground truth differ in size.
        """
        if not self.scores_images:
            return {}, {}
        scores, failures = self._scores(dataset, output, target)
        for label, given in baselines.items() if self.score_input else ():
            if given.shape == target.shape if target is not None else given.shape[1] == output.shape[1]:
                own, failed = self._scores(dataset, given, target)
                scores.update({f"{k}_{label}": v for k, v in own.items()})
                failures.update({f"{k}_{label}": e for k, e in failed.items()})
        return scores, failures

    def _scores(
        self, dataset: str, output: Tensor, target: Tensor | None
    ) -> tuple[dict[str, float], dict[str, Exception]]:
        # Refuse what cannot be compared; what is not finite has the score NaN.
        transfer = self.transfers.get(dataset)
        given = {"img": output} if target is None else {"img": output, "img2": target}
        if target is not None and output.shape[-2:] != target.shape[-2:]:
            shapes = f"{tuple(output.shape[-2:])} and {tuple(target.shape[-2:])}"
            raise UserError(f"the output and the ground truth differ in size: {shapes} (is `scale` right?)")
        if not all(bool(torch.isfinite(v).all()) for v in given.values()):  # rounding and clipping would hide it
            named = (k for k in self.metrics if k not in self._of_sets and k not in self._flow | self._clip)
            names = [k for k in named if k not in self._linear or transfer]
            return {k: math.nan for k in names if k not in self._full_reference or target is not None}, {}
        # The images in every form that a metric takes: encoded on the host, linear radiance, on the device.
        rounding = self.rounding.get(dataset, "8bit" if self.eight_bit else "none")
        on_host: dict[str, np.ndarray] = {}

        def encoded() -> dict[str, np.ndarray]:
            if not on_host:  # only where some metric needs them there
                on_host.update({k: for_metrics(v, rounding, is_output=k == "img") for k, v in given.items()})
            return on_host

        linear = {k: radiance(v[0], transfer) for k, v in given.items()} if transfer and self._linear else {}
        scores: dict[str, float] = {}
        failures: dict[str, Exception] = {}
        theirs = {k: m for k, m in self.metrics.items() if k not in self._linear | self._flow | self._clip}
        there: dict[str, float] = {}
        if target is not None:
            from . import on_device

            there = on_device.scores(theirs, output, target, rounding)
        # Each metric of one image, on the form that it takes; an error of one leaves the others.
        for name, block in self.metrics.items():
            if (
                name in self._of_sets
                or name in self._flow | self._clip
                or (name in self._linear and not linear)
                or (name in self._full_reference and target is None)
            ):
                continue
            if name in there:
                scores[name] = there[name]
                continue
            images: Mapping[str, Any] = linear if name in self._linear else encoded()
            data = images if name in self._full_reference else {"img": images["img"]}
            try:
                scores[name] = calculate_metric(data, self._options(block, transfer if name in self._linear else None))
            except Exception as e:
                failures[name] = e
        return scores, failures

    def _options(self, block: Mapping[str, Any], transfer: Transfer | None) -> dict[str, Any]:
        """A metric's options, completed by what is known of the images here."""
        accepted = METRICS.parameters(block["type"])
        known: dict[str, Any] = {"color_order": "rgb"}
        if transfer is not None:
            known |= dict.fromkeys(("peak", "data_range"), transfer.peak)
            known["gamma"] = 1.0  # radiance is linear already
        return {**{k: v for k, v in known.items() if k in accepted}, **metric_options(block)}

    def means(self, rows: Sequence[ScoreRow]) -> tuple[dict[str, float], list[str]]:
        """The `mean_score` of every score over the images that have it: a metric, then what the baselines have of it.

        Also what is to be said of them, a line each.
        """
        found = dict.fromkeys(n for row in rows for n in row if n not in ("index", "image", "folder"))
        means, notes = {}, []
        for metric, block in self.metrics.items():
            for name in (n for n in found if n == metric or (n.startswith(f"{metric}_") and n not in self.metrics)):
                if name not in means:
                    clips: dict[str, list[float]] = defaultdict(list)
                    for row in rows:
                        if name in row:
                            clips[row.get("folder", "")].append(row[name])
                    scored = {clip: mean_score(block["type"], values) for clip, values in clips.items()}
                    means[name], of_clips = mean_score(block["type"], [score for score, _ in scored.values()], "clips")
                    several = len(scored) > 1
                    for clip, (score, said) in scored.items():
                        notes += [f"{name} of {clip}: {score:.4f}"] if several and clip else []
                        notes += [f"{name}: {said}"] if said else []
                    notes += [f"{name}: {of_clips}"] if of_clips else []
        return means, notes


def _pair(clip: Tensor, i: int, frame: int, rounding: Rounding, is_output: bool) -> list[np.ndarray] | None:
    """A frame and the one before it as metrics take them; None where they are not finite.

    Raises:
        UserError: there is no frame before.
    """
    if clip.dim() != 5:
        raise UserError("scores whole clips, of which a network for single frames, or center_frame_only, makes none")
    if clip.shape[1] < 2:
        raise UserError("scores neighbouring frames, and this clip has one")
    frames = clip[i, frame - 1 : frame + 1]
    return [for_metrics(f[None], rounding, is_output) for f in frames] if bool(torch.isfinite(frames).all()) else None


def for_metrics(image: Tensor, rounding: Rounding, is_output: bool) -> np.ndarray:
    """(1, C, H, W) in [0, 1] as (H, W, C), clipped, and rounded to 8 bits where asked for: uint8, or float32 up to 1."""
    clipped = image[0].detach().float().clamp(0, 1)
    if rounding == "8bit":
        return visual.to_uint8(clipped)
    if rounding == "output" and is_output:
        clipped = (clipped * 255).round() / 255
    array: np.ndarray = clipped.permute(1, 2, 0).cpu().numpy()
    return array
