"""Published datasets as they are downloaded, second ground truths, and several datasets with weights."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.imaging.image_io import imread, imwrite
from relume.datasets import build_dataset
from relume.datasets.loading.loader import build_train_loader

FOLDERS = {
    "LSUI": ("train/input", "train/gt", "test/input", "test/gt"),
    "UIEB": ("raw-890", "reference-890", "challenging-60"),
    "EUVP": (
        *(f"Paired/underwater_{s}/train{x}" for s in ("dark", "imagenet", "scenes") for x in "AB"),
        "test_samples/Inp",
        "test_samples/GTr",
    ),
    "UFO-120": ("train_val/lrd", "train_val/hr", "TEST/lrd", "TEST/hr"),
    "UCCS": ("blue", "blue-green", "green"),
    "SQUID": ("Katzaa", "Michmoret", "Nachsholim", "Satil"),
}


@pytest.fixture
def lay_out(tmp_path, write_images):
    """``lay_out("UIEB")``: a tiny copy of a dataset, two images in every folder, inputs of UFO-120 half as large."""

    def make(layout, without=()):
        for folder in FOLDERS[layout]:
            if folder not in without:
                side = 8 if folder.endswith("lrd") else 16
                write_images(tmp_path / layout / folder, {"a": (side, side), "b": (side, side)})
        return str(tmp_path / layout)

    return make


@pytest.mark.parametrize(
    ("layout", "scale", "train", "test"),
    [
        ("LSUI", 1, ["train/input", "train/gt"], ["test/input", "test/gt"]),
        ("UIEB", 1, ["raw-890", "reference-890"], ["raw-890", "reference-890"]),
        ("EUVP", 1, FOLDERS["EUVP"][:6], FOLDERS["EUVP"][6:]),
        ("UFO-120", 2, ["train_val/lrd", "train_val/hr"], ["TEST/lrd", "TEST/hr"]),
    ],
)
def test_pairs(lay_out, layout, scale, train, test):
    root = lay_out(layout)
    for phase, folders in (("train", train), ("test", test), ("val", test)):
        block = {"type": "PairedImageDataset", "dataroot": root, "layout": layout}
        dataset = build_dataset(block, phase=phase, scale=scale)
        items = list(dataset)
        assert [i["lq_path"] for i in items] == [f"{root}/{f}/{n}.png" for f in folders[::2] for n in "ab"]
        assert [i["gt_path"] for i in items] == [f"{root}/{f}/{n}.png" for f in folders[1::2] for n in "ab"]


def test_lsui_before_it_is_split(tmp_path, write_images):
    for folder in ("input", "GT"):
        write_images(tmp_path / folder, {"1": (8, 8)})
    block = {"type": "PairedImageDataset", "dataroot": str(tmp_path), "layout": "LSUI"}
    assert build_dataset(block, phase="train", scale=1)[0]["gt_path"] == f"{tmp_path}/GT/1.png"


def test_ufo_at_one_size(lay_out):
    block = {"type": "PairedImageDataset", "dataroot": lay_out("UFO-120"), "layout": "UFO-120"}
    with pytest.raises(UserError, match="Is scale 1 right"):
        build_dataset(block, phase="train", scale=1)[0]
    item = build_dataset({**block, "resize": [12, 12]}, phase="train", scale=1)[0]
    assert item["lq"].shape == item["gt"].shape == (3, 12, 12)


@pytest.mark.parametrize("layout", ["UCCS", "SQUID"])
def test_sets_without_ground_truth(lay_out, layout):
    root = lay_out(layout)
    dataset = build_dataset({"type": "SingleImageDataset", "dataroot_lq": root, "layout": layout}, phase="test")
    assert [i["lq_path"] for i in dataset] == [f"{root}/{f}/{n}.png" for f in FOLDERS[layout] for n in "ab"]
    assert "gt" not in dataset[0]


def test_u45_is_a_flat_folder_and_uieb_has_challenging_images(tmp_path, write_images, lay_out):
    write_images(tmp_path / "U45", {"1": (8, 8)})
    block = {"type": "SingleImageDataset", "dataroot_lq": str(tmp_path / "U45"), "layout": "U-45"}
    assert len(build_dataset(block)) == 1
    block = {"type": "SingleImageDataset", "dataroot_lq": lay_out("UIEB"), "layout": "UIEB-challenging"}
    assert "challenging-60" in build_dataset(block)[0]["lq_path"]


def test_what_is_missing_is_said(lay_out, tmp_path):
    block = {"type": "PairedImageDataset", "dataroot": lay_out("UIEB", without=["reference-890"]), "layout": "UIEB"}
    with pytest.raises(UserError, match=r"missing: reference-890\. There is: challenging-60, raw-890$"):
        build_dataset(block, phase="train")
    block = {"type": "PairedImageDataset", "dataroot": lay_out("UIEB"), "layout": "LSUI"}
    with pytest.raises(
        UserError, match=r"needs train/input, train/gt \(or input, GT\); missing: train/input, train/gt"
    ):
        build_dataset(block, phase="train")
    with pytest.raises(UserError, match="there is no such folder"):
        build_dataset({**block, "dataroot": str(tmp_path / "nowhere")}, phase="train")
    with pytest.raises(UserError, match=r"there is no 'UFO120'\. Did you mean 'UFO-120'"):
        build_dataset({**block, "layout": "UFO120"}, phase="train")
    with pytest.raises(UserError, match="layout UIEB needs dataroot"):
        build_dataset({"type": "PairedImageDataset", "layout": "UIEB"}, phase="train")
    with pytest.raises(UserError, match="leave out dataroot_gt and dataroot_lq"):
        build_dataset({**block, "dataroot_gt": "x"}, phase="train")
    single = {"type": "SingleImageDataset", "layout": "UCCS", "dataroot_lq": lay_out("UCCS", without=["green"])}
    with pytest.raises(UserError, match="missing: green"):
        build_dataset(single)


def test_several_datasets_are_drawn_by_weight(lay_out):
    """EUVP's three sets, two images each, at 1 : 2 : 1."""
    block = {
        "type": "PairedImageDataset",
        "dataroot": lay_out("EUVP"),
        "layout": "EUVP",
        "weights": [1.0, 2.0, 1.0],
        "gt_size": 8,
        "batch_size_per_gpu": 4,
        "dataset_enlarge_ratio": 4,
        "num_worker_per_gpu": 0,
    }
    loader = build_train_loader(build_dataset(block, phase="train", scale=1), block, seed=0)
    paths = [p for _ in range(12) for p in next(loader)["lq_path"]]
    found = Counter(p.split("underwater_")[1].split("/")[0] for p in paths)
    loader.close()
    assert found == {"dark": 12, "imagenet": 24, "scenes": 12}


# ------------------------------------------------------------------ second ground truths
@pytest.fixture
def two_truths(tmp_path):
    """Inputs 20 x 24 with a coordinate in each pixel, ground truths twice as large, second ones four times."""
    rows, columns = np.mgrid[0:20, 0:24]
    small = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    for folder, factor in (("lq", 1), ("gt", 2), ("gt_2", 4)):
        image = small.repeat(factor, 0).repeat(factor, 1)
        for name in ("a", "b"):
            imwrite(f"{tmp_path}/{folder}/{name}.png", image / 255.0)
    return {
        "type": "PairedImageDataset",
        "dataroot_lq": str(tmp_path / "lq"),
        "dataroot_gt": str(tmp_path / "gt"),
        "dataroot_gt_2": str(tmp_path / "gt_2"),
    }


@pytest.mark.parametrize("augment", [{"use_hflip": True, "use_rot": True}, {"geometric_augs": True}])
def test_a_second_ground_truth_shares_every_augmentation(two_truths, augment):
    dataset = build_dataset({**two_truths, "gt_size": 16, **augment}, phase="train", scale=2)
    places = set()
    for _ in range(20):
        item = dataset[1]
        assert item["gt_2"].shape == (3, 32, 32) and item["gt_2_path"].endswith("gt_2/b.png")
        assert torch.equal(item["gt"], item["lq"].repeat_interleave(2, 1).repeat_interleave(2, 2))
        assert torch.equal(item["gt_2"], item["lq"].repeat_interleave(4, 1).repeat_interleave(4, 2))
        places.add(item["lq"].numpy().tobytes())
    assert len(places) > 10


def test_images_smaller_than_the_patch_are_continued_alike(two_truths):
    dataset = build_dataset({**two_truths, "gt_size": 56, "geometric_augs": True}, phase="train", scale=2)
    item = dataset[0]
    assert item["lq"].shape == (3, 28, 28) and item["gt_2"].shape == (3, 112, 112)
    assert torch.equal(item["gt_2"][:, ::2, ::2], item["gt"])


def test_the_same_files_at_two_sizes(two_truths):
    """The original training: one file, resized to the network's input size and to twice that."""
    block = {**two_truths, "dataroot_gt_2": two_truths["dataroot_gt"], "resize": [16, 16]}
    item = build_dataset(block, phase="val", scale=1)[0]
    assert item["lq"].shape == item["gt"].shape == (3, 16, 16) and item["gt_2"].shape == (3, 32, 32)
    assert item["gt_2_path"] == item["gt_path"]


def test_second_ground_truths_that_do_not_fit(two_truths, tmp_path):
    with pytest.raises(UserError, match=r"gt_2/a.png: is 80x96 .* with scale_gt_2 4 .* needs one of 160x192"):
        build_dataset({**two_truths, "scale_gt_2": 4}, phase="val", scale=2)[0]
    with pytest.raises(UserError, match="as many folders"):
        build_dataset({**two_truths, "dataroot_gt_2": ["a", "b"]}, phase="val", scale=2)
    alone = {k: v for k, v in two_truths.items() if k != "dataroot_gt"}
    with pytest.raises(UserError, match="as many folders as there are of first"):
        build_dataset(alone, phase="val", scale=2)
    imwrite(f"{tmp_path}/gt_2/c.png", imread(f"{tmp_path}/gt_2/a.png"))
    with pytest.raises(UserError, match=r"have no input in .*gt: c.png"):
        build_dataset(two_truths, phase="val", scale=2)


def test_uncut_ground_truths_are_cut_together(two_truths, tmp_path):
    for folder, factor in (("gt", 1), ("gt_2", 2)):
        image = imread(f"{tmp_path}/{folder}/a.png")
        grown = np.pad(image, ((0, factor), (0, factor), (0, 0)))
        imwrite(f"{tmp_path}/{folder}/a.png", grown)
    item = build_dataset(two_truths, phase="val", scale=2)[0]
    assert item["gt"].shape == (3, 40, 48) and item["gt_2"].shape == (3, 80, 96)
