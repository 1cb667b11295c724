"""What a training run says of its data and its kernels as it begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...datasets.base import DatasetTraits, LoaderTraits
from ...datasets.loading.loader import TrainLoader
from ...datasets.loading.options import Loader
from ..annotations import declared
from ..evaluation import Evaluator
from ..options.counts import Epoch
from ..options.schema import Best, Val
from ..runtime.precision import in_words


def data_summary(
    block: Loader, dataset: Any, epoch: Epoch, loader: TrainLoader, evaluator: Evaluator, total_iter: int, val: Val
) -> str:
    """The training set and the validation sets in some lines: how many images, how they are batched, how many epochs that is.

    Args:
        block: block of the training set.
        epoch: how long one is.
        total_iter: iterations of the whole run.
        val: the section of that name.
    """
    patch = declared(dataset, "gt_size", DatasetTraits)
    sizes = block.gt_sizes or ([patch] if patch else [])
    patches = f"patches of {', '.join(map(str, sizes))} pixels" if sizes else "whole images"
    batch = f"{epoch.plan.at(1).batch} per GPU x {epoch.ranks} rank(s) x {epoch.plan.micro_batches(1)} micro-batch(es)"
    lines = [
        f"{loader.describe(total_iter)}",
        f"{len(dataset)} images x {block.dataset_enlarge_ratio} (dataset_enlarge_ratio), {patches}; {batch}",
        f"{epoch.sentence}; {epoch.said_of(total_iter)}",
    ]
    for name, of_set in evaluator.loaders.items():
        count = declared(of_set, "images", LoaderTraits)
        lines.append(
            f"Validation set {name}: {'an unknown number of' if count is None else count} images, in {in_words(val.amp)}"
        )
    if evaluator.best is not None and evaluator.loaders:
        lines.append(deciding(evaluator.best, list(evaluator.loaders), val.chosen))
    return "\n\t".join(lines)


def deciding(metric: str, sets: Sequence[str], best: Best) -> str:
    """The metric, and the validation set, by which weights become ``net_<key>_best.pth``.

    >>> deciding("psnr", ["small", "large"], Best())
    'net_*_best.pth: by psnr of small, the first of 2 sets that has it (val.best: {dataset: mean} takes the mean of all)'
    """
    if best.dataset is not None:
        return f"net_*_best.pth: by {metric} of {'all sets, their mean' if best.dataset == 'mean' else best.dataset}"
    if len(sets) == 1:
        return f"net_*_best.pth: by {metric} of {sets[0]}"
    more = "(val.best: {dataset: mean} takes the mean of all)"
    return f"net_*_best.pth: by {metric} of {sets[0]}, the first of {len(sets)} sets that has it {more}"
