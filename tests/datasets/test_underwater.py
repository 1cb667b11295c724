"""Synthetic underwater photographs."""

from __future__ import annotations

import pytest
import torch

from relume.core.errors import UserError
from relume.core.imaging.opencv import cv2
from relume.datasets import build_dataset
from relume.datasets.loading.loader import build_train_loader
from relume.datasets.loading.worker import seeded
from relume.datasets.photographs import SHIPPED
from relume.datasets.photometric import gaussian_blur

SHIPPED_BLOCK = {"type": "SyntheticUnderwaterDataset", "source": "skimage"}


@pytest.fixture
def folder(tmp_path, write_images):
    write_images(tmp_path / "air", {"a": (40, 56), "b": (36, 40), "c": (48, 40)})
    return {"type": "SyntheticUnderwaterDataset", "dataroot_gt": str(tmp_path / "air")}


def test_no_photograph_is_in_both_splits():
    train, val = (build_dataset(SHIPPED_BLOCK, phase=phase) for phase in ("train", "val"))
    names = [{name for _, name in d.photographs} for d in (train, val)]
    assert names == [set(SHIPPED["train"]), set(SHIPPED["val"])]
    assert not names[0] & names[1]
    assert len(build_dataset({**SHIPPED_BLOCK, "split": "val"}, phase="train")) == len(val)


def test_the_shipped_photographs_lose_light_red_first():
    dataset = build_dataset({**SHIPPED_BLOCK, "shorter_side": 96, "noise": [0.0, 0.0]}, phase="val")
    for i in range(len(dataset)):
        item = dataset[i]
        assert item["lq"].shape == item["gt"].shape and min(item["gt"].shape[1:]) == 96
        assert item["lq"].min() >= 0 and item["lq"].max() <= 1
        ratio = item["lq"].mean(dim=(1, 2)) / item["gt"].mean(dim=(1, 2))
        assert ratio[0] < ratio[1]
        assert ((item["lq"] - item["gt"]) ** 2).mean() > 0.005


def test_evaluation_is_fixed_and_training_is_drawn_from_the_global_generators(folder):
    val = build_dataset({**folder, "renditions": 2}, phase="val")
    assert len(val) == 6
    assert torch.equal(val[4]["lq"], val[4]["lq"]) and torch.equal(val[1]["gt"], val[4]["gt"])
    assert not torch.equal(val[1]["lq"], val[4]["lq"])
    names = [val[i]["lq_path"].rpartition("/")[2] for i in (0, 1, 4)]
    assert names == ["a_0.png", "b_0.png", "b_1.png"]
    train = build_dataset({**folder, "gt_size": 24, "use_hflip": True, "use_rot": True}, phase="train")
    items = []
    for seed in (1, 1, 2):
        with seeded(seed):
            items.append(train[0])
    assert items[0]["gt"].shape == (3, 24, 24)
    assert torch.equal(items[0]["lq"], items[1]["lq"]) and torch.equal(items[0]["gt"], items[1]["gt"])
    assert not torch.equal(items[0]["gt"], items[2]["gt"])


def test_photographs_are_shrunk_but_never_enlarged(folder):
    dataset = build_dataset({**folder, "shorter_side": 38}, phase="val")
    assert [tuple(dataset[i]["gt"].shape[1:]) for i in range(3)] == [(38, 53), (36, 40), (46, 38)]


def test_validation_images_are_the_same_everywhere(folder):
    """A regression of the scenes would make results of different versions incomparable."""
    item = build_dataset(folder, phase="val")[1]
    means = item["lq"].mean(dim=(1, 2)).tolist()
    assert means == pytest.approx([0.29020, 0.66558, 0.56273], abs=2e-4)


def test_patches_larger_than_a_photograph(folder):
    dataset = build_dataset({**folder, "gt_size": 38}, phase="train")
    with pytest.raises(UserError, match=r"gt_size 38 is larger than 1 of 3 images.*b\.png \(36x40\)"):
        dataset.require_patch(38)
    with pytest.raises(UserError, match=r"b\.png: is 36x40"):
        dataset[1]
    with pytest.raises(UserError, match="shorter_side 32"):
        build_dataset({**folder, "shorter_side": 32}, phase="train").require_patch(33)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataroot_gt": None}, "give either dataroot_gt"),
        ({"source": "skimage"}, "give either dataroot_gt"),
        ({"split": "val"}, "split chooses"),
        ({"water_types": ["II", "3"]}, "no type '3'"),
        ({"depth": [5.0, 1.0]}, "depth: a range"),
        ({"noise": [-1.0, 1.0]}, "noise: a range"),
    ],
)
def test_impossible_options(folder, options, message):
    with pytest.raises(UserError, match=message):
        build_dataset({**folder, **options}, phase="train")


def test_each_water_type_can_be_had_alone(folder):
    colours = {}
    for name in ("I", "9C"):
        item = build_dataset(
            {**folder, "water_types": [name], "depth": [8.0, 8.0], "distance": [6.0, 6.0]}, phase="val"
        )[0]
        colours[name] = item["lq"].mean(dim=(1, 2))
    assert colours["I"].argmax() == 2 and colours["9C"].argmin() == 2


@pytest.mark.parametrize("turned", [False, True])
def test_on_the_device_the_same_draws_make_the_same_pictures(folder, turned):
    block = {**folder, "gt_size": 24, "noise": [0.02, 0.05], "use_hflip": turned, "use_rot": turned, "renditions": 3}
    here, there = (build_dataset({**block, "on_device": on}, phase="train") for on in (False, True))
    loaders = [
        build_train_loader(d, {"batch_size_per_gpu": 4, "num_worker_per_gpu": 0, "send_uint8": True}, seed=5)
        for d in (here, there)
    ]
    for _ in range(3):
        a, b = (next(loader) for loader in loaders)
        assert a.keys() == b.keys() and torch.equal(a["gt"], b["gt"]) and a["lq_path"] == b["lq_path"]
        assert torch.equal(a["seed"], b["seed"])
        torch.testing.assert_close(b["lq"], a["lq"], rtol=0, atol=2e-5)
    val = build_dataset({**block, "on_device": True}, phase="val")[0]
    assert "lq" in val and "field" not in val
    with pytest.raises(UserError, match="leave out on_device"):
        build_dataset({"type": "MixedDataset", "datasets": [{**block, "on_device": True}]}, phase="train")


@pytest.mark.parametrize("size", [(24, 31), (5, 1), (9, 2)])
def test_a_blur_for_each_image_is_opencvs(size):
    image = torch.rand(4, 3, *size, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 0.4, 0.77, 1.3 if min(size) > 4 else 0.2])
    found = gaussian_blur(image, sigma)
    for one, s, result in zip(image, sigma, found, strict=True):
        expected = cv2.GaussianBlur(one.permute(1, 2, 0).numpy(), (0, 0), float(s), borderType=cv2.BORDER_REFLECT_101)
        torch.testing.assert_close(result.permute(1, 2, 0).numpy(), expected.reshape(*size, 3), rtol=0, atol=2e-6)
