"""Stereo pairs: both views of a scene, paired by name, changed alike."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from relume.core.errors import UserError
from relume.core.imaging.image_io import imread, imwrite
from relume.datasets import build_dataset


def write(folder: Path, scenes: int = 3, scale: int = 2) -> dict[str, Any]:
    """Scenes whose inputs are every other pixel of their ground truths: the options of a data set."""
    rng = np.random.RandomState(0)
    for i in range(scenes):
        for view in (0, 1):
            image = rng.rand(16 * scale, 24 * scale, 3)
            imwrite(folder / f"hr/scene{i}/hr{view}.png", image)
            imwrite(folder / f"lr/scene{i}/lr{view}.png", image[::scale, ::scale])
    return {"type": "PairedStereoImageDataset", "dataroot_gt": str(folder / "hr"), "dataroot_lq": str(folder / "lr")}


def build(block: dict[str, Any], phase: str = "train", **options: Any) -> Any:
    return build_dataset({**block, **options}, phase=phase, scale=2)


def chw(path: Path) -> Tensor:
    return torch.from_numpy(imread(str(path))).permute(2, 0, 1)


def test_whole_scenes_in_order_of_their_names(tmp_path: Path) -> None:
    dataset = build(write(tmp_path), "val", gt_size_h=8, gt_size_w=8, use_hflip=True, flip_RGB=True)
    assert len(dataset) == 3
    item = dataset[1]
    for key, folder, name in (("lq", "lr", "lr"), ("gt", "hr", "hr")):
        views = [chw(tmp_path / folder / "scene1" / f"{name}{i}.png") for i in (0, 1)]
        assert torch.equal(item[key], torch.cat(views))
    assert item["lq_path"] == dataset.result_path(1) == str(tmp_path / "lr" / "scene1")


def test_the_other_layout_and_one_folder_for_both(tmp_path: Path) -> None:
    block = write(tmp_path)
    for i in range(3):
        for view in (0, 1):
            (tmp_path / "hr" / f"scene{i}" / f"hr{view}.png").rename(tmp_path / "hr" / f"{i}_{'LR'[view]}.png")
            (tmp_path / "lr" / f"scene{i}" / f"lr{view}.png").rename(tmp_path / "lr" / f"{i}_{'LR'[view]}.png")
    flat = build({**block, "type": "PairedImageSRLRDataset"}, "test")
    assert flat.result_path(2).endswith("lr/2")
    again = write(tmp_path / "more")
    for path in (tmp_path / "more").glob("lr/*/*.png"):
        path.rename(tmp_path / "more" / "hr" / path.parent.name / path.name)
    one = build({**again, "dataroot_lq": again["dataroot_gt"]}, "test")
    assert torch.equal(one[2]["gt"], flat[2]["gt"]) and torch.equal(one[2]["lq"], flat[2]["lq"])


AUGMENTATION = {
    "use_hflip": True,
    "use_vflip": True,
    "use_rot": True,
    "flip_RGB": True,
    "flip_LR": True,
    "inverse_RGB": True,
    "naive_inverse_RGB": True,
}


@pytest.mark.parametrize("option", [*AUGMENTATION, "random_offset", "all"])
def test_both_views_and_both_sizes_change_alike(tmp_path: Path, option: str) -> None:
    value: Any = 3 if option == "random_offset" else True
    options = {**AUGMENTATION, "random_offset": 3} if option == "all" else {option: value}
    dataset = build(write(tmp_path), gt_size_h=12, gt_size_w=20, **options)
    seen = set()
    for seed in range(24):
        random.seed(seed)
        item = dataset[0]
        transposed = item["gt"].shape[1:] == (20, 12)
        assert item["gt"].shape == (6, 20, 12) if transposed else (6, 12, 20)
        # Where nothing is transposed or turned round, a ground truth's every other pixel is the input's.
        flipped = transposed or option in ("use_hflip", "use_vflip", "use_rot", "all")
        corners = [item["gt"][:, i::2, j::2] for i in (0, 1) for j in ((0, 1) if flipped else (0,))]
        assert any(torch.allclose(c, item["lq"], atol=1e-6) for c in (corners if flipped else corners[:1]))
        seen.add(item["lq"].numpy().tobytes())
    assert len(seen) > 6


def test_views_are_exchanged(tmp_path: Path) -> None:
    dataset, gt = build(write(tmp_path), flip_LR=True), build(write(tmp_path), "val")[0]["gt"]
    found = [dataset[0]["gt"] for _ in range(20)]
    exchanged = torch.cat([gt[3:], gt[:3]])
    assert all(torch.equal(x, gt) or torch.equal(x, exchanged) for x in found)
    assert 0 < sum(torch.equal(x, gt) for x in found) < 20


def test_colours_are_exchanged_in_both_views_by_one_order(tmp_path: Path) -> None:
    dataset = build(write(tmp_path), flip_RGB=True)
    gt = build(write(tmp_path), "val")[0]["gt"]
    orders = set()
    for seed in range(40):
        random.seed(seed)
        changed = dataset[0]["gt"]
        order = [next(i for i in range(6) if torch.equal(c, gt[i])) for c in changed]
        assert order[3:] == [3 + i for i in order[:3]]
        orders.add(tuple(order))
    assert len(orders) == 6


def test_mirroring_leaves_the_left_view_the_left_one(tmp_path: Path) -> None:
    dataset, gt = build(write(tmp_path), use_hflip=True), build(write(tmp_path), "val")[0]["gt"]
    found = {torch.equal(dataset[0]["gt"], gt) for _ in range(20)}
    random.seed(1)
    mirrored = next(x for x in (dataset[0]["gt"] for _ in range(40)) if not torch.equal(x, gt))
    assert found <= {True, False}
    assert torch.equal(mirrored, gt.flip(2))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "hr/scene1/hr1.png").unlink(), "1 views lack the other one of their scene: scene1/hr0.png"),
        (lambda f: [p.unlink() for p in (f / "lr/scene2").iterdir()], "1 of 3 scenes in .*hr are not in .*lr: scene2"),
        (lambda f: [p.rename(p.with_name("x" + p.name)) for p in f.glob("hr/*/*")], "no pairs of views"),
    ],
)
def test_incomplete_folders(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    block = write(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        build(block)


def test_sizes_that_do_not_fit(tmp_path: Path) -> None:
    block = write(tmp_path)
    for options, message in [
        ({"gt_size_h": 12}, "belong together"),
        ({"gt_size": 13}, "multiple of scale 2"),
        ({"gt_size_h": 12, "gt_size_w": 13}, "multiple of scale 2"),
    ]:
        with pytest.raises(UserError, match=message):
            build(block, **options)
    with pytest.raises(UserError, match="smaller than the patch 12x90"):
        build(block, gt_size_h=12, gt_size_w=90)[0]
    with pytest.raises(UserError, match="patch gt_size 64 is larger than 3 of 3"):
        build(block, gt_size=64).require_patch(64)
    imwrite(tmp_path / "lr/scene0/lr1.png", np.zeros((9, 9, 3)))
    with pytest.raises(UserError, match=r"lr1\.png: is \(9, 9, 3\)"):
        build(block, "val")[0]
    with pytest.raises(UserError, match="Is scale 4 right"):
        build_dataset(block, phase="val", scale=4)[1]


def test_mean_and_std_of_three_channels_are_for_both_views(tmp_path: Path) -> None:
    plain, shifted = (
        build(write(tmp_path), "val")[0],
        build(write(tmp_path), "val", mean=[0.1, 0.2, 0.3], std=[2, 2, 2]),
    )
    expected = (plain["gt"] - torch.tensor([0.1, 0.2, 0.3] * 2)[:, None, None]) / 2
    torch.testing.assert_close(shifted[0]["gt"], expected)
    assert shifted.mean == [0.1, 0.2, 0.3] * 2
