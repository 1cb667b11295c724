"""Scoring a model on datasets, over all ranks: validation during training, and all that test.py does."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datasets.base import DatasetTraits, LoaderTraits, Rounding
from .annotations import declared
from .errors import UserError, in_one_line
from .files import replacing
from .imaging.gallery import Gallery
from .imaging.normalisation import denormalise
from .imaging.transfer import Transfer
from .inference.network import explaining_channels
from .inference.tiling import size_multiple
from .metrics.scoring import Scorer, ScoreRow
from .metrics.shares import MOST_WARNINGS, RankShare, raise_if_nothing_worked
from .models.base import Model
from .runtime import devices, distributed, parallel
from .runtime.logger import as_json

log = logging.getLogger("relume")

SIZES = re.compile(r"size|shape|divisible|multiple|dimension|must match|split|view|einops|reshape", re.IGNORECASE)
"""What errors of networks say that do not take an input's height or width."""
INPUT = "_input"
"""Ending of the name under which the score of the input itself is filed."""


class NotWritten(UserError):
    """Results cannot be written, which ends an evaluation: unlike an image that has none, it is not left out."""


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
        loaders: loaders by dataset name; each gives this rank's share in batches, with the key ``index``: (B,), or a number
            for one. See `LoaderTraits` for what else it may have.
        metrics: blocks of ``val.metrics`` by free name.
        folder: folder in which images and ``<dataset>_scores.jsonl`` go.
        device: device of the networks.
        image_name, save_images, save_comparisons, save_grid, linear_format, picture, pictures: see `Gallery`.
        best_metric, score_input, eight_bit, rounding: see `Scorer`.
        transfers: transfer functions by name of the datasets that hold HDR images.
        forgiving: whether files that cannot be written are only reported, as in training, and evaluation goes on: the
            scores are what matters.
        progress: function called with a dataset's name and its batches; gives them back, showing how far they are.

    Attributes:
        metrics: the metrics that were given.
        better: which scores are better, ``higher`` or ``lower``, by metric.
        best: the metric that chooses the best weights; None without metrics.
        seconds: seconds that an image took the model here in the last run, by dataset: the mean, without the first batch if
            there are more.
        took: seconds that each image took the model in the last run, on whatever rank, by dataset and image.
        counts: how many images have results, and of how many, by dataset.
        unscored: reason why the last run found no score of a dataset, though there are metrics, by dataset.
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
        pictures: int = 1,
        progress: Callable[[str, Any], Any] | None = None,
    ) -> None:
        transfers = transfers or {}
        self.loaders, self.folder, self.device = loaders, folder, device
        self.forgiving, self.progress = forgiving, progress
        self.seconds: dict[str, float] = {}
        self.took: dict[str, dict[str, float]] = {}
        self.counts: dict[str, tuple[int, int]] = {}
        self.unscored: dict[str, str] = {}
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
            pictures=pictures,
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
            # Each rank predicts and scores its share; the rows of all are gathered.
            self.scorer.start(declared(loader, "reference", LoaderTraits), self.device)
            share = self._share(model, dataset, loader, iteration, interrupted)
            gathered = distributed.gather((share, interrupted()))
            code = max(code for _, code in gathered)
            if code:
                raise Interrupted(code)
            shares = [share for share, _ in gathered]
            every = sorted((row for s in shares for row in s.rows), key=lambda r: r["index"])
            self.counts[dataset] = (sum(s.scored for s in shares), len(every) + sum(s.failed for s in shares))
            self.took[dataset] = {row["image"]: s.took[row["image"]] for s in shares for row in s.rows}
            # What could not be scored, and the means of what could.
            if not self.forgiving:
                raise_if_nothing_worked(every, shares)
            if share.unsaid > 0:
                log.warning("%s: %d more were left out", dataset, share.unsaid)
            means, notes = self.scorer.means(every)
            results[dataset] = {**means, **self._of_set(dataset)}
            self.unscored.pop(dataset, None)
            if self.metrics and not results[dataset]:
                errors = [in_one_line(error) for s in shares for error in s.errors.values()]
                self.unscored[dataset] = ": ".join(["nothing could be scored", *errors[:1]])
            for note in notes if distributed.is_main() else ():
                log.info("%s: %s", dataset, note)
            # The first rank writes files and pictures.
            if distributed.is_main():
                with self._writing(dataset):
                    self._write(dataset, iteration, every)
                    self.gallery.write_grid(dataset, iteration, [t for s in shares for t in s.thumbnails])
        return results

    def _share(
        self, model: Model, dataset: str, loader: Any, iteration: int, interrupted: Callable[[], int]
    ) -> RankShare:
        """The scores of this rank's images, and what the grid shows of them. What fails is named and left out."""
        share = RankShare()
        in_step = any(map(parallel.is_sharded, model.networks.values()))  # so that no rank may go on alone
        # Samples that cannot be read are left out, and the others stay in their batch.
        for batch in self.progress(dataset, loader) if self.progress else loader:
            if interrupted():
                break
            for index, why in batch.get("failed", ()):
                self._leave_out(share, loader, dataset, {}, index, UserError(why))
            if "index" not in batch:
                continue
            data = {k: v for k, v in batch.items() if k not in ("index", "failed")}
            placed = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in data.items()}
            indices = torch.as_tensor(batch["index"]).reshape(-1).tolist()
            before = len(share.rows), share.failed
            # An error in the network or a metric concerns the images after those that were counted.
            try:
                self._batch(model, dataset, loader, iteration, placed, indices, share)
            except Exception as e:
                if in_step or isinstance(e, NotWritten):
                    raise
                done = len(share.rows) - before[0] + share.failed - before[1]
                counted = [(i, index) for i, index in enumerate(indices) if index >= 0]
                explained = not_taken(e, model, placed)
                for place, index in counted[done:]:
                    self._leave_out(share, loader, dataset, placed, index, explained, place)
        self._wait_for_files(dataset, all_of_them=True)
        if share.times:
            self.seconds[dataset] = float(np.mean(share.times[1:] or share.times))
        return share

    def _batch(
        self,
        model: Model,
        dataset: str,
        loader: Any,
        iteration: int,
        placed: Mapping[str, Any],
        indices: list[int],
        share: RankShare,
    ) -> None:
        # The model's answers, in the units of the ground truth.
        itself = declared(loader, "dataset", LoaderTraits)
        mean, std = (declared(itself, name, DatasetTraits) for name in ("mean", "std"))
        begin = self._now()
        with explaining_channels():
            outputs = model.predict(dict(placed))["output"]
        share.times.append((self._now() - begin) / len(indices))
        flow = model.flow(dict(placed)) if self.scorer.scores_flow else None
        outputs = denormalise(outputs, mean, std)
        # What scores sets of images sees all of the batch at once.
        counted = [i for i, index in enumerate(indices) if index >= 0]  # the others only keep ranks in step
        if counted:
            made = outputs if len(counted) == len(indices) else outputs[counted]
            self.scorer.update(made, [indices[i] for i in counted])
        targets = denormalise(placed["gt"], mean, std) if placed.get("gt") is not None else None
        self.gallery.note_depth(dataset, placed.get("lq"), mean, std)
        baselines = {k: denormalise(image, mean, std) for k, image in model.baselines(dict(placed)).items()}
        # Scores and pictures of every image, or of every frame of a clip.
        for i, frame in [(i, t) for i in counted for t in range(outputs.shape[1] if outputs.dim() == 5 else 1)]:
            output, target = of_frame(outputs, i, frame), of_frame(targets, i, frame, outputs.dim())
            name = self._name(loader, placed, indices[i], i)
            if outputs.dim() == 5:
                name = f"{name}_{frame + first_frame(placed, i):08d}"
            own = {label: of_frame(given, i, frame, outputs.dim()) for label, given in baselines.items()}
            scores, failures = self.scorer.of_image(dataset, output, target, own)
            of_motion = self.scorer.of_motion(dataset, outputs, targets, baselines, i, frame)
            scores, failures = {**scores, **of_motion[0]}, {**failures, **of_motion[1]}
            if self.scorer.scores_flow:
                of_flow = self.scorer.of_flow(one(flow, i), one(placed.get("flow"), i))
                scores, failures = {**scores, **of_flow[0]}, {**failures, **of_flow[1]}
            clip = {"folder": placed["folder"][i]} if "folder" in placed else {}
            files = files_of(placed, i) if outputs.dim() == 4 else {}  # of a clip, only the first frame's are known
            share.rows.append({"index": indices[i], "image": name, **clip, **files, **scores})
            share.took[name] = round(share.times[-1], 6)
            share.scored += not failures
            for metric, error in failures.items():
                share.errors.setdefault(metric, error)
                self._warn(share, "%s: %s of %s is left out: %s", dataset, metric, name, in_one_line(error))
            shown = {"input": own.get("input"), "output": output, "target": target}
            with self._writing(dataset, name):
                share.thumbnails += self.gallery.save(dataset, name, iteration, indices[i], shown)
            self._wait_for_files(dataset)

    def _wait_for_files(self, dataset: str, all_of_them: bool = False) -> None:
        """See `Gallery.written`; errors as of `_writing`."""
        for name, wait in self.gallery.written(all_of_them):
            with self._writing(dataset, name):
                wait()

    def _name(self, loader: Any, batch: Mapping[str, Any], index: int, place: int) -> str:
        names: Mapping[int, str] = declared(loader, "names", LoaderTraits)
        return names.get(index) or image_stem(batch, index, place)

    def _leave_out(
        self,
        share: RankShare,
        loader: Any,
        dataset: str,
        batch: Mapping[str, Any],
        index: int,
        error: Exception,
        place: int = 0,
    ) -> None:
        """Name an image that has no result, and why."""
        share.failed += 1
        share.errors.setdefault("", error)
        self._warn(
            share, "%s: %s is left out: %s", dataset, self._name(loader, batch, index, place), in_one_line(error)
        )

    @staticmethod
    def _warn(share: RankShare, *message: str) -> None:
        """Log a warning, of which there may be as many as images."""
        share.said += 1
        if share.said <= MOST_WARNINGS:
            log.warning(*message)

    def _of_set(self, dataset: str) -> dict[str, float]:
        """The scores of the whole set; in training, none where they fail."""
        try:
            return self.scorer.of_set()
        except Exception as e:
            if not self.forgiving or distributed.active():  # where ranks would wait for each other
                raise
            log.warning("%s: metrics of the whole set are left out: %s", dataset, in_one_line(e))
            return {}

    def _now(self) -> float:
        """The time when the device has done all it was asked to."""
        devices.synchronize(self.device)
        return time.perf_counter()

    @contextlib.contextmanager
    def _writing(self, dataset: str, image: str | None = None) -> Iterator[None]:
        """What follows makes pictures and writes files of a dataset's results, or of one image's.

        Raises:
            NotWritten: they cannot be written (a full disk, a folder without permission), and that matters.
        """
        try:
            yield
        except OSError as e:
            if not self.forgiving:
                raise NotWritten(f"results of {dataset} cannot be written to {self.folder}: {e}") from e
            log.warning("results of %s cannot be written to %s, which loses nothing else: %s", dataset, self.folder, e)
        except Exception as e:  # what a picture can show is no reason to lose a score
            what = f"the pictures of {image}" if image else "the grid"
            log.warning("%s: %s cannot be made, which loses nothing else: %s", dataset, what, in_one_line(e))

    def _write(self, dataset: str, iteration: int, rows: list[ScoreRow]) -> None:
        """Per-image scores, one JSON line each, of this evaluation only."""
        if not self.scorer.scores_images:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [as_json({"iter": iteration, **{k: v for k, v in row.items() if k != "index"}}) for row in rows]
        path = self.folder / f"{dataset}_scores.jsonl"
        with replacing(path) as file:
            file.write(("\n".join(lines) + "\n").encode())


def not_taken(error: Exception, model: Model, batch: Mapping[str, Any]) -> Exception:
    """The error of a prediction, explained where the size of the input is a likely reason."""
    lq = batch.get("lq")
    text = str(error)
    if not (isinstance(error, (RuntimeError, ValueError, AssertionError)) and isinstance(lq, Tensor) and lq.dim() == 4):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        return UserError(f"{in_one_line(error)} (val.tile: 512 needs less memory)")
    height, width = lq.shape[-2:]
    multiple = math.lcm(*map(size_multiple, model.networks.values())) if model.networks else 1
    if not SIZES.search(text) or all(side % 64 == 0 for side in (height, width)):
        return error
    return UserError(
        f"the network does not take an input of {height} x {width}: {in_one_line(error)}. If its sides must be multiples of a "
        f"number, declare that: size_multiple = 8 in the network's class (it is {multiple}), or val.window_size: 8"
    )


def one(images: Tensor | None, i: int) -> Tensor | None:
    """Image i of a batch (B, C, H, W) as a batch of one, (1, C, H, W)."""
    return None if images is None else images[i : i + 1]


def files_of(batch: Mapping[str, Any], place: int) -> dict[str, str]:
    """The files that the image at `place` of a batch was read from, ``lq_path`` and ``gt_path``, as far as there are any."""
    found = {}
    for key in ("lq_path", "gt_path"):
        given = batch.get(key)
        path = given[place] if isinstance(given, (list, tuple)) and place < len(given) else given
        if isinstance(path, str) and os.path.isfile(path):
            found[key] = os.path.abspath(path)
    return found


def of_frame(clips: Tensor | None, i: int, frame: int, dims: int = 5) -> Any:
    """Image i of a batch as a batch of one; of clips (B, T, C, H, W) its frame, or the middle one where results are images."""
    if clips is None or clips.dim() != 5:
        return one(clips, i)
    return clips[i : i + 1, frame if dims == 5 else clips.shape[1] // 2]


def first_frame(batch: Mapping[str, Any], place: int) -> int:
    """The number in its clip of the first frame at `place` of a batch: its ``first``, where it is a part of a clip."""
    return int(torch.as_tensor(batch["first"]).reshape(-1)[place]) if "first" in batch else 0


def image_stem(batch: Mapping[str, Any], index: int, place: int = 0) -> str:
    """What results of the image at `place` of a batch are filed under: its ``name``, else its file's stem, else its index."""
    if batch.get("name"):
        return str(batch["name"][place] if isinstance(batch["name"], (list, tuple)) else batch["name"])
    for key in ("lq_path", "gt_path"):
        if batch.get(key):
            path = batch[key][place] if isinstance(batch[key], (list, tuple)) else batch[key]
            return Path(str(path)).stem
    return f"{index:05d}"
