"""Scoring a model on datasets, over all ranks: validation during training, and all that test.py does."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datasets.base import DatasetTraits, LoaderTraits, Rounding
from .annotations import declared
from .errors import UserError
from .imaging.gallery import Gallery, Thumbnail
from .imaging.normalisation import denormalise
from .imaging.transfer import Transfer
from .metrics.scoring import Row, Scorer
from .models.base import Batch, Model
from .runtime import distributed
from .runtime.logger import as_json

log = logging.getLogger("relume")

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


class Evaluator:
    """Runs a model over datasets and averages per-image scores exactly, whatever the number of ranks.

    Metrics of whole sets (`SetMetric`) see all outputs of a dataset, and compare them with its attribute ``reference``.

    Args:
        loaders: by dataset name; each gives this rank's share in batches, with the key ``index``: (B,), or a number for one.
            See `LoaderTraits` for what else it may have.
        metrics: blocks of ``val.metrics`` by free name.
        folder: where images and ``<dataset>_scores.jsonl`` go.
        device: of the networks.
        image_name, save_images, save_comparisons, save_grid, linear_format, picture: see `Gallery`.
        best_metric, score_input, eight_bit, rounding: see `Scorer`.
        transfers: of the datasets by name that hold HDR images.
        forgiving: in training, files that cannot be written are reported and evaluation goes on: the scores are what matters.
        progress: called with a dataset's name and its batches; gives them back, showing how far they are.

    Attributes:
        metrics: as given.
        better: by metric, ``higher`` or ``lower``.
        best: the metric that chooses the best weights; None without metrics.
        seconds: by dataset, what an image took the model here in the last run: the mean, without the first batch if there are
            more.
        counts: by dataset, how many images have results, and of how many.
    """

    def __init__(
        self,
        *,
        loaders: Mapping[str, Any],
        metrics: Mapping[str, Mapping[str, Any]],
        folder: Path,
        device: torch.device,
        image_name: Callable[[str, str, int], str],
        save_images: bool = False,
        save_comparisons: bool = False,
        save_grid: int | None = None,
        best_metric: str | None = None,
        score_input: bool = False,
        eight_bit: bool = True,
        rounding: Mapping[str, Rounding] | None = None,
        transfers: Mapping[str, Transfer] | None = None,
        linear_format: str = "hdr",
        forgiving: bool = False,
        picture: Callable[[str, str, Any, int], None] | None = None,
        progress: Callable[[str, Any], Any] | None = None,
    ) -> None:
        transfers = transfers or {}
        self.loaders, self.folder, self.device = loaders, folder, device
        self.forgiving, self.progress = forgiving, progress
        self.seconds: dict[str, float] = {}
        self.counts: dict[str, tuple[int, int]] = {}
        self.scorer = Scorer(metrics, loaders, best_metric, score_input, eight_bit, rounding or {}, transfers)
        self.gallery = Gallery(
            folder=folder,
            image_name=image_name,
            save_images=save_images,
            save_comparisons=save_comparisons,
            save_grid=save_grid,
            transfers=transfers,
            linear_format=linear_format,
            picture=picture,
        )
        self.metrics, self.better, self.best = metrics, self.scorer.better, self.scorer.best

    def counted(self, dataset: str) -> str | None:
        """``"19 of 20 images"`` where some were left out of the last run, else None."""
        done, total = self.counts.get(dataset, (0, 0))
        return f"{done} of {total} images" if done < total else None

    @property
    def picture(self) -> Callable[[str, str, Any, int], None] | None:
        """Where the gallery shows its pictures besides files."""
        return self.gallery.picture

    @picture.setter
    def picture(self, show: Callable[[str, str, Any, int], None] | None) -> None:
        self.gallery.picture = show

    def run(
        self, model: Model, iteration: int, interrupted: Callable[[], int] = lambda: 0
    ) -> dict[str, dict[str, float]]:
        """Mean scores, ``results[dataset][metric]``, the same on every rank. A metric that no image could have is absent.

        Raises:
            Interrupted: ``interrupted()`` gave an exit code on some rank; nothing was averaged.
        """
        results = {}
        for dataset, loader in self.loaders.items():
            self.scorer.start(declared(loader, "reference", LoaderTraits), self.device)
            rows, thumbnails = self._share(model, dataset, loader, iteration, interrupted)
            gathered = distributed.gather((rows, thumbnails, interrupted()))
            code = max(code for _, _, code in gathered)
            if code:
                raise Interrupted(code)
            every = sorted((row for share, _, _ in gathered for row in share), key=lambda r: r["index"])
            means, notes = self.scorer.means(every)
            results[dataset] = {**means, **self.scorer.of_set()}
            for note in notes if distributed.is_main() else ():
                log.info("%s: %s", dataset, note)
            if distributed.is_main():
                with self._writing(dataset):
                    self._write(dataset, iteration, every)
                    self.gallery.write_grid(dataset, iteration, [t for _, share, _ in gathered for t in share])
        return results

    def _share(
        self, model: Model, dataset: str, loader: Any, iteration: int, interrupted: Callable[[], int]
    ) -> tuple[list[Row], list[Thumbnail]]:
        """The scores of this rank's images, and what the grid shows of them."""
        names: Mapping[int, str] = declared(loader, "names", LoaderTraits)
        dataset_itself = declared(loader, "dataset", LoaderTraits)
        mean, std = (declared(dataset_itself, name, DatasetTraits) for name in ("mean", "std"))
        rows: list[Row] = []
        thumbnails: list[Thumbnail] = []
        times: list[float] = []
        for batch in self.progress(dataset, loader) if self.progress else loader:
            if interrupted():
                break
            indices = torch.as_tensor(batch["index"]).reshape(-1).tolist()
            data = {k: v for k, v in batch.items() if k != "index"}
            placed = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in data.items()}
            begin = self._now()
            outputs = model.predict(placed)["output"]
            times.append((self._now() - begin) / len(indices))
            outputs = denormalise(outputs, mean, std)
            counted = [i for i, index in enumerate(indices) if index >= 0]  # the others only keep ranks in step
            if counted:
                made = outputs if len(counted) == len(indices) else outputs[counted]
                self.scorer.update(made, [indices[i] for i in counted])
            targets = denormalise(placed["gt"], mean, std) if placed.get("gt") is not None else None
            baselines = {label: denormalise(image, mean, std) for label, image in model.baselines(placed).items()}
            for i in counted:
                output, target = outputs[i : i + 1], one(targets, i)
                name = names.get(indices[i]) or image_stem(placed, indices[i], i)
                own = {label: given[i : i + 1] for label, given in baselines.items()}
                scores = self.scorer.of_image(dataset, output, target, own)
                rows.append({"index": indices[i], "image": name, **scores})
                shown = {"input": own.get("input"), "output": output, "target": target}
                with self._writing(dataset):
                    thumbnails += self.gallery.save(dataset, name, iteration, indices[i], shown)
        if times:
            self.seconds[dataset] = float(np.mean(times[1:] or times))
        return rows, thumbnails

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

    def _write(self, dataset: str, iteration: int, rows: list[Row]) -> None:
        """Per-image scores, one JSON line each, of this evaluation only."""
        if not self.scorer.scores_images:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [as_json({"iter": iteration, **{k: v for k, v in row.items() if k != "index"}}) for row in rows]
        path = self.folder / f"{dataset}_scores.jsonl"
        temporary = path.with_suffix(".tmp")
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        temporary.replace(path)


def one(images: Tensor | None, i: int) -> Tensor | None:
    """Image i of a batch as a batch of one."""
    return None if images is None else images[i : i + 1]


def image_stem(batch: Batch, index: int, place: int = 0) -> str:
    """What results of the image at `place` of a batch are filed under: its ``name``, else its file's stem, else its index."""
    if batch.get("name"):
        return str(batch["name"][place] if isinstance(batch["name"], (list, tuple)) else batch["name"])
    for key in ("lq_path", "gt_path"):
        if batch.get(key):
            path = batch[key][place] if isinstance(batch[key], (list, tuple)) else batch[key]
            return Path(str(path)).stem
    return f"{index:05d}"
