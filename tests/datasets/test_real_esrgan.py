"""Real-ESRGAN's data sets: sources, reproducibility, both places of degrading, pairs, and mistakes found by --check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from relume.core.commands.prepare import pack
from relume.core.degradations.engines import Engine
from relume.core.degradations.second_order import SecondOrder, synthesise
from relume.core.errors import UserError
from relume.core.options import OptionError, check
from relume.datasets import build_dataset
from relume.datasets.loading.loader import build_train_loader
from relume.datasets.loading.sampler import SampleKey
from relume.datasets.loading.worker import SeededDataset

SIZES = {"a": (60, 72), "s/b": (48, 90)}


@pytest.fixture
def block(tmp_path: Path, write_images: Callable[..., None]) -> dict[str, Any]:
    write_images(tmp_path / "gt", SIZES)
    return {
        "type": "RealESRGANDataset",
        "dataroot_gt": str(tmp_path / "gt"),
        "pad_size": 64,
        "gt_size": 32,
        "scale": 2,
        "use_hflip": True,
        "use_rot": True,
    }


def sample(block: dict[str, Any], draw: int = 3, index: int = 1, seed: int = 10) -> dict[str, Any]:
    item = SeededDataset(build_dataset(block, phase="train"), seed)[SampleKey(2, draw, index, None)]
    assert isinstance(item, dict)
    return item


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(torch.equal(v, b[k]) if isinstance(v, torch.Tensor) else v == b[k] for k, v in a.items())


def test_without_a_recipe_there_are_kernels_for_the_model(block: dict[str, Any]) -> None:
    item = sample(block)
    assert item["gt"].shape == (3, 64, 64)
    for name in ("kernel1", "kernel2", "sinc_kernel"):
        assert item[name].shape == (21, 21)
        assert item[name].sum().item() == pytest.approx(1, abs=1e-5)
    assert "lq" not in item


@pytest.mark.parametrize(
    "recipe", [{}, {"degradation": {}}, {"degradations": [{"type": "bsrgan"}], "engine": "tensor"}]
)
def test_a_sample_is_a_function_of_seed_epoch_and_draw(block: dict[str, Any], recipe: dict[str, Any]) -> None:
    block |= recipe
    first = sample(block)
    torch.rand(5)
    np.random.rand(3)
    assert same(first, sample(block))
    assert not same(first, sample(block, draw=4))
    assert not same(first, sample(block, seed=11))


def test_loading_processes_change_nothing(block: dict[str, Any]) -> None:
    block |= {"degradation": {}, "batch_size_per_gpu": 2}
    batches = []
    for workers in (0, 2):
        options = {**block, "num_worker_per_gpu": workers}
        loader = build_train_loader(build_dataset(block, phase="train"), options, seed=3)
        batches.append([next(loader) for _ in range(3)])
        loader.close()
    assert all(same(a, b) for a, b in zip(*batches, strict=True))


def test_the_model_makes_of_a_sample_what_the_loading_process_makes(block: dict[str, Any]) -> None:
    there = sample(block)
    batch = {k: torch.as_tensor(there[k])[None] for k in ("gt", "kernel1", "kernel2", "sinc_kernel", "seed")}
    device = synthesise(batch, SecondOrder(), 2, 32, Engine())
    here = sample(block | {"degradation": {}, "engine": "tensor"})
    assert torch.equal(device["lq"][0], here["lq"])
    assert torch.equal(device["gt"][0], here["gt"])
    assert here["lq"].shape == (3, 16, 16)


def test_sharpening_is_of_the_input_or_of_both(block: dict[str, Any]) -> None:
    block |= {"degradation": {}}
    plain, degraded, both = (sample(block | {"usm": usm}) for usm in ("none", "degraded", "both"))
    assert torch.equal(plain["gt"], degraded["gt"])
    assert not torch.equal(plain["gt"], both["gt"])
    assert torch.equal(degraded["lq"], both["lq"])
    assert not torch.equal(plain["lq"], both["lq"])


def test_validation_is_fixed_and_whole(block: dict[str, Any]) -> None:
    dataset = build_dataset(block | {"degradation": {}, "renditions": 2}, phase="val")
    assert len(dataset) == 4
    first = dataset[0]
    assert first["gt"].shape == (3, 60, 72)
    assert first["lq"].shape == (3, 30, 36)
    assert torch.equal(first["lq"], dataset[0]["lq"])
    assert not torch.equal(first["lq"], dataset[2]["lq"])
    assert dataset.result_path(2).endswith("a_1.png")


def test_small_photographs_are_continued_by_reflection(block: dict[str, Any]) -> None:
    dataset = build_dataset(
        block | {"use_hflip": False, "use_rot": False, "pad_size": 100, "gt_size": None}, phase="train"
    )
    gt = dataset[0]["gt"]
    assert gt.shape == (3, 100, 100)
    assert torch.equal(gt[:, 60], gt[:, 58])  # the last line, 59, is not repeated


def test_sources_are_lists_databases_and_several_folders(block: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "meta.txt").write_text("s/b.png\n")
    assert len(build_dataset(block | {"meta_info": str(tmp_path / "meta.txt")}, phase="train")) == 1
    pack(block["dataroot_gt"], str(tmp_path / "x.lmdb"))
    packed = block | {"dataroot_gt": str(tmp_path / "x.lmdb"), "io_backend": {"type": "lmdb"}}
    assert torch.equal(sample(packed)["gt"], sample(block)["gt"])
    twice = build_dataset(block | {"dataroot_gt": [block["dataroot_gt"]] * 2, "weights": [3, 1]}, phase="train")
    assert twice.sampling_weights.tolist() == [0.375, 0.375, 0.125, 0.125]


def test_a_mixture_of_pairs_and_photographs_can_be_stacked(
    block: dict[str, Any], tmp_path: Path, write_images: Any
) -> None:
    write_images(tmp_path / "small", {n: (h // 2, w // 2) for n, (h, w) in SIZES.items()})
    pairs = {
        "type": "RealESRGANPairedDataset",
        "dataroot_gt": block["dataroot_gt"],
        "dataroot_lq": str(tmp_path / "small"),
        "gt_size": 32,
        "scale": 2,
    }
    mixture = build_dataset(
        {"type": "MixedDataset", "datasets": [block | {"degradation": {}}, pairs], "mixed_ratio": "3:1"}, phase="train"
    )
    assert mixture.sampling_weights.tolist() == [0.375, 0.375, 0.125, 0.125]
    assert {tuple(mixture[i]["lq"].shape) for i in range(4)} == {(3, 16, 16)}


def test_pairs_come_from_a_list_of_two_names(tmp_path: Path, write_images: Callable[..., None]) -> None:
    write_images(tmp_path / "hr", {"x": (40, 40), "y": (48, 40)})
    write_images(tmp_path / "lr", {"1": (20, 20), "2": (24, 20)})
    meta = tmp_path / "meta.txt"
    meta.write_text("y.png, 2.png\nx.png,1.png\n")
    block = {
        "type": "RealESRGANPairedDataset",
        "dataroot_gt": str(tmp_path / "hr"),
        "dataroot_lq": str(tmp_path / "lr"),
        "meta_info": str(meta),
        "scale": 2,
    }
    dataset = build_dataset(block, phase="val")
    assert [Path(dataset[i]["lq_path"]).name for i in range(2)] == ["2.png", "1.png"]
    assert dataset[0]["gt"].shape == (3, 48, 40)
    for text, message in (("x.png\n", r"meta.txt:1: a line is"), ("x.png, 7.png\n", r"lr: lacks 1 files .* 7\.png")):
        meta.write_text(text)
        with pytest.raises(UserError, match=message):
            build_dataset(block, phase="val")


# ------------------------------------------------------------------ --check
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kernel_prob": [0.5, 0.25, 0.12, 0.03, 0.12, 0.03]}, "datasets.train.kernel_prob: must be probabilities"),
        ({"kernel_prob2": [0.5, 0.5]}, r"datasets.train.kernel_prob2: has 2 probabilities for the 6 entries"),
        ({"blur_kernel_size": 20}, "datasets.train.blur_kernel_size: must be an odd number"),
        ({"kernel_range": [6, 21]}, "datasets.train.kernel_range: must be a range .* of odd sizes"),
        ({"degradation": {"jpeg_range": [0, 95]}}, "datasets.train.degradation.jpeg_range: must be .* from 1 to 100"),
        ({"degradation": {"jpeg_range2": [30, 101]}}, "degradation.jpeg_range2: must be"),
        ({"degradation": {"resize_prob": [0.5, 0.5, 0.5]}}, "degradation.resize_prob: must be three probabilities"),
        ({"degradations": [{"type": "compress", "quality": [0, 9]}]}, r"degradations\[0\].quality: must be"),
        ({"degradations": [{"type": "blur", "sigm": [1, 2]}]}, "unknown key 'sigm'"),
        ({"degradations": [{"type": "blurr"}]}, "no degradation is called 'blurr'"),
        ({"gt_size": 33}, "datasets.train.gt_size: must be a multiple of scale 2"),
        ({"gt_size": 128}, "gt_size: must be at most pad_size 64"),
        ({"usm": "both"}, "usm: the model degrades here"),
        ({"degradation": {}, "degradations": [{"type": "blur"}]}, "leave one of them out"),
        ({"degradations": [{"type": "blur"}], "sinc_prob2": 0.5}, "train.sinc_prob2: has no effect with degradations"),
        ({"sinc_prob": 1.2}, "sinc_prob: must be at least 0 and at most 1"),
    ],
)
def test_mistakes_are_found_by_check(block: dict[str, Any], wrong: dict[str, Any], message: str) -> None:
    def options(train: dict[str, Any]) -> dict[str, Any]:
        return {
            "name": "x",
            "model_type": "RestorationModel",
            "scale": 2,
            "datasets": {"train": train},
            "network_g": {"type": "Spectroformer"},
            "train": {"total_iter": 1, "optim_g": {"type": "Adam"}, "pixel_opt": {"type": "L1Loss"}},
        }

    check(options(block))
    with pytest.raises(OptionError, match=message):
        check(options(block | wrong))
