"""Triplets made from photographs."""

from __future__ import annotations

import pytest
import torch

from relume.archs.vfi.flow import backwarp
from relume.core.errors import UserError
from relume.datasets import build_dataset
from relume.datasets.loading.loader import build_train_loader
from relume.datasets.loading.worker import seeded
from relume.datasets.synthetic_motion import BUCKETS

SHIPPED = {"type": "SyntheticMotionDataset", "source": "skimage", "gt_size": 48}


@pytest.fixture
def folder(tmp_path, write_images):
    write_images(tmp_path / "photographs", {"a": (80, 96), "b": (64, 72), "c": (96, 80)})
    return {"type": "SyntheticMotionDataset", "dataroot_gt": str(tmp_path / "photographs"), "gt_size": 32}


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b) ** 2).mean())


def test_neither_photographs_nor_motions_of_validation_are_trained_on():
    train, val = (build_dataset(SHIPPED, phase=phase) for phase in ("train", "val"))
    names = [{name for _, name in d.photographs} for d in (train, val)]
    assert names[0] and names[1] and not names[0] & names[1]
    assert {name for _, name in build_dataset({**SHIPPED, "split": "val"}, phase="train").photographs} == names[1]


def test_items_are_what_interpolators_take(folder):
    item = build_dataset({**folder, "timesteps": [0.25]}, phase="val")[4]
    for key in ("img0", "img1", "gt"):
        assert item[key].shape == (3, 32, 32) and item[key].dtype == torch.float32
        assert item[key].min() >= 0 and item[key].max() <= 1
    assert item["timestep"].shape == () and item["timestep"].dtype == torch.float32 and item["timestep"] == 0.25
    assert item["gt_path"].endswith("b_1.png") and item["img0_path"] != item["gt_path"]


def test_larger_buckets_are_harder_for_averages_and_copies():
    averages, copies = [], []
    for bucket in BUCKETS:
        item = build_dataset({**SHIPPED, "bucket": bucket}, phase="val")[1]
        averages.append(error((item["img0"] + item["img1"]) / 2, item["gt"]))
        copies.append(error(item["img0"], item["gt"]))
    assert averages == sorted(averages) and copies == sorted(copies)
    assert averages[0] > 1e-5 and averages[-1] > 4 * averages[0]


def test_the_frame_is_the_one_at_its_time(folder):
    """Frames at 0.1 and 0.9 look like the outer ones, and the times of a list are taken in turn."""
    dataset = build_dataset({**folder, "timesteps": [0.02, 0.98], "motion": [6, 8]}, phase="val")
    early, late = dataset[0], dataset[1]
    assert error(early["gt"], early["img0"]) < 0.2 * error(early["gt"], early["img1"])
    assert error(late["gt"], late["img1"]) < 0.2 * error(late["gt"], late["img0"])


def test_evaluation_is_fixed_and_training_is_drawn_from_the_global_generators(folder):
    val = build_dataset(folder, phase="val")
    assert len(val) == 3 * 16
    assert all(torch.equal(val[5][k], val[5][k]) for k in ("img0", "gt", "img1"))
    assert not torch.equal(val[2]["img0"], val[5]["img0"])
    augmented = {"use_hflip": True, "use_rot": True, "use_reverse_channels": True, "timesteps": [0.25, 0.5, 0.75]}
    train = build_dataset({**folder, **augmented}, phase="train")
    items = []
    for seed in (1, 1, 2):
        with seeded(seed):
            items.append(train[0])
    assert all(torch.equal(items[0][k], items[1][k]) for k in ("img0", "gt", "img1", "timestep"))
    assert not torch.equal(items[0]["gt"], items[2]["gt"])


def test_the_true_flow_is_given_when_asked_for(folder):
    scene = {**folder, "gt_size": 48, "motion": [5.0, 8.0], "use_hflip": True, "use_rot": True, "objects": 0}
    assert "flow" not in build_dataset(scene, phase="train")[0]
    dataset = build_dataset({**scene, "with_flow": True}, phase="train")
    gains = []
    for seed in range(4):
        with seeded(seed):
            item = dataset[seed]
        assert item["flow"].shape == (4, 48, 48) and item["flow"].dtype == torch.float32
        warped = backwarp(item["img0"][None], item["flow"][None, :2])[0]
        inside = (slice(None), slice(8, -8), slice(8, -8))
        gains.append(error(item["img0"][inside], item["gt"][inside]) / error(warped[inside], item["gt"][inside]))
    assert min(gains) > 3, gains  # however photographs were turned


def test_evaluation_scenes_are_the_same_everywhere():
    """A change of the scenes would make results of different versions incomparable."""
    item = build_dataset({**SHIPPED, "motion": [4.0, 10.0]}, phase="val")[0]
    numbers = [float(item[k].mean()) for k in ("img0", "gt", "img1")] + item["gt"][:, 20, 30].tolist()
    assert numbers == pytest.approx([0.39755, 0.38829, 0.37302, 0.60678, 0.50973, 0.30360], abs=2e-4)


def test_the_curriculum_of_sizes_changes_the_frames(folder):
    block = {**folder, "batch_size_per_gpu": 2, "iters": [1, 1], "gt_sizes": [24, 40], "num_worker_per_gpu": 0}
    loader = build_train_loader(build_dataset(block, phase="train"), block, seed=0)
    assert [tuple(next(loader)["gt"].shape) for _ in range(2)] == [(2, 3, 24, 24), (2, 3, 40, 40)]
    loader.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataroot_gt": None}, "give either dataroot_gt"),
        ({"source": "skimage"}, "give either dataroot_gt"),
        ({"split": "val"}, "split chooses"),
        ({"motion": [1.0, 2.0], "bucket": "small"}, "keep one"),
        ({"motion": [5.0, 1.0]}, "motion: a range"),
        ({"bucket": "huge"}, "'huge'"),
        ({"timesteps": [0.5, 1.0]}, "between 0 and 1"),
    ],
)
def test_impossible_options(folder, options, message):
    with pytest.raises(UserError, match=message):
        build_dataset({**folder, **options}, phase="train")
