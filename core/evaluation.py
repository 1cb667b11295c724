"""Scoring a model on datasets, over all ranks: validation during training, and all that test.py does."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .errors import UserError
from .imaging import tonemap, visual
from .imaging.image_io import imwrite
from .imaging.transfer import Transfer
from .metrics import (
    EVALUATION_KEYS,
    METRICS,
    SetMetric,
    calculate_metric,
    metric_direction,
    metric_space,
    needs_reference,
    scores_sets,
)
from .models.base import Batch, Model
from .runtime import distributed
from .runtime.logger import as_json

log = logging.getLogger("relume")

Row = dict[str, Any]
"""One image's scores: ``{"index": 3, "image": "bees", "psnr": 31.2}``."""


Rounding = Literal["8bit", "output", "none"]
"""What is rounded to 8 bits before metrics: output and ground truth; the output alone (a ground truth that was made smaller
keeps its fractions); nothing."""


INPUT = "_input"
"""Ending of the name under which the score of the input itself is filed."""


class Interrupted(Exception):
    """A signal came during evaluation on some rank."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def is_better(value: float, than: float, direction: str) -> bool:
    """Whether a metric's `value` beats another; NaN beats nothing and loses to everything."""
    if math.isnan(value) or math.isnan(than):
        return not math.isnan(value)
    return value > than if direction == "higher" else value < than


@dataclass
class Evaluator:
    """Runs a model over datasets and averages per-image scores exactly, whatever the number of ranks.

    Metrics of whole sets (`SetMetric`) see all outputs of a dataset, and compare them with its attribute ``reference``.

    Args:
        loaders: by dataset name; each gives this rank's share in batches, with the key ``index``: (B,), or a number for one. An
            attribute ``names`` says what images are filed under, by index; others by `image_stem`.
        metrics: blocks of ``val.metrics`` by free name.
        folder: where images and ``<dataset>_scores.jsonl`` go.
        device: of the networks.
        image_name: file name of a saved image from ``(dataset, image, iteration)``.
        save_images: save the outputs.
        save_comparisons: save input | output | target side by side.
        save_grid: save the first so many outputs of each dataset in one picture, ``<dataset>/grid_<iteration>.png``.
        best_metric: the one that chooses the best weights; the first when None.
        score_input: also score the model's baselines, such as the input itself as ``<metric>_input``, unless there is a ``gt``
            of another size: the figures to beat.
        eight_bit: round images to 8 bits before the metrics, as BasicSR does.
        rounding: by dataset, what its published figures round, in place of `eight_bit`.
        transfers: of the datasets by name that hold HDR images, to decode what metrics on linear radiance are given.
            Their outputs are saved as radiance, with a tone-mapped PNG beside; comparisons are tone-mapped.
        linear_format: of saved radiance, a suffix without dot that `imwrite` keeps floats in.
        forgiving: in training, files that cannot be written are reported and evaluation goes on: the scores are what matters.
        picture: called with ``(dataset, image, picture, iteration)`` for the first comparison of each dataset.
    """

    loaders: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    folder: Path
    device: torch.device
    image_name: Callable[[str, str, int], str]
    save_images: bool = False
    save_comparisons: bool = False
    save_grid: int | None = None
    best_metric: str | None = None
    score_input: bool = False
    eight_bit: bool = True
    rounding: Mapping[str, Rounding] = field(default_factory=dict)
    transfers: Mapping[str, Transfer] = field(default_factory=dict)
    linear_format: str = "hdr"
    forgiving: bool = False
    picture: Callable[[str, str, Any, int], None] | None = None
    progress: Callable[[str, Any], Any] | None = None
    better: dict[str, str] = field(init=False)
    best: str | None = field(init=False)
    seconds: dict[str, float] = field(init=False, default_factory=dict)
    """By dataset, what an image took the model here in the last run: the mean, without the first batch if there are more."""

    def __post_init__(self) -> None:
        self.better = {k: str(m.get("better") or metric_direction(m["type"])) for k, m in self.metrics.items()}
        self.best = self.best_metric or next(iter(self.metrics), None)
        if self.best is not None and self.best not in self.metrics:
            raise UserError(f"val.best: no metric is called '{self.best}'. Known: {', '.join(self.metrics)}.")
        self._full_reference = {k for k, m in self.metrics.items() if needs_reference(m["type"])}
        self._linear = {k for k, m in self.metrics.items() if (m.get("space") or metric_space(m["type"])) == "linear"}
        if self._linear and self.loaders and not self.transfers:
            raise UserError(
                f"val.metrics.{min(self._linear)}: scores linear radiance, which no dataset here has; give it one with a "
                "transfer function, such as LDR_HDR_PairedDataset"
            )
        self._of_sets = {k: self._set_metric(k, m) for k, m in self.metrics.items() if scores_sets(m["type"])}
        self._grid: list[tuple[int, np.ndarray]] = []

    def _set_metric(self, name: str, block: Mapping[str, Any]) -> SetMetric:
        """The metric of a block, which all datasets suit. Raises UserError, naming the block."""
        try:
            metric: SetMetric = METRICS.build(options_of(block))
            for loader in self.loaders.values():
                if hasattr(loader, "images"):
                    metric.check(loader.reference, loader.images)
        except UserError as e:
            raise UserError(f"val.metrics.{name}: {e}") from e
        return metric

    def run(
        self, model: Model, iteration: int, interrupted: Callable[[], int] = lambda: 0
    ) -> dict[str, dict[str, float]]:
        """Mean scores, ``results[dataset][metric]``, the same on every rank. A metric that no image could have is absent.

        Raises:
            Interrupted: ``interrupted()`` gave an exit code on some rank; nothing was averaged.
        """
        results = {}
        for dataset, loader in self.loaders.items():
            for metric in self._of_sets.values():
                metric.start(getattr(loader, "reference", None), self.device)
            rows = self._share(model, dataset, loader, iteration, interrupted)
            gathered = distributed.gather((rows, self._grid, interrupted()))
            code = max(code for _, _, code in gathered)
            if code:
                raise Interrupted(code)
            every = sorted((row for share, _, _ in gathered for row in share), key=lambda r: r["index"])
            results[dataset] = self._means(every)
            for name, metric in self._of_sets.items():
                results[dataset].update({f"{name}{part}": value for part, value in metric.compute().items()})
            if distributed.is_main():
                with self._writing(dataset):
                    self._write(dataset, iteration, every)
                    self._write_grid(dataset, iteration, [image for _, share, _ in gathered for image in share])
        return results

    def _share(
        self, model: Model, dataset: str, loader: Any, iteration: int, interrupted: Callable[[], int]
    ) -> list[Row]:
        """Score this rank's images."""
        names: Mapping[int, str] = getattr(loader, "names", {})
        rows: list[Row] = []
        times: list[float] = []
        self._grid = []
        for batch in self.progress(dataset, loader) if self.progress else loader:
            if interrupted():
                break
            indices = torch.as_tensor(batch["index"]).reshape(-1).tolist()
            data = {k: v for k, v in batch.items() if k != "index"}
            placed = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in data.items()}
            begin = self._now()
            outputs = model.predict(placed)["output"]
            times.append((self._now() - begin) / len(indices))
            counted = [i for i, index in enumerate(indices) if index >= 0]  # the others only keep ranks in step
            if counted and self._of_sets:
                made = outputs if len(counted) == len(indices) else outputs[counted]
                for metric in self._of_sets.values():
                    metric.update(made, [indices[i] for i in counted])
            targets, baselines = placed.get("gt"), model.baselines(placed)
            for i in counted:
                output, target = outputs[i : i + 1], one(targets, i)
                name = names.get(indices[i]) or image_stem(placed, indices[i], i)
                own = {label: given[i : i + 1] for label, given in baselines.items()}
                rows.append({"index": indices[i], "image": name, **self._row(dataset, output, target, own)})
                shown = {"input": own.get("input"), "output": output, "target": target}
                with self._writing(dataset):
                    self._save(dataset, name, iteration, indices[i], shown)
        if times:
            self.seconds[dataset] = float(np.mean(times[1:] or times))
        return rows

    def _now(self) -> float:
        """The time when the device has done all it was asked to."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextlib.contextmanager
    def _writing(self, dataset: str) -> Iterator[None]:
        """What follows writes files of a dataset's results.

        Raises:
            UserError: they cannot be written (a full disk, a folder without permission), and that matters.
        """
        try:
            yield
        except OSError as e:
            if not self.forgiving:
                raise UserError(f"results of {dataset} cannot be written to {self.folder}: {e}") from e
            log.warning("results of %s cannot be written to %s, which loses nothing else: %s", dataset, self.folder, e)

    def _row(
        self, dataset: str, output: Tensor, target: Tensor | None, baselines: Mapping[str, Tensor]
    ) -> dict[str, float]:
        """The scores of one image, and of its baselines where that is asked for."""
        if len(self._of_sets) == len(self.metrics):
            return {}
        scores = self._scores(dataset, output, target)
        for label, given in baselines.items() if self.score_input else ():
            if target is None or given.shape == target.shape:
                scores.update({f"{k}_{label}": v for k, v in self._scores(dataset, given, target).items()})
        return scores

    def _scores(self, dataset: str, output: Tensor, target: Tensor | None) -> dict[str, float]:
        transfer = self.transfers.get(dataset)
        given = {"img": output} if target is None else {"img": output, "img2": target}
        if target is not None and output.shape[-2:] != target.shape[-2:]:
            shapes = f"{tuple(output.shape[-2:])} and {tuple(target.shape[-2:])}"
            raise UserError(f"the output and the ground truth differ in size: {shapes} (is `scale` right?)")
        rounding = self.rounding.get(dataset, "8bit" if self.eight_bit else "none")
        encoded = {k: for_metrics(v, rounding, is_output=k == "img") for k, v in given.items()}
        linear = {k: radiance(v, transfer) for k, v in given.items()} if transfer and self._linear else {}
        scores = {}
        for name, block in self.metrics.items():
            images = linear if name in self._linear else encoded
            if name in self._of_sets or not images or (name in self._full_reference and target is None):
                continue
            block = options_of(block)
            accepted = METRICS.parameters(block["type"])
            if "color_order" in accepted:
                block.setdefault("color_order", "rgb")
            if transfer and name in self._linear:
                block = {**{k: transfer.peak for k in ("peak", "data_range") if k in accepted}, **block}
            data = images if name in self._full_reference else {"img": images["img"]}
            scores[name] = float(calculate_metric(data, block))
        return scores

    def _means(self, rows: list[Row]) -> dict[str, float]:
        means = {}
        found = dict.fromkeys(n for row in rows for n in row if n not in ("index", "image"))
        # A metric, then what the baselines have of it.
        for name in dict.fromkeys(n for m in self.metrics for n in (m, *found) if n == m or n.startswith(f"{m}_")):
            values = [row[name] for row in rows if name in row]
            if values:
                means[name] = float(np.mean(values))
        return means

    def _save(self, dataset: str, name: str, iteration: int, index: int, images: Mapping[str, Tensor | None]) -> None:
        path = self.folder / dataset / self.image_name(dataset, name, iteration)
        shown: Mapping[str, visual.Picture] = {k: image[0] for k, image in images.items() if image is not None}
        transfer = self.transfers.get(dataset)
        if transfer is not None:
            linear = {label: radiance(image, transfer) for label, image in images.items() if image is not None}
            if self.save_images:
                imwrite(path.with_suffix(f".{self.linear_format}"), linear["output"], bit_depth=32)
            shown = tonemap.tone_mapped(linear, "target" if "target" in linear else "output")
        if self.save_images:
            imwrite(path, shown["output"])
        if self.save_grid is not None and index < self.save_grid:
            self._grid.append((index, visual.to_uint8(shown["output"])))
        if not self.save_comparisons and (self.picture is None or index > 0):
            return
        comparison = visual.comparison(shown)
        if self.save_comparisons:
            imwrite(path.with_name(f"{path.stem}_comparison.png"), comparison)
        if self.picture is not None and index == 0:
            self.picture(dataset, name, comparison, iteration)

    def _write(self, dataset: str, iteration: int, rows: list[Row]) -> None:
        """Per-image scores, one JSON line each, of this evaluation only."""
        if len(self._of_sets) == len(self.metrics):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [as_json({"iter": iteration, **{k: v for k, v in row.items() if k != "index"}}) for row in rows]
        path = self.folder / f"{dataset}_scores.jsonl"
        temporary = path.with_suffix(".tmp")
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        temporary.replace(path)

    def _write_grid(self, dataset: str, iteration: int, images: list[tuple[int, np.ndarray]]) -> None:
        """The first outputs in one picture, about square."""
        if not images:
            return
        shown = [image for _, image in sorted(images, key=lambda pair: pair[0])]
        picture = visual.grid(shown, math.ceil(len(shown) ** 0.5))
        imwrite(self.folder / dataset / f"grid_{iteration}.png", picture)
        if self.picture is not None:
            self.picture(dataset, "grid", picture, iteration)


def for_metrics(image: Tensor, rounding: Rounding, is_output: bool) -> np.ndarray:
    """(1, C, H, W) in [0, 1] as (H, W, C), clipped, and rounded to 8 bits where asked for: uint8, or float32 up to 1."""
    clipped = image[0].detach().float().clamp(0, 1)
    if rounding == "8bit":
        return visual.to_uint8(clipped)
    if rounding == "output" and is_output:
        clipped = (clipped * 255).round() / 255
    array: np.ndarray = clipped.permute(1, 2, 0).cpu().numpy()
    return array


def one(images: Tensor | None, i: int) -> Tensor | None:
    """Image i of a batch as a batch of one."""
    return None if images is None else images[i : i + 1]


def options_of(block: Mapping[str, Any]) -> dict[str, Any]:
    """A metric's block without the keys that are for the evaluation."""
    return {k: v for k, v in block.items() if k not in EVALUATION_KEYS}


def radiance(image: Tensor, transfer: Transfer) -> np.ndarray:
    """(1, C, H, W) in network space as linear radiance, (H, W, C) float32, finite, neither clipped at the peak nor rounded.

    As elsewhere, NaN is black. What a network makes beyond the code 2 is nothing that its data had, and is taken for 2.
    """
    codes = image[0].detach().float().nan_to_num(0.0).clamp(max=2.0)
    array: np.ndarray = transfer.decode(codes).permute(1, 2, 0).cpu().numpy()
    return array


def image_stem(batch: Batch, index: int, place: int = 0) -> str:
    """What results of the image at `place` of a batch are filed under: its ``name``, else its file's stem, else its index."""
    if batch.get("name"):
        return str(batch["name"][place] if isinstance(batch["name"], (list, tuple)) else batch["name"])
    for key in ("lq_path", "gt_path"):
        if batch.get(key):
            path = batch[key][place] if isinstance(batch[key], (list, tuple)) else batch[key]
            return Path(str(path)).stem
    return f"{index:05d}"
