"""What a training run says of its data and its kernels as it begins."""

from __future__ import annotations

from typing import Any

from ...datasets.base import DatasetTraits, LoaderTraits
from ...datasets.loading.loader import TrainLoader
from ...datasets.loading.options import Loader
from ..annotations import declared
from ..evaluation import Evaluator
from ..options.counts import Epoch


def summary(
    block: Loader, dataset: Any, epoch: Epoch, loader: TrainLoader, evaluator: Evaluator, total_iter: int
) -> str:
    """The training set and the validation sets in some lines: how many images, how they are batched, how many epochs that is.

    Args:
        block: of the training set.
        epoch: how long one is.
        total_iter: iterations of the whole run.
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
        lines.append(f"Validation set {name}: {'an unknown number of' if count is None else count} images")
    return "\n\t".join(lines)
