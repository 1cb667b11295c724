"""Write what training would see of photographs: degraded inputs, ground truths, a contact sheet.

``relume degrade -opt FILE.yml -i DIR -o DIR [--count 4] [--seed 0] [--force_yml a:b=v ...]``

The recipe is that of ``datasets.train`` (or of the first ``datasets.train_*``), a `RealESRGANDataset`, with the model's options
where the model degrades. Input i is a function of the seed and of i alone. Files are ``lq/<name>_<i>.png``, ``gt/...`` alike.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from rich.progress import track
from torch import Tensor

from ...datasets import build_dataset
from ...datasets.loading.sampler import SampleKey
from ...datasets.loading.worker import Failed, SeededDataset
from ...datasets.real_esrgan import RealESRGANDataset
from ..degradations.second_order import SecondOrder
from ..errors import UserError
from ..imaging import visual
from ..imaging.image_io import imwrite
from ..options import Options
from . import _arguments

SHEET = 12
"""Pairs in the contact sheet at most."""


RUNS = True


def training_set(opt: Options, folder: str) -> RealESRGANDataset:
    """The training set of an option file, on the photographs of another folder, degrading by itself.

    Raises:
        UserError: the file has no such training set, or the folder no photographs.
    """
    block = next((b for k, b in opt.datasets.items() if k.split("_")[0] == "train"), None)
    if block is None:
        raise UserError("the option file has no datasets.train, whose recipe could be shown")
    if block["type"] != "RealESRGANDataset":
        raise UserError(f"datasets.train is a {block['type']}; only RealESRGANDataset degrades photographs")
    values = {**block, "dataroot_gt": folder, "source": None, "meta_info": None, "io_backend": None, "weights": None}
    if values.get("degradation") is None and values.get("degradations") is None:
        # The model degrades, by options at the top level, and Real-ESRGAN's always what is sharpened.
        values["degradation"] = {f.name: opt[f.name] for f in dataclasses.fields(SecondOrder) if f.name in opt}
        values["engine"] = "tensor"
        values["usm"] = ("both" if opt["gt_usm"] else "none") if "gt_usm" in opt else "degraded"
        values["gt_size"] = opt["gt_size"] if "gt_size" in opt else values.get("gt_size")
    dataset = build_dataset(values, phase="train", scale=opt.scale)
    assert isinstance(dataset, RealESRGANDataset)
    return dataset


def pairs(dataset: RealESRGANDataset, count: int, seed: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, input (3, h, w) and ground truth (3, H, W) of `count` samples of every photograph.

    Raises:
        UserError: a photograph cannot be read.
    """
    seeded = SeededDataset(dataset, seed)
    for place in range(len(dataset) * count):
        index = place // count
        item = seeded[SampleKey(0, place, index, None)]
        if isinstance(item, Failed):
            raise UserError(item.message)
        name = dataset.photographs[index][1]
        yield f"{Path(name).with_suffix('')}_{place % count}", item["lq"], item["gt"]


def degrade(dataset: RealESRGANDataset, out: Path, count: int, seed: int) -> int:
    """Write inputs, ground truths and ``sheet.png``; how many pairs.

    Raises:
        UserError: a photograph cannot be read.
    """
    total = len(dataset) * count
    shown: list[Tensor] = []
    stride = -(-total // SHEET)
    for i, (name, lq, gt) in enumerate(track(pairs(dataset, count, seed), "Degrading", total)):
        imwrite(out / "lq" / f"{name}.png", lq)
        imwrite(out / "gt" / f"{name}.png", gt)
        if i % stride == 0:
            shown += [lq, gt]
    labels = ["input", "ground truth"] * (len(shown) // 2)
    height = max(image.shape[-2] for image in shown)
    imwrite(out / "sheet.png", visual.grid(shown, 4, labels, height))
    return total


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    _arguments.add_option_file(parser)
    _arguments.add_overrides(parser)
    parser.add_argument("-i", "--input", required=True, metavar="DIR", help="photographs, sub-folders included")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="folder for lq, gt and sheet.png"
    )
    parser.add_argument("--count", type=int, default=1, help="samples of every photograph (1)")
    parser.add_argument("--seed", type=int, help="seed of all draws; manual_seed of the file when omitted, else 0")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: ``--count`` is below 1.
    """
    if arguments.count < 1:
        raise UserError("--count must be at least 1")
    arguments.debug = False
    opt = _arguments.load(arguments)
    seed = arguments.seed if arguments.seed is not None else opt.manual_seed or 0
    dataset = training_set(opt, arguments.input)
    count = degrade(dataset, arguments.output, arguments.count, seed)
    print(f"{arguments.output}: {count} pairs in lq and gt, and sheet.png")
