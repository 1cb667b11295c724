"""Every shipped option file runs: trainings for two iterations, tests from random weights, on data in their own layout.

With RELUME_SLOW_TESTS=1 all of them run, trainings twice where that is fast, bit for bit (`FILES=part` chooses by name);
else some small ones do. Networks are the files' own; patches and batches are small. The files of ``restoration`` and
``sr`` run in `test_ready_options`.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import layouts
import pytest
import torch

import relume
from relume.core import options
from relume.core.pipeline import test_pipeline as run_test
from relume.core.pipeline import train_pipeline
from relume.datasets import interpolation_sets
from relume.datasets.triplets import shrink_by_area

FOLDER = Path(relume.__file__).resolve().parent / "options"
ELSEWHERE = {"_base_", "restoration", "sr"}
SLOW = bool(os.environ.get("RELUME_SLOW_TESTS"))
QUICK = {"hdr/small/s2.yml", "generation/ablation/gw.yml"}
"""What runs in every run of the tests."""
FAST = 30.0
"""Seconds of a training that is repeated."""
FILES = [
    p
    for p in sorted(FOLDER.rglob("*.yml"))
    if p.relative_to(FOLDER).parts[0] not in ELSEWHERE and os.environ.get("FILES", "") in p.as_posix()
]
SMALLEST = {"underwater": 176, "spectroformer": 176, "vfi": 64, "hdr": 64, "realsr": 128}
"""Sides of patches: MS-SSIM of five scales needs more than 160 pixels, SRGAN's discriminator 128."""
RANDOM = {"type": "random_conv", "width": 8}
"""Features whose weights need not be there."""


def short(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the data of all systems, made when they are first needed."""
    yield tmp_path_factory.mktemp("data")


def system(path: Path) -> str:
    return path.relative_to(FOLDER).parts[0]


def cut(path: Path) -> dict[str, Any]:
    """The options of a file with small patches, batches and few images: everything else is as in the file."""
    values = options.load(path).to_dict()
    values["num_gpu"] = 0
    values["path"] = {}
    side = SMALLEST.get(system(path), 64)
    for name, block in values["datasets"].items():
        if name == "train":
            of_training(block, side)
        else:
            block.update(num_worker_per_gpu=0, batch_size_per_gpu=min(block.get("batch_size_per_gpu", 1), 4))
            if "num_images" in block:
                block["num_images"] = 8
            if block["type"] == "XTestDataset":
                block["multiple"] = 2
            if block["type"] == "XiphDataset":
                block["clips"] = ["Tango"]
            if "shorter_side" in block:
                block.update(shorter_side=64, renditions=1)
        if block.get("resize"):
            block["resize"] = [side, side]
    train = values["train"]
    for key, block in (train or {}).items():
        if key.endswith("_opt") and isinstance(block, dict) and "Perceptual" in block["type"]:
            block["weights"] = "random"
    if train is not None:
        of_phases(train)
    for metric in values["val"]["metrics"].values():
        metric.update({k: dict(RANDOM) for k in ("features",) if k in metric})
        metric.update({k: 2 for k in ("subsets", "subset_size") if k in metric})
        metric.pop("stats", None)
    values["val"].update(pbar=False, save_grid=None, save_img=values["val"]["save_img"], tile_overlap=16)
    values["val"]["val_freq"] = 2
    if values["val"]["tile"]:
        values["val"]["tile"] = 64
    values["logger"].update(print_freq=1, save_checkpoint_freq=2, use_tb_logger=False)
    return values


def of_training(block: dict[str, Any], side: int) -> None:
    """Small patches, and one sample at a time, or two where samples are matched."""
    few = 8 if block["type"] in ("CIFAR10Dataset", "ShippedImagesDataset") else 1
    block.update(num_worker_per_gpu=0, batch_size_per_gpu=few, prefetch_mode=None)
    if block.get("gt_size_h"):
        block.update(gt_size_h=24, gt_size_w=48)
    if block.get("gt_size"):
        block["gt_size"] = side
    if "renditions" in block:
        block["renditions"] = 2
    if block.get("pad_size"):
        block["pad_size"] = side + 32
    if block.get("gt_sizes"):
        stages = len(block["gt_sizes"])
        block.update(
            gt_sizes=[side - side // 4, *[side] * (stages - 1)], iters=[1] * stages, mini_batch_sizes=[1] * stages
        )
        if block.get("accumulates"):
            block["accumulates"] = [1] * stages
    for inner in block.get("datasets") or []:
        inner["gt_size"] = side


def of_phases(train: dict[str, Any]) -> None:
    """Two iterations, in which both phases begin where there are two."""
    train.pop("total_epoch", None)
    train.update(total_iter=2, accumulate=1)
    for key in ("encoder_iter", "flow_first", "freeze_backbone", "net_g_pretrain_iters"):
        if train.get(key):
            train[key] = 2 if key == "encoder_iter" else 1
    scheduler = train.get("scheduler") or {}
    if "warmup_steps" in scheduler:  # the epochs of so few images are shorter
        scheduler["warmup_steps"] = 1
    if train.get("features"):
        train["features"] = dict(RANDOM)
    if train.get("bank"):
        train["bank"].pop("cache", None)
        train["bank"].update({k: 16 for k in ("subset",) if k in train["bank"]})
    train.pop("lpips_opt", None)  # whose weights would have to be downloaded


def trained(values: dict[str, Any], name: str) -> dict[str, torch.Tensor]:
    """The weights after a training."""
    scores = train_pipeline(options.check({**values, "name": name}))
    assert all(math.isfinite(v) for of_set in scores.values() for v in of_set.values())
    content = torch.load(f"experiments/{name}/models/net_g_2.pth", weights_only=True)
    shutil.rmtree(f"experiments/{name}")
    return {f"{entry}.{k}": v for entry in ("params", "params_ema") for k, v in content.get(entry, {}).items()}


@pytest.mark.parametrize("path", FILES, ids=short)
def test_every_file_runs(path: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not SLOW and short(path) not in QUICK:
        pytest.skip("with RELUME_SLOW_TESTS=1")
    kind = "underwater" if system(path) in ("spectroformer", "test") else system(path)
    home = data / kind
    if not home.is_dir():
        home.mkdir()
        monkeypatch.chdir(home)
        layouts.LAYOUTS.get(kind, lambda: None)()
    for place in home.iterdir():
        (tmp_path / place.name).symlink_to(place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(interpolation_sets, "shrink_by_area", lambda image, _, __: shrink_by_area(image, 16, 32))
    monkeypatch.setattr(interpolation_sets.XiphDataset, "BORDER", (4, 8))
    values = cut(path)
    if "test" in path.relative_to(FOLDER).parts[:-1] or path.stem.startswith("test"):
        values["train"] = None
        scores = run_test(options.check(values), random_weights=True)
        assert scores and (all(scores.values()) or not values["val"]["metrics"])
        return
    start = time.monotonic()
    first = trained(values, "first")
    if time.monotonic() - start < FAST:
        again = trained(values, "again")
        assert first.keys() == again.keys() and all(torch.equal(v, again[k]) for k, v in first.items())
