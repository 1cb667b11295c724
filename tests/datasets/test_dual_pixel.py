"""Dual-pixel photographs: two inputs and a ground truth of one name, 16 bits."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from relume.core.errors import UserError
from relume.core.imaging.image_io import imread
from relume.datasets import build_dataset

FOLDERS = {"dataroot_lqL": "inputL", "dataroot_lqR": "inputR", "dataroot_gt": "target"}


@pytest.fixture
def block(tmp_path: Path, write_images: Callable[..., None]) -> dict[str, Any]:
    for i, folder in enumerate(FOLDERS.values()):
        write_images(
            tmp_path / folder, {"a": (20, 24), "b": (20, 24), **{f"{c}": (20, 24) for c in "cdef"[: 2 * i]}}, bits=16
        )
        for extra in "cdef"[: 2 * i]:
            (tmp_path / folder / f"{extra}.png").unlink()
    return {"type": "Dataset_DefocusDeblur_DualPixel_16bit", **{k: str(tmp_path / v) for k, v in FOLDERS.items()}}


def test_inputs_of_both_halves_at_16_bits(block: dict[str, Any], tmp_path: Path) -> None:
    item = build_dataset(block, phase="val", scale=1)[1]
    views = [torch.from_numpy(imread(str(tmp_path / f / "b.png"))).permute(2, 0, 1) for f in FOLDERS.values()]
    assert torch.equal(item["lq"], torch.cat(views[:2])) and torch.equal(item["gt"], views[2])
    assert not torch.equal(views[0], views[1])
    assert float((views[0] * 65535 % 257).max()) > 1  # finer than 8 bits
    assert item["lq_path"] == str(tmp_path / "inputL" / "b.png")


def test_patches_are_cut_alike(block: dict[str, Any], tmp_path: Path) -> None:
    same = {**block, "dataroot_lqR": block["dataroot_lqL"], "dataroot_gt": block["dataroot_lqL"]}
    for size in (16, 32):  # of smaller images the rest is reflected
        dataset = build_dataset({**same, "gt_size": size, "geometric_augs": True}, phase="train", scale=1)
        for seed in range(8):
            random.seed(seed)
            item = dataset[0]
            assert item["gt"].shape == (3, size, size)
            assert torch.equal(item["lq"], torch.cat([item["gt"]] * 2))


def test_a_missing_partner_and_other_sizes(
    block: dict[str, Any], tmp_path: Path, write_images: Callable[..., None]
) -> None:
    write_images(tmp_path / "inputR", {"b": (20, 20)}, bits=16)
    with pytest.raises(UserError, match=r"differ in size: 20x24, 20x20, 20x24"):
        build_dataset(block, phase="val", scale=1)[1]
    (tmp_path / "inputR" / "b.png").unlink()
    with pytest.raises(UserError, match="have no input"):
        build_dataset(block, phase="val", scale=1)
