"""Show what training sees: samples after every augmentation, input above target, with file names.

``relume look -opt x.yml [-o look.png] [--count 12] [--from 0] [--force_yml a:b=v ...]``

Samples come in the order in which the training of the file's ``manual_seed`` takes them, with the same crops, flips and
degradations. What a model does to whole batches on top (mixing, degradations of its own) is named, not shown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...datasets import build_dataset
from ...datasets.base import DatasetTraits
from ...datasets.loading.loader import order_of
from ...datasets.loading.options import Loader
from ...datasets.loading.worker import Failed, SeededDataset, collate
from .. import options
from ..annotations import declared
from ..building.machine import seed_of, with_seed
from ..errors import UserError, printable
from ..imaging import visual
from ..imaging.image_io import imwrite
from ..imaging.normalisation import denormalise
from . import _arguments

COLUMNS = 6
"""Samples beside each other."""
HEIGHT = 192
"""Height of a picture in the sheet, in pixels."""


RUNS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    _arguments.add_option_file(parser)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("look.png"), metavar="FILE", help="the sheet (look.png)"
    )
    parser.add_argument("--count", type=int, default=12, help="samples (12)")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="N", help="the first sample's number (0)")
    _arguments.add_overrides(parser)


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: a number is out of range, there are no pictures to show, or the file cannot be written.
    """
    if not 1 <= arguments.count <= 600 or arguments.first < 0:
        raise UserError("--count: 1 to 600 samples; --from: at least 0")
    opt = options.load(arguments.opt, arguments.force_yml, allow_duplicate_keys=arguments.allow_duplicate_keys)
    if "train" not in opt.datasets:
        raise UserError(f"{arguments.opt}: there is no datasets.train to look at")
    opt = with_seed(opt, None)
    dataset = build_dataset(opt.datasets["train"], phase="train", scale=opt.scale)
    shown = list(samples(dataset, opt.datasets["train"], seed_of(opt), arguments.first, arguments.count))
    pictures = [sample for sample in shown if sample]
    if not pictures:
        raise UserError(
            f"{arguments.opt}: samples of datasets.train have neither lq nor gt, nor another picture to show"
        )
    try:
        imwrite(arguments.output, sheet(pictures))
    except OSError as e:
        raise UserError(f"{arguments.output}: cannot be written ({e.strerror or e})") from e
    sizes = {label: " x ".join(map(str, image.shape[-2:])) for label, image in pictures[0].items()}
    print(f"{arguments.output}: {len(pictures)} samples; the first: {', '.join(f'{k} {v}' for k, v in sizes.items())}")
    for key in ("augment", "mixing_augs", "batch_mixing"):
        if opt.train is not None and opt.train.get(key):
            print(f"note: train.{key} changes whole batches on top, which is not shown")


def samples(dataset: Any, block: Loader, seed: int, first: int, count: int) -> Iterator[dict[str, Tensor]]:
    """Pictures (C, H, W) by label of the first epoch's samples, input first and target last.

    Raises:
        UserError: a sample cannot be read.
    """
    order = order_of(dataset, block, seed)
    seeded = SeededDataset(dataset, seed)
    mean, std = (declared(dataset, name, DatasetTraits) for name in ("mean", "std"))
    size = block.gt_sizes[0] if block.gt_sizes else None
    for place in range(first, first + count):
        key = order.at(place, size)
        item = seeded[key]
        if isinstance(item, Failed):
            raise UserError(item.message)
        if declared(dataset, "on_device", DatasetTraits):
            batch = collate([item]).batch or {}
            item = {k: v[0] for k, v in declared(dataset, "finish", DatasetTraits)(batch).items()}
        yield named(item, key.index, mean, std)


def named(item: Mapping[str, Any], index: int, mean: Any, std: Any) -> dict[str, Tensor]:
    """The pictures (C, H, W) of a sample by label: its name and role."""
    roles = [k for k, v in item.items() if isinstance(v, Tensor) and v.dim() == 3 and v.shape[0] <= 6]
    roles.sort(key=lambda k: (k == "gt", k != "lq"))
    paths = {k: item.get(f"{k}_path") for k in roles}
    known = next((p for p in paths.values() if p), None) or item.get("name")
    found = {}
    for role in roles:
        path = paths[role] or known
        stem = printable(Path(str(path)).name if path else f"sample {index}", 40)
        plain = denormalise(item[role][None], mean, std)[0] if role in ("lq", "gt") else item[role]
        found[f"{stem} ({role})"] = plain
    return found


def sheet(pictures: list[dict[str, Tensor]]) -> np.ndarray:
    """Columns of samples as one picture of shape (H, W, 3), with the pictures (C, h, w) of each sample below each other."""
    deepest = max(map(len, pictures))
    blank = np.full((HEIGHT, HEIGHT, 3), visual.BACKGROUND, np.uint8)
    cells: list[visual.Picture] = []
    labels: list[str] = []
    columns = min(COLUMNS, len(pictures))
    for first in range(0, len(pictures), columns):
        row = [list(sample.items()) for sample in pictures[first : first + columns]]
        for depth in range(deepest):
            for column in range(columns):
                sample = row[column] if column < len(row) else []
                label, image = sample[depth] if depth < len(sample) else ("", blank)
                cells.append(image)
                labels.append(label)
    return visual.grid(cells, columns, labels, HEIGHT)
